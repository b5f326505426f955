/*
 * The shadow of memory that requests access: intervals with their last write, and the reads and atomics since then. Its
 * size is bounded: the intervals that were not accessed for the longest time are forgotten.
 */
import type { NoteOmission } from '../../spec/check/omissions.ts'
import type { Clock } from './clock.ts'

/** Kinds of accesses. SOURCE and RESULT: to the poster's own memory; the others: to the peer's. */
export const AccessKind = { SOURCE: 0, RESULT: 1, READ: 2, WRITE: 3, ATOMIC: 4 } as const

/** A registration; accesses through one that has ended cannot race with later ones. */
export interface Region {
  isGone: boolean
}

/** A range that a request accesses. `space`: the address space. */
export interface Range {
  readonly space: number
  readonly start: number
  readonly end: number
  /** AccessKind. */
  readonly kind: number
  readonly region: Region
}

export interface Access<R> extends Range {
  readonly request: R
}

export const isWrite = ({ kind }: Range): boolean => kind !== AccessKind.SOURCE && kind !== AccessKind.READ

/**
 * Whether a range is an aligned word: in practice devices access it as a whole, and programs use it as a flag or lock.
 */
export const isWord = ({ start, end }: Range): boolean => {
  const length = end - start
  return length <= 8 && (length & (length - 1)) === 0 && start % length === 0
}

export interface Interval<R> {
  start: number
  end: number
  write: Access<R> | undefined
  reads: readonly Access<R>[]
  atomics: readonly Access<R>[]
  /** Of a word that orders the requests that access it: the clock of those that have written it. */
  sync: Clock | undefined
  touched: number
}

/** Maximum intervals of all spaces. */
export const MAX_INTERVALS = 32768
/** Maximum reads, and atomics, of an interval, by different queues. */
const MAX_READERS = 8

const NONE: readonly never[] = []

/** The accesses with one more, which replaces an earlier one of its kind by the same queue. */
const withAccess = <R extends { readonly queue: object }>(
  all: readonly Access<R>[],
  one: Access<R>,
  omit: NoteOmission,
): Access<R>[] => {
  const [only] = all
  if (only === undefined || (all.length === 1 && only.kind === one.kind && only.request.queue === one.request.queue))
    return [one]
  const others = all.filter(({ kind, request: { queue } }) => kind !== one.kind || queue !== one.request.queue)
  if (others.length === MAX_READERS) {
    others.shift()
    omit('race-readers', 1)
  }
  others.push(one)
  return others
}

export class Shadow<R extends { readonly queue: object }> {
  #size = 0
  #time = 0
  /** Of each space, ascending and disjoint. */
  readonly #spaces = new Map<number, Interval<R>[]>()
  readonly #max: number
  readonly #omit: NoteOmission

  constructor(omit: NoteOmission, max = MAX_INTERVALS) {
    this.#omit = omit
    this.#max = max
  }

  get size(): number {
    return this.#size
  }

  /**
   * Calls `compare` with each earlier access that the range overlaps, then notes the access. Returns the resulting
   * intervals.
   */
  access(one: Access<R>, compare: (earlier: Access<R>, later: Access<R>) => void): readonly Interval<R>[] {
    const { space, start, end, kind } = one
    if (end <= start) return NONE
    let all = this.#spaces.get(space)
    if (all === undefined) {
      all = []
      this.#spaces.set(space, all)
    }
    const from = this.#cut(all, start, end)
    let to = from
    for (; to < all.length && all[to]!.start < end; to++) {
      const { write, reads, atomics } = all[to]!
      if (write !== undefined) compare(write, one)
      for (const read of reads) compare(read, one)
      for (const atomic of atomics) compare(atomic, one)
    }
    const touched = ++this.#time
    if (isWrite(one) && kind !== AccessKind.ATOMIC) {
      const sync = to - from === 1 ? all[from]!.sync : undefined
      const written: Interval<R> = { start, end, write: one, reads: NONE, atomics: NONE, sync, touched }
      if (to - from === 1) all[from] = written
      else all.splice(from, to - from, written)
      this.#size += 1 - (to - from)
      this.#bound()
      return [written]
    }
    const found = this.#filled(all, from, to, start, end)
    for (const interval of found) {
      interval.touched = touched
      if (kind === AccessKind.ATOMIC) interval.atomics = withAccess(interval.atomics, one, this.#omit)
      else interval.reads = withAccess(interval.reads, one, this.#omit)
    }
    this.#bound()
    return found
  }

  /** Cuts intervals at both ends of a range; returns the index of the first one in it. */
  #cut(all: Interval<R>[], start: number, end: number): number {
    let low = 0
    let high = all.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (all[middle]!.end <= start) low = middle + 1
      else high = middle
    }
    const first = all[low]
    if (first !== undefined && first.start < start) {
      this.#split(all, low, start)
      low++
    }
    for (let i = low; i < all.length && all[i]!.start < end; i++) if (all[i]!.end > end) this.#split(all, i, end)
    return low
  }

  #split(all: Interval<R>[], at: number, where: number): void {
    const left = all[at]!
    all.splice(at + 1, 0, { ...left, start: where, sync: undefined })
    left.end = where
    left.sync = undefined
    this.#size++
  }

  /** The intervals from `from` to `to`, with new ones in the gaps. */
  #filled(all: Interval<R>[], from: number, to: number, start: number, end: number): readonly Interval<R>[] {
    const only = to - from === 1 ? all[from]! : undefined
    if (only?.start === start && only.end === end) return [only]
    const found: Interval<R>[] = []
    const fill = (begin: number, until: number): void => {
      if (begin < until)
        found.push({
          start: begin,
          end: until,
          write: undefined,
          reads: NONE,
          atomics: NONE,
          sync: undefined,
          touched: 0,
        })
    }
    let at = start
    for (let i = from; i < to; i++) {
      const interval = all[i]!
      fill(at, interval.start)
      found.push(interval)
      at = interval.end
    }
    fill(at, end)
    const added = found.length - (to - from)
    if (added > 0) all.splice(from, to - from, ...found)
    this.#size += added
    return found
  }

  /** Forgets the older half if there are too many. */
  #bound(): void {
    if (this.#size <= this.#max) return
    const times = [...this.#spaces.values()].flatMap(all => all.map(({ touched }) => touched)).sort((a, b) => a - b)
    const limit = times[times.length >>> 1]!
    const before = this.#size
    this.#size = 0
    for (const [space, all] of this.#spaces) {
      const kept = all.filter(({ touched }) => touched > limit)
      if (kept.length === 0) this.#spaces.delete(space)
      else this.#spaces.set(space, kept)
      this.#size += kept.length
    }
    this.#omit('race-memory', before - this.#size)
  }
}
