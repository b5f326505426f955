/*
 * Collects findings. Occurrences of one mistake with the same stack and severity are one finding with a count. The
 * number of findings is bounded.
 */
import type { Finding, FoundObject, Moment, Program, Stack, Story } from '../../spec/check/finding.ts'
import { type FindingId, findings } from '../../spec/check/findings.ts'
import type { Need } from '../../spec/check/needs.ts'
import type { NoteOmission, OmissionId } from '../../spec/check/omissions.ts'
import type { Severity } from '../../spec/check/severity.ts'
import { hasStory } from '../../spec/check/story.ts'
import type { WaitGraph } from '../../spec/check/thread-waits.ts'
import { Consequences } from './consequences.ts'
import { type KnownObject, moment } from './objects.ts'

/** Maximum distinct findings since the start or `beginFresh`, and of all. Further ones are left out and counted. */
const MAX_FINDINGS = 1000
const MAX_ALL_FINDINGS = 10_000
/** Maximum objects that a finding names after the first. */
export const MAX_NAMED = 4

/** When and where a program made a mistake. */
export interface Occurrence {
  /** Microseconds of `CheckerSources.now`. */
  readonly time: number
  /** The device's name. */
  readonly device: string
  /** The number of the context. */
  readonly context: number
  readonly program: Program | undefined
  readonly stack: Stack
  /** A participle, such as `posted`. Absent: `called`. */
  readonly action?: string
  /** Present for a post. */
  readonly isPost?: true
  /** The story of this host until then; absent: it is made of what is known. */
  readonly story?: Story
}

/** The action of an occurrence that is a post. */
export const POSTED = { action: 'posted', isPost: true } as const

/** `context`: the number of the context of the finding's first occurrence. */
export type ReportFinding = (finding: Finding, context: number) => void

/** The story of a finding about these objects; empty: nothing is known. */
type StoryOf = (id: FindingId, occurrence: Occurrence, objects: readonly KnownObject[]) => Story

/** Fields of a `Finding` that depend on the mistake. */
export interface FindingContent {
  readonly text: string
  /** Absent: the severity in spec/check/findings.ts. */
  readonly severity?: Severity
  /** As in `Finding`. */
  readonly isWait?: boolean
  /** As in `Finding`. */
  readonly waits?: WaitGraph | undefined
  /** As in `Finding`. */
  readonly left?: string
  /** As in `Finding`. */
  readonly wasKilled?: true
  /** As in `Finding`. */
  readonly follows?: number | undefined
  readonly details?: readonly string[]
  /** As in `Finding`. */
  readonly advice?: string | undefined
  /** In its place for programs of the TypeScript library; absent: the advice of the kind remains. */
  readonly libraryAdvice?: string | undefined
  /** Moments after the occurrence itself. */
  readonly moments?: readonly Moment[]
  /** `undefined` is skipped. */
  readonly objects?: readonly (KnownObject | undefined)[]
}

/** Programs that post directly: the oldest are forgotten. */
const MAX_DIRECT = 256

/** The text with `#` for its numbers: they differ between occurrences of one mistake. */
const withoutNumbers = (text: string): string => text.replace(/0x[0-9a-f]+|\d+/g, '#')

/** Of an error: a failure of one of its queue pairs that the program had polled before, and went on. */
const wentOnLines = (severity: Severity, time: number, objects: readonly KnownObject[]): string[] => {
  const known = objects.find(({ failurePolled }) => failurePolled !== undefined && failurePolled.time < time)
  return severity === 'error' && known?.failurePolled !== undefined
    ? [`the program had polled the failure of ${known.failurePolled.text} of ${known.name} before, and went on`]
    : []
}

export class FindingReporter {
  /** How often something was left out, by reason. */
  readonly omitted = new Map<OmissionId, number>()
  /** Whether an error was reported. */
  hasErrors = false
  /** Occurrences of each finding, by its number − 1. */
  readonly counts: number[] = []
  /** Numbers of findings by the key of `report`. */
  readonly #numbers = new Map<string, number>()
  readonly consequences = new Consequences()
  readonly #onFinding: ReportFinding
  readonly #lacks: readonly Need[]
  readonly #storyOf: StoryOf
  /** Number of findings at the last `beginFresh`. */
  #fresh = 0
  #isByDevice = false
  /** By pid: the functions by which programs have taken memory of queues. */
  readonly #direct = new Map<number, string>()

  /** `onFinding` is called once for each distinct finding. `lacks`: as in `ProducerFacts`. */
  constructor(onFinding: ReportFinding, lacks: readonly Need[] = [], storyOf: StoryOf = () => []) {
    this.#onFinding = onFinding
    this.#lacks = lacks
    this.#storyOf = storyOf
  }

  /** Something was left out, `count` times. */
  readonly omit: NoteOmission = (id, count) => {
    if (count > 0) this.omitted.set(id, (this.omitted.get(id) ?? 0) + count)
  }

  /**
   * From now on mistakes are new findings, though they were found before, and those of one device are not those of
   * another: tests that run beside each other have devices of their own. Returns the number of findings so far.
   */
  beginFresh(): number {
    this.#isByDevice = true
    this.#numbers.clear()
    this.#fresh = this.counts.length
    return this.#fresh
  }

  postsDirectly(pid: number, name: string): void {
    const [oldest] = this.#direct.keys()
    if (oldest !== undefined && this.#direct.size === MAX_DIRECT) this.#direct.delete(oldest)
    this.#direct.set(pid, name)
  }

  /** The function by which a program has taken memory of queues; undefined: it has none. */
  directOf(pid: number | undefined): string | undefined {
    return this.#direct.get(pid ?? -1)
  }

  /** A line about a post that no verb made; empty: it has a stack, or its program posts by verbs only. */
  #directLines({ program, stack, isPost }: Occurrence): string[] {
    const name = stack.length === 0 && isPost ? this.directOf(program?.pid) : undefined
    if (name === undefined) return []
    return [
      `the program posts to the queue itself (${name}): the post is not seen, nor its wr_id: the block is its place in the queue`,
    ]
  }

  /** Counts one more occurrence of the finding with this number. */
  repeat(number: number): void {
    this.counts[number - 1]!++
  }

  /** Returns the number of the finding, from 1; undefined if it was left out. */
  report(id: FindingId, occurrence: Occurrence, content: FindingContent): number | undefined {
    const { time, device, context, program, stack, action = 'called' } = occurrence
    if (this.#lacks.some(need => findings[id].needs.includes(need))) return undefined
    const { text, details = [], left, wasKilled, isWait, waits } = content
    const advice = program ? content.advice : content.libraryAdvice
    const objects = [...new Set(content.objects ?? [])].filter(object => object !== undefined)
    const pids = [program, ...objects.map(object => object.program)].map(one => one?.pid)
    const follows =
      content.follows ?? (findings[id].followsDeath === true ? this.consequences.deathOf(pids) : undefined)
    const severity = follows === undefined ? (content.severity ?? findings[id].severity) : 'note'
    // Without the pid: a mistake in a thousand processes of one program is one finding. With the severity: otherwise an
    // error after a warning would only count as a repeated warning.
    const of = this.#isByDevice ? device : ''
    const key = [id, severity, wasKilled, program?.command, of, withoutNumbers(text), ...stack].join('\n')
    const known = this.#numbers.get(key)
    if (known !== undefined) {
      this.repeat(known)
      return known
    }
    if (this.counts.length === MAX_ALL_FINDINGS || this.counts.length - this.#fresh === MAX_FINDINGS) {
      this.omit('findings', 1)
      return undefined
    }
    if (severity === 'error') this.hasErrors = true
    const number = this.counts.push(1)
    this.#numbers.set(key, number)
    // The other end of a connection ends, too.
    if (severity === 'error' || follows !== undefined)
      for (const pid of pids) this.consequences.givesUp(pid, follows ?? number)
    const story = hasStory(id) ? this.#storyOf(id, { ...occurrence, stack }, objects) : []
    const finding: Finding = {
      number,
      id,
      severity,
      text,
      details: [...details, ...wentOnLines(severity, time, objects), ...this.#directLines(occurrence)],
      ...(left && { left }),
      ...(wasKilled && { wasKilled }),
      ...(isWait && { isWait }),
      ...(waits && { waits }),
      ...(follows !== undefined && { follows }),
      ...(program && { program }),
      ...(advice !== undefined && { advice }),
      device,
      time,
      moments: [moment(action, time, stack), ...(content.moments ?? [])],
      objects: objects
        .slice(0, MAX_NAMED + 1)
        .map((object): FoundObject => ({ id: object.id, name: object.nameWithProgram, history: object.history })),
      ...(story.length > 0 && { story }),
    }
    this.#onFinding(finding, context)
    return number
  }
}
