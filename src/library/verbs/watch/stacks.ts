/*
 * V8 stacks for findings and errors, without the frames of userdma and of Node. V8 formats a stack when it is read, so
 * that an unread stack costs only the capture.
 */
import type { Stack } from '../../../spec/check/finding.ts'

/** Maximum frames of a captured stack, including frames of userdma and Node. */
const MAX_FRAMES = 32

/** An object whose `stack` is the text of the current stack, without `above` and the functions that it calls. */
const capture = (above?: (...args: never[]) => unknown): { stack?: unknown } => {
  const holder = {}
  const { stackTraceLimit } = Error
  // Not by assignment, which throws with `node --frozen-intrinsics`: there the limit stays.
  Reflect.set(Error, 'stackTraceLimit', MAX_FRAMES)
  Error.captureStackTrace?.(holder, above)
  Reflect.set(Error, 'stackTraceLimit', stackTraceLimit)
  return holder
}

/**
 * The folder of the package, from the frame of this file, which is also in a part of the bundled library
 * (scripts/bundle.mjs); undefined if another bundler has moved it.
 */
const [, root] =
  /(?:file:\/\/)?(\/[^:]*?\/)(?:(?:dist\/)?src\/library\/verbs\/watch\/stacks\.[jt]s|dist\/(?:lib|program)\/parts\/[A-Z0-9]{8}\.js)/.exec(
    String(capture().stack),
  ) ?? []
/** Folders of userdma's code; src if Node applies source maps. */
const ownFolders =
  root === undefined ? [] : ['dist/lib/', 'dist/program/', 'dist/src/', 'src/'].map(name => root + name)

/** A captured stack; the first call formats it. */
export type LazyStack = () => Stack

const FRAME = /^ {4}at (.*)$/gm

/** Whether a frame is the program's: neither Node's nor userdma's. */
const isProgramFrame = (frame: string): boolean =>
  !/(?:^|[ (])node:/.test(frame) && !ownFolders.some(folder => frame.includes(folder))

const framesOf = (text: unknown): string[] =>
  typeof text === 'string' ? [...text.matchAll(FRAME)].map(([, frame = '']) => frame) : []

/** The frames of the program, from the first that is in a file: builtins at the top were called by userdma. */
const programFrames = (frames: readonly string[]): Stack => {
  const program = frames.filter(isProgramFrame)
  const first = program.findIndex(frame => !frame.endsWith('(<anonymous>)'))
  return first < 0 ? [] : program.slice(first)
}

const parse = (text: unknown): Stack => programFrames(framesOf(text))

export const captureStack = (): LazyStack => {
  const holder = capture(captureStack)
  let stack: Stack | undefined
  return () => {
    stack ??= parse(holder.stack)
    delete holder.stack
    return stack
  }
}

/**
 * Makes the stack of `error` begin at the line of the program: without frames of userdma and Node. A stack without
 * frames of the program stays whole. Does nothing where V8's `captureStackTrace` is missing.
 */
export const beginStackAtProgram = (error: Error): void => {
  if (Error.captureStackTrace === undefined) return
  const holder = capture(beginStackAtProgram)
  const limit = Error.stackTraceLimit
  let text: string | undefined
  Object.defineProperty(error, 'stack', {
    configurable: true,
    get(): string {
      if (text !== undefined) return text
      const all = framesOf(holder.stack)
      const program = programFrames(all)
      const frames = (program.length > 0 ? program : all).slice(0, limit)
      text = [`${error.name}: ${error.message}`, ...frames.map(frame => `    at ${frame}`)].join('\n')
      delete holder.stack
      return text
    },
    set(value: unknown) {
      Object.defineProperty(error, 'stack', { configurable: true, writable: true, value })
    },
  })
}
