/*
 * Shadow memory: intervals of the addresses that requests access, each with its last write and the reads and atomics
 * since then. If there are too many intervals, those that were not accessed for the longest time are forgotten.
 */
import type { NoteOmission } from '../../../spec/check/omissions.ts'
import type { Clock } from './clock.ts'

/**
 * Accesses to memory of the poster: SOURCE (data is sent), RESULT (the request or a received message writes). To memory
 * of the peer: READ, WRITE, ATOMIC.
 */
export const AccessKind = { SOURCE: 0, RESULT: 1, READ: 2, WRITE: 3, ATOMIC: 4 } as const

/** A memory region. Accesses to a deregistered region do not race with later accesses. */
export interface Region {
  isDeregistered: boolean
}

/** A range of memory that a request accesses. */
export interface Range {
  /** The number of the address space. */
  readonly space: number
  /** Addresses in that space: the first byte, and the one after the last. */
  readonly start: number
  readonly end: number
  /** AccessKind. */
  readonly kind: number
  readonly region: Region
}

export interface Access<R> {
  readonly range: Range
  readonly request: R
}

export const isWrite = ({ kind }: Range): boolean => kind !== AccessKind.SOURCE && kind !== AccessKind.READ

/** Whether a range is an aligned word of 1, 2, 4 or 8 bytes. Devices mostly access such a word as a whole. */
export const isWord = ({ start, end }: Range): boolean => {
  const length = end - start
  return length <= 8 && (length & (length - 1)) === 0 && start % length === 0
}

export interface Interval<R> {
  start: number
  end: number
  /** The last write; undefined: none is known. */
  write: Access<R> | undefined
  /** Accesses since `write`. Intervals must not share these arrays: `withAccess` changes them. */
  reads: Access<R>[]
  atomics: Access<R>[]
  /** The clock of the requests that have written a word, which programs may use as a flag or lock. */
  syncClock: Clock | undefined
  /** The number (`#accesses`) of the last access. */
  lastAccess: number
}

const newInterval = <R>(start: number, end: number): Interval<R> => ({
  start,
  end,
  write: undefined,
  reads: [],
  atomics: [],
  syncClock: undefined,
  lastAccess: 0,
})

/** Maximum intervals of all address spaces. */
export const MAX_INTERVALS = 32768
/** Maximum stored reads of an interval, and maximum atomics. Of each queue and AccessKind only the last is stored. */
const MAX_READERS = 8

/** A later access of the same kind and queue replaces an earlier one. */
const isReplaced = <R extends { readonly queue: object }>(earlier: Access<R>, later: Access<R>): boolean =>
  earlier.range.kind === later.range.kind && earlier.request.queue === later.request.queue

/** The accesses with a new one. May change the array. */
const withAccess = <R extends { readonly queue: object }>(
  accesses: Access<R>[],
  access: Access<R>,
  omit: NoteOmission,
): Access<R>[] => {
  if (accesses.length === 0) return [access]
  if (accesses.length === 1 && isReplaced(accesses[0]!, access)) {
    accesses[0] = access
    return accesses
  }
  const others = accesses.filter(earlier => !isReplaced(earlier, access))
  if (others.length === MAX_READERS) {
    others.shift()
    omit('race-readers', 1)
  }
  others.push(access)
  return others
}

export class Shadow<R extends { readonly queue: object }> {
  /** Number of intervals. */
  #size = 0
  /** Number of accesses so far. */
  #accesses = 0
  /** The intervals of each address space, ascending and disjoint. */
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
   * Calls `compare` with each earlier access to bytes of the range, then stores the access. Returns the interval of the
   * range; undefined if the range is empty or has several intervals.
   */
  access(
    access: Access<R>,
    clock: Clock | undefined,
    compare: (earlier: Access<R>, later: Access<R>, clock: Clock | undefined) => void,
  ): Interval<R> | undefined {
    const { space, start, end, kind } = access.range
    if (end <= start) return undefined
    let intervals = this.#spaces.get(space)
    if (intervals === undefined) {
      intervals = []
      this.#spaces.set(space, intervals)
    }
    // The range has the intervals `firstIndex` to `endIndex` − 1.
    const firstIndex = this.#splitAtEnds(intervals, start, end)
    let endIndex = firstIndex
    for (; endIndex < intervals.length && intervals[endIndex]!.start < end; endIndex++) {
      const { write, reads, atomics } = intervals[endIndex]!
      if (write !== undefined) compare(write, access, clock)
      for (const read of reads) compare(read, access, clock)
      for (const atomic of atomics) compare(atomic, access, clock)
    }
    const count = endIndex - firstIndex
    const accessNumber = ++this.#accesses
    if (isWrite(access.range) && kind !== AccessKind.ATOMIC) {
      const written = count === 1 ? intervals[firstIndex]! : newInterval<R>(start, end)
      if (count !== 1) intervals.splice(firstIndex, count, written)
      this.#size += 1 - count
      written.start = start
      written.end = end
      written.write = access
      written.lastAccess = accessNumber
      if (written.reads.length > 0) written.reads = []
      if (written.atomics.length > 0) written.atomics = []
      this.#dropOldest()
      return written
    }
    const only = count === 1 ? intervals[firstIndex]! : undefined
    if (only?.start === start && only.end === end) {
      this.#store(only, access, accessNumber)
      return only
    }
    const found = this.#fillGaps(intervals, firstIndex, endIndex, start, end)
    for (const interval of found) this.#store(interval, access, accessNumber)
    this.#dropOldest()
    return found.length === 1 ? found[0] : undefined
  }

  /** Stores a read or atomic of an interval. */
  #store(interval: Interval<R>, access: Access<R>, accessNumber: number): void {
    interval.lastAccess = accessNumber
    if (access.range.kind === AccessKind.ATOMIC) interval.atomics = withAccess(interval.atomics, access, this.#omit)
    else interval.reads = withAccess(interval.reads, access, this.#omit)
  }

  /** Splits intervals at both ends of a range; returns the index of the first interval in the range. */
  #splitAtEnds(intervals: Interval<R>[], start: number, end: number): number {
    let low = 0
    let high = intervals.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (intervals[middle]!.end <= start) low = middle + 1
      else high = middle
    }
    const first = intervals[low]
    if (first !== undefined && first.start < start) {
      this.#split(intervals, low, start)
      low++
    }
    for (let i = low; i < intervals.length && intervals[i]!.start < end; i++)
      if (intervals[i]!.end > end) this.#split(intervals, i, end)
    return low
  }

  #split(intervals: Interval<R>[], index: number, address: number): void {
    const lower = intervals[index]!
    const { reads, atomics } = lower
    intervals.splice(index + 1, 0, {
      ...lower,
      start: address,
      reads: reads.slice(),
      atomics: atomics.slice(),
      syncClock: undefined,
    })
    lower.end = address
    lower.syncClock = undefined
    this.#size++
  }

  /** Adds intervals in the gaps of a range; returns all intervals of the range. Indexes as in `access`. */
  #fillGaps(
    intervals: Interval<R>[],
    firstIndex: number,
    endIndex: number,
    start: number,
    end: number,
  ): readonly Interval<R>[] {
    const found: Interval<R>[] = []
    const fill = (gapStart: number, gapEnd: number): void => {
      if (gapStart < gapEnd) found.push(newInterval(gapStart, gapEnd))
    }
    let at = start
    for (let i = firstIndex; i < endIndex; i++) {
      const interval = intervals[i]!
      fill(at, interval.start)
      found.push(interval)
      at = interval.end
    }
    fill(at, end)
    const count = endIndex - firstIndex
    const added = found.length - count
    if (added > 0) intervals.splice(firstIndex, count, ...found)
    this.#size += added
    return found
  }

  /** If there are too many intervals, forgets the half with the oldest accesses. */
  #dropOldest(): void {
    if (this.#size <= this.#max) return
    const times = [...this.#spaces.values()]
      .flatMap(intervals => intervals.map(({ lastAccess }) => lastAccess))
      .sort((a, b) => a - b)
    const limit = times[times.length >>> 1]!
    const before = this.#size
    this.#size = 0
    for (const [space, intervals] of this.#spaces) {
      const kept = intervals.filter(({ lastAccess }) => lastAccess > limit)
      if (kept.length === 0) this.#spaces.delete(space)
      else this.#spaces.set(space, kept)
      this.#size += kept.length
    }
    this.#omit('race-memory', before - this.#size)
  }
}
