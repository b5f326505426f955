/*
 * Findings as text for people: of `userdma check`, and of the library's own devices.
 */
import { type Finding, findings, type Moment, type Stack } from '../spec/check/findings.ts'
import { printable } from './printable.ts'

export interface Frame {
  readonly function: string
  /** Source file; undefined: unknown. */
  readonly file?: string
  readonly line?: number
  /** The program or library that contains the frame. */
  readonly object?: string
}

export interface Symbols {
  /** The frames of a stack, innermost first; an address with inlined functions has several. */
  framesOf(stack: Stack): readonly Frame[]
}

const V8 = /^(?:at )?(?:(.*?) \()?(?:file:\/\/)?(.+?):(\d+)(?::\d+)?\)?$/

/** A frame of V8's stacks. `shortened` returns a path as it is printed. */
export const v8Frame = (text: string, shortened: (path: string) => string): Frame => {
  const [, name = '<anonymous>', file, line] = V8.exec(text) ?? []
  return file === undefined ? { function: text } : { function: name, file: shortened(file), line: Number(line) }
}

/** Frames of a stack that are printed. */
const MAX_FRAMES = 12
/** Maximum frames printed for each event in an object's history. */
const MAX_CALLERS = 4

export const frameText = ({ function: name, file, line, object }: Frame): string => {
  const where = file !== undefined ? `${file}:${line}` : object !== undefined ? `(${object})` : ''
  return [name || '??', where].filter(Boolean).join(file === undefined ? ' ' : ' at ')
}

/** A frame in the history of an object: its function and source line. */
const callerText = ({ function: name, file, line }: Frame): string =>
  `${name || '??'}${file === undefined ? '' : ` (${file}:${line})`}`

const stackLines = (frames: readonly Frame[], indent: string): string[] => [
  ...frames.slice(0, MAX_FRAMES).map((frame, i) => `${indent}#${i} ${frameText(frame)}`),
  ...(frames.length > MAX_FRAMES ? [`${indent}… ${frames.length - MAX_FRAMES} more`] : []),
]

const ago = (from: number, to: number): string => {
  const ms = (to - from) / 1000
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s before` : `${ms.toFixed(1)} ms before`
}

/** A finding as lines. */
export const findingText = (finding: Finding, symbols: Symbols): string => {
  const { id, severity, text, details, program, device, time, moments, objects } = finding
  const subject = program === undefined ? device : `process ${program.pid} (${program.command}), ${device}`
  const historyLine = ({ what, time: when, stack }: Moment): string => {
    const callers = symbols.framesOf(stack).slice(0, MAX_CALLERS).map(callerText).join(' < ')
    return `    ${what}${when < time ? ` ${ago(when, time)}` : ''}${callers && `: ${callers}`}`
  }
  const lines = [
    `userdma check: ${severity} ${id}: ${subject}: ${text}`,
    ...details.map(line => `    ${line}`),
    ...moments
      .filter(({ stack }) => stack.length > 0)
      .flatMap(({ what, stack }) => [`  ${what}`, ...stackLines(symbols.framesOf(stack), '    ')]),
    ...objects.flatMap(({ name, history }) => [`  ${name}`, ...history.map(historyLine)]),
    `  advice: ${findings[id].advice}`,
  ]
  return `${lines.map(printable).join('\n')}\n`
}
