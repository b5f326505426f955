/*
 * V8 stacks for findings, without the frames of userdma and of Node. V8 formats a stack when it is read, so that an
 * unread stack costs only the capture.
 */
import type { Stack } from '../../spec/check/findings.ts'

/** Maximum frames of a captured stack, including frames of userdma and Node. */
const MAX_FRAMES = 32

/** An object whose `stack` is the text of the current stack, without `above` and the functions that it calls. */
const capture = (above?: () => unknown): { stack?: unknown } => {
  const holder = {}
  const { stackTraceLimit } = Error
  // Not by assignment, which throws with `node --frozen-intrinsics`: there the limit stays.
  Reflect.set(Error, 'stackTraceLimit', MAX_FRAMES)
  Error.captureStackTrace?.(holder, above)
  Reflect.set(Error, 'stackTraceLimit', stackTraceLimit)
  return holder
}

/** The folder of the package, from the frame of this file; undefined if a bundler has moved it. */
const [, root] =
  /(?:file:\/\/)?(\/[^:]*?\/)(?:dist\/)?src\/verbs\/check\/stacks\.[jt]s/.exec(String(capture().stack)) ?? []
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
  const holder = capture(captureStack)
  let stack: Stack | undefined
  return () => {
    stack ??= parse(holder.stack)
    delete holder.stack
    return stack
  }
}
