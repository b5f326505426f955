/*
 * The output of `userdma check` for tools: findings as JSON objects (`--json`), and as a log of SARIF 2.1.0
 * (`--sarif`), which CI systems show.
 */

import { counted } from '../../base/text.ts'
import type { Finding, Moment, Story, StoryLine } from '../../spec/check/finding.ts'
import { findings } from '../../spec/check/findings.ts'
import { type Omission, omissionText } from '../../spec/check/omissions.ts'
import { times } from '../../spec/check/story.ts'
import type { WaitGraph } from '../../spec/check/thread-waits.ts'
import { inlineArgument } from '../../tools/check/arguments.ts'
import type { Symbols } from '../../tools/check/finding-text.ts'
import { sarifDocument } from './sarif.ts'

const jsonMoment = ({ action, time, stack }: Moment, symbols: Symbols) => ({
  action,
  time,
  frames: symbols.framesOf(stack),
})

/**
 * A finding with what its frames say: a wrong pointer ends a program in an inline function of verbs.h, which only the
 * debug information of the program names.
 */
export const explained = (finding: Finding, symbols: Symbols): Finding => {
  if (findings[finding.id]?.tells !== 'death' || finding.severity === 'error') return finding
  const name = symbols.framesOf(finding.moments[0]?.stack ?? [], 1)[0]?.function ?? ''
  const read = inlineArgument(name)
  if (read === undefined) return finding
  const lacks = read.lacks === undefined ? '' : `, or ${read.lacks}`
  const detail = `${name} is inline, and reads its argument ${read.argument}: the pointer is not that of such an object${lacks}`
  return { ...finding, details: [...finding.details, detail] }
}

/** A line of a story as the message of a location. */
const flowText = (line: StoryLine): string => {
  const { object, text, pid, command, host } = line
  const names = [
    ...(pid === undefined ? [] : [`process ${pid} (${command})`]),
    ...(host === undefined ? [] : [host]),
    object,
  ]
  return `${names.filter(Boolean).join(', ')}: ${text}${times(line)}`
}

/** Who waits for whom, as a JSON object. */
export const waitsJson = ({ threads, ...graph }: WaitGraph, symbols: Symbols) => ({
  ...graph,
  threads: threads.map(({ stack, signaled, polled, ...thread }) => ({
    ...thread,
    stack: symbols.framesOf(stack),
    ...(polled && { polled: polled.map(one => ({ ...one, stack: symbols.framesOf(one.stack) })) }),
    ...(signaled && { signaled: symbols.framesOf(signaled) }),
  })),
})

/** A finding as a JSON object. `count`: how often it was found. */
export const findingJson = (finding: Finding, symbols: Symbols, count?: number) => ({
  ...finding,
  ...(count !== undefined && { count }),
  moments: finding.moments.map(moment => jsonMoment(moment, symbols)),
  ...(finding.waits && { waits: waitsJson(finding.waits, symbols) }),
  objects: finding.objects.map(({ name, history }) => ({
    name,
    history: history.map(moment => jsonMoment(moment, symbols)),
  })),
  ...(finding.story && { story: storyJson(finding.story, symbols) }),
})

const storyJson = (story: Story, symbols: Symbols) =>
  story.map(line => ({ ...line, stack: symbols.framesOf(line.stack) }))

/** The accesses of `--who` as a JSON object, after the findings. */
export const whoJson = (range: string, story: Story, symbols: Symbols) => ({
  who: range,
  accesses: storyJson(story, symbols),
})

/** An omission as a JSON object; omissions are printed after the findings. */
export const omissionJson = (omission: Omission) => ({
  omission: omission.id,
  count: omission.count,
  text: omissionText(omission),
})

/** Suppressed findings as a JSON object; they are printed after the findings. `library`: undefined: by files. */
export const suppressedJson = (library: string | undefined, count: number) => ({
  suppressed: count,
  library,
  text: suppressedText(library, count),
})

/** One clause without its full stop. */
export const suppressedText = (library: string | undefined, count: number): string =>
  library === undefined
    ? `${counted(count, 'finding')} suppressed by --suppressions`
    : `${counted(count, 'finding')} in ${library} suppressed; \`--no-default-suppressions\` shows ${count === 1 ? 'it' : 'them'}`

/** A signal has ended the program. `pid`: undefined if it is unknown. */
export interface EndBySignal {
  readonly signal: string
  readonly pid: number | undefined
  /** The seconds of `--time-limit`, if it has sent the signal. */
  readonly limit?: number
  /** The signal came because all threads waited, and no time limit was left. */
  readonly isDeadlock?: boolean
}

/** One sentence without its full stop. */
export const endText = ({ signal, pid, limit, isDeadlock }: EndBySignal): string => {
  const whose = pid === undefined ? '' : ` (process ${pid})`
  if (isDeadlock)
    return `the program${whose} could not go on: all threads waited, and no time limit was left; ${signal} ended it`
  return limit === undefined
    ? `${signal} ended the program${whose}`
    : `the program${whose} did not end within ${counted(limit, 'second')} (--time-limit), and ${signal} ended it`
}

/** The end by a signal as a JSON object, which is printed last. */
export const endJson = (end: EndBySignal) => ({
  ended: end.signal,
  pid: end.pid,
  ...(end.limit !== undefined && { limit: end.limit }),
  ...(end.isDeadlock && { isDeadlock: true }),
  text: endText(end),
})

/**
 * A SARIF 2.1.0 log of one run of the check: its findings with their counts, its omissions, and the end by a signal.
 * `version`: that of userdma.
 */
export const sarifLog = (
  all: readonly (readonly [Finding, number])[],
  symbols: Symbols,
  version: string,
  omitted: readonly Omission[] = [],
  end?: EndBySignal,
) =>
  sarifDocument(
    'userdma check',
    version,
    [...new Map(all.map(([finding]) => [finding.id, finding])).values()].map(({ id, severity, text, advice }) => {
      // What a capture shows (`explain`) has a text and an advice of its own.
      const row = findings[id] ?? { title: text, why: text, advice, severity }
      return { id, title: row.title, why: row.why, advice: row.advice, level: row.severity }
    }),
    all.map(([{ id, severity, host, text, details, moments, story = [] }, count]) => ({
      id,
      level: severity,
      text: [host === undefined ? text : `on ${host}: ${text}`, ...details].join('\n'),
      count,
      stacks: moments.map(({ action, stack }) => ({ action, frames: symbols.framesOf(stack) })),
      flow: story.map(line => ({
        text: flowText(line),
        frames: symbols.framesOf(line.stack),
        isEssential: line.isDecisive === true,
      })),
    })),
    // An omission is no result: it says that the run was incomplete. So does the end by a signal.
    [
      ...omitted.map(omission => ({ id: omission.id, text: omissionText(omission) })),
      ...(end === undefined ? [] : [{ id: 'ended', text: endText(end) }]),
    ],
  )
