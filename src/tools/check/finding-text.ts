/*
 * Findings as text: of `userdma check`, and of the library about devices in the process.
 */
import type { CaptureFindingId, Finding, Moment, Stack } from '../../spec/check/finding.ts'
import { type FindingId, findings } from '../../spec/check/findings.ts'
import { callerText, type Frame, frameText, ownFrame, V8_FRAME } from '../../spec/check/frames.ts'
import { STORY_LINES } from '../../spec/check/story.ts'
import type { FoundPoll, WaitGraph } from '../../spec/check/thread-waits.ts'
import { printable } from '../../spec/printable.ts'
import { storyLines } from './story/text.ts'
import { waitLines } from './waits/wait-lines.ts'

export interface Symbols {
  /**
   * Frames, innermost first. An address with inlined functions has several frames. `most`: so many are printed; of the
   * others only their number matters.
   */
  framesOf(stack: Stack, most?: number): readonly Frame[]
}

/** The stacks of findings. */
export const stacksOf = (all: readonly Pick<AnyFinding, 'moments' | 'objects' | 'story' | 'waits'>[]): Stack[] =>
  all.flatMap(({ moments, objects, story = [], waits }) => [
    ...[...moments, ...objects.flatMap(({ history }) => history), ...story, ...(waits?.threads ?? [])].map(
      ({ stack }) => stack,
    ),
    ...(waits?.threads ?? []).flatMap(({ signaled, polled = [] }) => [
      ...(signaled === undefined ? [] : [signaled]),
      ...polled.map(({ stack }) => stack),
    ]),
  ])

/** The path in a file URL. Text that is not percent-encoded stays. */
const pathOfUrl = (path: string): string => {
  try {
    return decodeURIComponent(path)
  } catch {
    return path
  }
}

/** Parses a frame of V8 or Python. `shorten` returns a path as it is printed. */
export const v8Frame = (text: string, shorten: (path: string) => string): Frame => {
  const [, name = '<anonymous>', scheme, file, line] = V8_FRAME.exec(text) ?? []
  if (file === undefined) return { function: text }
  const path = scheme === undefined ? file : pathOfUrl(file)
  return { function: name, file: shorten(path), line: Number(line) }
}

/** Maximum printed frames of a stack. */
const MAX_FRAMES = 12
/** Maximum printed frames of each moment in the history of an object. */
const MAX_CALLERS = 4

const stackLines = (frames: readonly Frame[], indent: string): string[] => [
  ...frames.slice(0, MAX_FRAMES).map((frame, i) => `${indent}#${i} ${frameText(frame)}`),
  ...(frames.length > MAX_FRAMES ? [`${indent}… ${frames.length - MAX_FRAMES} more`] : []),
]

/** Without the callers of a thread's function. */
const withoutStart = (frames: readonly Frame[]): readonly Frame[] => {
  const start = frames.findIndex(({ function: name, object }, i) => {
    const isOfLibc = /\/lib(?:c|pthread)[.-]/.test(object ?? '')
    return i > 0 && (name === 'start_thread' || isOfLibc)
  })
  return start < 0 ? frames : frames.slice(0, start)
}

/** Some polls of a thread that have found something, as a line; repeats are joined. */
const foundLines = (polls: readonly FoundPoll[] = [], symbols: Symbols): string[] => {
  const texts = polls.map(({ object, count, asked, stack }) => {
    const frame = ownFrame(symbols.framesOf(stack, MAX_CALLERS))
    const place = frame === undefined || (frame.function === '' && frame.file === undefined) ? '' : callerText(frame)
    return `${count}${asked === undefined ? '' : ` of at most ${asked}`} from ${object}${place && `: ${place}`}`
  })
  const runs: { readonly text: string; times: number }[] = []
  for (const text of texts) {
    const last = runs.at(-1)
    if (last?.text === text) last.times++
    else runs.push({ text, times: 1 })
  }
  if (runs.length === 0) return []
  const told = runs.map(({ text, times }) => (times === 1 ? text : `${times} times ${text}`))
  return [`      its last polls that found completions: ${printable(told.join('; '))}`]
}

/** The block of a finding that says who waits for whom. */
export const waitBlock = (graph: WaitGraph, symbols: Symbols, pid?: number): readonly string[] => [
  '  who waits for whom:',
  ...waitLines(graph, pid).flatMap((line, i) => {
    const { stack, signaled = [], polled } = graph.threads[i]!
    const textOf = (stack: Stack, head: string): string[] => {
      const frames = withoutStart(symbols.framesOf(stack, MAX_CALLERS))
      return frames.some(({ function: name }) => name !== '') ? [`      ${head}${callersText(frames)}`] : []
    }
    return [`    ${line}`, ...textOf(stack, ''), ...textOf(signaled, 'signaled last: '), ...foundLines(polled, symbols)]
  }),
  ...(graph.more > 0 ? [`    … ${graph.more} more threads`] : []),
]

/** `earlier` and `later`: microseconds. */
const beforeText = (earlier: number, later: number): string => {
  const ms = (later - earlier) / 1000
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s before` : `${ms.toFixed(1)} ms before`
}

/** As sessions have them: of the checker, or of a capture, with an advice of its own. */
type AnyFinding = Finding<FindingId | CaptureFindingId>

const isOfCapture = (id: AnyFinding['id']): id is CaptureFindingId => id.startsWith('capture ')

/** A program of the library in this process has no libibverbs: the advice names the library's methods. */
const adviceOf = ({ id, program, advice: own }: AnyFinding): string | undefined => {
  if (isOfCapture(id)) return own
  const { advice, libraryAdvice = advice } = findings[id]
  return own ?? (program === undefined ? libraryAdvice : advice)
}

/** The first line of a finding's text, without its line feed. */
export const headText = ({ id, severity, follows, text, program, host, device }: AnyFinding): string => {
  const place = host === undefined ? '' : ` on ${host}`
  const names = [...(program === undefined ? [] : [`process ${program.pid} (${program.command})${place}`]), device]
  // A mistake with an object of libibverbs alone has no device.
  const subject = names.filter(Boolean).join(', ')
  const kind = follows === undefined ? severity : 'follows'
  return printable(`userdma ${isOfCapture(id) ? 'explain' : 'check'}: ${kind} ${id}: ${subject}: ${text}`)
}

const callersText = (frames: readonly Frame[]): string =>
  printable(frames.slice(0, MAX_CALLERS).map(callerText).join(' < '))

/** The innermost frames of a stack in one line: `ibv_reg_mr < main (a.c:9)`; empty: none. */
export const callersOf = (stack: Stack, symbols: Symbols): string => callersText(symbols.framesOf(stack, MAX_CALLERS))

/** Maximum lines of a finding; `--verbose` has the others. */
const FINDING_LINES = 60
/** Lines that a part keeps beside a longer one. */
const LEAST_LINES = 6

/** The parts of a finding, the last ones first cut, so that they have `most` lines together. */
const limitedTo = (most: number, parts: readonly (readonly string[])[]): readonly string[] => {
  let surplus = parts.flat().length - most
  const cut = (lines: readonly string[]): readonly string[] => {
    const left = Math.max(LEAST_LINES, lines.length - surplus - 1)
    if (surplus <= 0 || left + 1 >= lines.length) return lines
    surplus -= lines.length - left - 1
    return [...lines.slice(0, left), `    … ${lines.length - left} more lines: --verbose`]
  }
  return parts.toReversed().map(cut).toReversed().flat()
}

/** What is told of a finding. Absent: STORY_LINES, FINDING_LINES. */
interface TextLimits {
  /** Lines of its story. */
  readonly story?: number | undefined
  /** All lines. */
  readonly lines?: number | undefined
  /** An earlier finding that has told its story, or its waits. */
  readonly toldBefore?: { readonly story?: FindingId | undefined; readonly waits?: FindingId | undefined }
}

export const findingText = (
  finding: AnyFinding,
  symbols: Symbols,
  { story: most = STORY_LINES, lines: limit = FINDING_LINES, toldBefore = {} }: TextLimits = {},
): string => {
  const { details, time, moments, objects, waits, program, story = [] } = finding
  const advice = adviceOf(finding)
  const historyLine = ({ action, time: when, stack }: Moment): string => {
    const callers = callersOf(stack, symbols)
    return `    ${action}${when < time ? ` ${beforeText(when, time)}` : ''}${callers && `: ${callers}`}`
  }
  const told = storyLines(story, time, stack => symbols.framesOf(stack), most)
  const end = [
    ...(toldBefore.story === undefined ? [] : [`  story: that of ${toldBefore.story} above`]),
    ...(toldBefore.story === undefined ? told.map((line, i) => `${i === 0 ? '  ' : '   '}${line}`) : []),
    ...(advice === undefined ? [] : [`  advice: ${advice}`]),
  ]
  const shown = limitedTo(limit - end.length, [
    [headText(finding), ...details.map(line => `    ${line}`)],
    moments
      .filter(({ stack }) => stack.length > 0)
      .flatMap(({ action, stack }) => [`  ${action}`, ...stackLines(symbols.framesOf(stack, MAX_FRAMES), '    ')]),
    waits === undefined
      ? []
      : toldBefore.waits === undefined
        ? waitBlock(waits, symbols, program?.pid)
        : [`  who waits for whom: as in ${toldBefore.waits} above`],
    objects.flatMap(({ name, history }) => [`  ${name}`, ...history.map(historyLine)]),
  ])
  return `${[...shown, ...end].map(printable).join('\n')}\n`
}
