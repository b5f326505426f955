/*
 * V8 stacks for findings, without the frames of userdma and of Node. V8 formats a stack when it is read, so a stack
 * that no finding needs is only captured. Source maps apply if Node has enabled them (--enable-source-maps).
 */
import type { Stack } from '../../spec/check/findings.ts'

/** Captured frames, including those that are left out. */
const MAX_FRAMES = 32

/** The folder of the package, from the frame of this file; undefined if a bundler has moved it. */
const [, root] =
  /(?:file:\/\/)?(\/[^:]*?\/)(?:dist\/)?src\/verbs\/check\/stacks\.[jt]s/.exec(new Error().stack ?? '') ?? []
/** Folders of userdma's code and, by source maps, of its sources. */
const own = root === undefined ? [] : [`${root}dist/src/`, `${root}src/`]

/** A stack whose text is formatted on demand. */
export type LazyStack = () => Stack

const FRAME = /^ {4}at (.*)$/gm

const isForeign = (frame: string): boolean =>
  !/(?:^|[ (])node:/.test(frame) && !own.some(folder => frame.includes(folder))

const parse = (text: unknown): Stack =>
  typeof text === 'string' ? [...text.matchAll(FRAME)].map(([, frame = '']) => frame).filter(isForeign) : []

/** The stack of the caller. */
export const captureStack = (): LazyStack => {
  const holder: { stack?: unknown } = {}
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = MAX_FRAMES
  Error.captureStackTrace?.(holder, captureStack)
  Error.stackTraceLimit = stackTraceLimit
  let stack: Stack | undefined
  return () => {
    stack ??= parse(holder.stack)
    delete holder.stack
    return stack
  }
}
