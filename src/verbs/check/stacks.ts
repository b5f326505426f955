/*
 * V8 stacks for findings, without the frames of userdma and of Node. V8 formats a stack when it is read, so that an
 * unread stack costs only the capture.
 */
import type { Stack } from '../../spec/check/findings.ts'

/** Maximum frames of a captured stack, including frames of userdma and Node. */
const MAX_FRAMES = 32

/** The folder of the package, from the frame of this file; undefined if a bundler has moved it. */
const [, root] =
  /(?:file:\/\/)?(\/[^:]*?\/)(?:dist\/)?src\/verbs\/check\/stacks\.[jt]s/.exec(new Error().stack ?? '') ?? []
/** Folders of userdma's code: dist/src, or src if Node applies source maps. */
const ownFolders = root === undefined ? [] : [`${root}dist/src/`, `${root}src/`]

/** A captured stack; the first call formats it. */
export type LazyStack = () => Stack

const FRAME = /^ {4}at (.*)$/gm

/** Whether a frame is the program's: neither Node's nor userdma's. */
const isProgramFrame = (frame: string): boolean =>
  !/(?:^|[ (])node:/.test(frame) && !ownFolders.some(folder => frame.includes(folder))

const parse = (text: unknown): Stack =>
  typeof text === 'string' ? [...text.matchAll(FRAME)].map(([, frame = '']) => frame).filter(isProgramFrame) : []

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
