/*
 * Findings as text for people: those of `userdma check`, and those of the library about devices in its process.
 */
import { type Finding, findings, type Moment, type Stack } from '../spec/check/findings.ts'
import { printable } from './printable.ts'

/** A frame of a stack. */
export interface Frame {
  readonly function: string
  /** Source file; undefined: unknown. */
  readonly file?: string
  readonly line?: number
  /** The program or library that contains the frame. */
  readonly object?: string
}

/** Finds functions and source lines of stacks. */
export interface Symbols {
  /** The frames of a stack, innermost first; an address with inlined functions has several. */
  framesOf(stack: Stack): readonly Frame[]
}

/** A line of a stack of V8, `at function (file:line:column)`, or a frame of Python, `function (file:line)`. */
const V8_FRAME = /^(?:at )?(?:(.*?) \()?(?:file:\/\/)?(.+?):(\d+)(?::\d+)?\)?$/

/** The frame in a text as for V8_FRAME. `shorten` returns a path as it is printed. */
export const v8Frame = (text: string, shorten: (path: string) => string): Frame => {
  const [, name = '<anonymous>', file, line] = V8_FRAME.exec(text) ?? []
  return file === undefined ? { function: text } : { function: name, file: shorten(file), line: Number(line) }
}

/** Maximum frames of a stack that are printed. */
const MAX_FRAMES = 12
/** Maximum frames that are printed for each moment in the history of an object. */
const MAX_CALLERS = 4

/** A frame of a stack: `function at file:line`, or `function (object)`. */
export const frameText = ({ function: name, file, line, object }: Frame): string => {
  const location = file !== undefined ? `${file}:${line}` : object !== undefined ? `(${object})` : ''
  return [name || '??', location].filter(Boolean).join(file === undefined ? ' ' : ' at ')
}

/** A frame in the history of an object: its function and source line. */
const callerText = ({ function: name, file, line }: Frame): string =>
  `${name || '??'}${file === undefined ? '' : ` (${file}:${line})`}`

const stackLines = (frames: readonly Frame[], indent: string): string[] => [
  ...frames.slice(0, MAX_FRAMES).map((frame, i) => `${indent}#${i} ${frameText(frame)}`),
  ...(frames.length > MAX_FRAMES ? [`${indent}… ${frames.length - MAX_FRAMES} more`] : []),
]

/** The time between two moments, given in microseconds. */
const beforeText = (earlier: number, later: number): string => {
  const ms = (later - earlier) / 1000
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s before` : `${ms.toFixed(1)} ms before`
}

/** A finding as lines. */
export const findingText = (finding: Finding, symbols: Symbols): string => {
  const { id, severity, text, details, program, device, time, moments, objects } = finding
  const subject = program === undefined ? device : `process ${program.pid} (${program.command}), ${device}`
  const historyLine = ({ action, time: when, stack }: Moment): string => {
    const callers = symbols.framesOf(stack).slice(0, MAX_CALLERS).map(callerText).join(' < ')
    return `    ${action}${when < time ? ` ${beforeText(when, time)}` : ''}${callers && `: ${callers}`}`
  }
  const lines = [
    `userdma check: ${severity} ${id}: ${subject}: ${text}`,
    ...details.map(line => `    ${line}`),
    ...moments
      .filter(({ stack }) => stack.length > 0)
      .flatMap(({ action, stack }) => [`  ${action}`, ...stackLines(symbols.framesOf(stack), '    ')]),
    ...objects.flatMap(({ name, history }) => [`  ${name}`, ...history.map(historyLine)]),
    `  advice: ${findings[id].advice}`,
  ]
  return `${lines.map(printable).join('\n')}\n`
}
