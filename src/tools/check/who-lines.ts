/*
 * The lines that `userdma check --who` tells: of bytes that are watched, or that may turn out to be.
 */
import { counted } from '../../base/text.ts'
import type { Program, Stack, Story, StoryEventKind, StoryLine } from '../../spec/check/finding.ts'
import { type KnownObject, shortName } from './objects.ts'
import type { Bytes, Watched, WhoRanges } from './who-ranges.ts'

/** The most kept lines, the latest. */
export const MAX_TOLD = 2 ** 14
/** Frames of a line. */
const MAX_FRAMES = 16

/** What is told of bytes: `head`, then how many of the range they are, and where. */
interface Told {
  readonly bytes: Bytes
  readonly program: Program | undefined
  readonly object: string
  readonly event: StoryEventKind
  readonly head: string
  readonly stack: Stack
  readonly time: number
  /** Of several: of the first. */
  readonly since: number
  readonly count: number
}

const withoutNumber = (head: string): string => head.replace(/ wr_id \d+/g, '')

/** `isNamed`: with the region. */
const lineOf = (
  { bytes, program, object, event, head, stack, time, since, count }: Told,
  range: Watched,
  isNamed: boolean,
): StoryLine => {
  const first = Math.max(bytes.start, range.start)
  const length = Math.min(bytes.end, range.end) - first
  const place = `at +${first - range.start}${isNamed ? ` of ${shortName(range.region)}` : ''}`
  return {
    time,
    ...(count > 1 && { since }),
    ...(program && { pid: program.pid, command: program.command }),
    object,
    event,
    text: `${head}: ${counted(length, 'byte')} ${place}`,
    stack: stack.slice(0, MAX_FRAMES),
    count,
  }
}

export class WhoLines {
  readonly #told: Told[] = []
  #forgotten = 0

  /** What an object does with bytes. What it repeats is counted. */
  tell(bytes: Bytes, by: KnownObject, event: StoryEventKind, head: string, time: number, stack: Stack = []): void {
    const object = shortName(by)
    const last = this.#told.at(-1)
    const isRepeat =
      last?.object === object &&
      last.event === event &&
      last.bytes.start === bytes.start &&
      last.bytes.end === bytes.end &&
      withoutNumber(last.head) === withoutNumber(head) &&
      last.stack.join() === stack.join()
    if (isRepeat) this.#told.pop()
    const [since, count] = isRepeat ? [last.since, last.count + 1] : [time, 1]
    this.#told.push({ bytes, program: by.program, object, event, head, stack, time, since, count })
    if (this.#told.length <= MAX_TOLD) return
    this.#told.shift()
    this.#forgotten++
  }

  /** The lines about watched bytes, the oldest first. */
  of(ranges: WhoRanges): Story {
    const lines = this.#told.flatMap(one => ranges.in(one.bytes).map(range => lineOf(one, range, ranges.count > 1)))
    if (this.#forgotten === 0) return lines
    const [{ time = 0 } = {}] = lines
    const text = `${counted(this.#forgotten, 'earlier line')} forgotten`
    return [{ time, object: '', event: 'overwritten', text, stack: [], count: this.#forgotten }, ...lines]
  }
}
