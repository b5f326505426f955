/*
 * Doorbell pages: memory to which programs store without a call (docs/decisions/doorbell-pages.md). Before the loop
 * parks, the pages are write-protected in the programs, by their userfaultfds. The first store then waits until this
 * file has removed the protection of its range, and has kicked the loop. Stores while the loop is awake cost nothing,
 * as long as the range is not protected any more.
 *
 * Clocks that programs read without a call (docs/decisions/clock-pages.md) are similar: before the loop parks, their
 * pages are taken from the programs, and the first read waits. While a program has the page, it is brought up to date
 * at each turn of the loop.
 *
 * While a context has pages that cannot be watched, the loop dozes instead.
 */
import type { ClockPage } from '../core/memory/mappable-memory.ts'
import { type Range, RangeList } from '../core/memory/range-list.ts'
import { nowMicroseconds } from '../host/event-loop/clock.ts'
import { pageSize } from '../host/memory/mapping.ts'
import { type Protected, readWaiting, type UserfaultWatch } from '../host/memory/userfault.ts'
import { pageBelow } from '../spec/memory.ts'
import type { OpenContext } from './context/contexts.ts'
import type { StoredDoorbells } from './loop.ts'
import type { StoreListener } from './memory/registered-ranges.ts'

/** A program: `watchStores`: see `RegisteredRanges`. */
export interface DoorbellProgram {
  watchStores(listener: StoreListener): UserfaultWatch | undefined
}

/** Maximum watched ranges of a program. Each is a mapping of the program, of 65,530. */
export const MAX_RANGES = 32_768
/** Ranges that one `arm` protects: those of ten thousand queues would take 10 ms. */
const MAX_PROTECTED = 1024
/**
 * Microseconds after a store in which its range is not protected again: the program's thread must first run. If it was
 * too late, and waits again within SOON of the protection, the time doubles, up to the second number.
 */
const HOLD = { first: 50, longest: 8000 }
const SOON = 1000
/** When a new range was last protected. */
const NEVER = Number.NEGATIVE_INFINITY
/** Microseconds between searches for stores while the loop is awake. */
const FIND_INTERVAL = 5

interface WatchedRange extends Range {
  readonly context: OpenContext
  readonly isClock: boolean
  /** Microseconds, and the times of the last protection and of the end of the last `hold`. */
  hold: number
  protectedAt: number
  heldUntil: number
}

/** The watched ranges of a program. */
interface Watched {
  readonly userfault: UserfaultWatch
  readonly ranges: RangeList<WatchedRange>
  /** Number of the ranges, by context. */
  readonly counts: Map<OpenContext, { doorbells: number; clocks: number }>
  /** Those to protect before the loop parks. */
  readonly open: Set<WatchedRange>
  isClosed: boolean
}

/** No range of the program may overlap it. */
const addRange = ({ ranges, counts, open }: Watched, range: WatchedRange): void => {
  const { context, isClock } = range
  ranges.add(range)
  open.add(range)
  const count = counts.get(context) ?? { doorbells: 0, clocks: 0 }
  counts.set(context, count)
  if (isClock) count.clocks++
  else count.doorbells++
}

/** For a range that was removed. */
const uncount = ({ counts, open }: Watched, range: WatchedRange): void => {
  const { context, isClock } = range
  open.delete(range)
  const count = counts.get(context)!
  if (isClock) count.clocks--
  else count.doorbells--
  if (count.doorbells + count.clocks === 0) counts.delete(context)
}

const hasProtected = ({ ranges, open }: Watched): boolean => ranges.size > open.size

/** `onStored`: a program has stored to a page that was protected. `guard`: wraps functions of the event loop. */
export class DoorbellPages implements StoredDoorbells {
  readonly #onStored: () => void
  readonly #guard: (body: () => void) => () => void
  readonly #watched = new Map<DoorbellProgram, Watched>()
  /** Contexts with pages that are not watched. */
  readonly #unwatched = new Set<OpenContext>()
  /** Contexts with doorbells that are not mapped yet, as far as is known. */
  readonly #awaited = new Set<OpenContext>()
  /** Contexts that were awaited ever. */
  readonly #everAwaited = new WeakSet<OpenContext>()
  /** The clocks that programs can read now. */
  readonly #clocks = new Set<ClockPage>()
  #nextFind = 0
  /** Threads that wait, and were not released yet. */
  #waiting: { watched: Watched; address: number }[] = []

  constructor(onStored: () => void, guard: (body: () => void) => () => void = body => body) {
    this.#onStored = onStored
    this.#guard = guard
  }

  /** Whether the loop may park; else it dozes. */
  get mayPark(): boolean {
    return this.#unwatched.size === 0 && this.#awaited.size === 0
  }

  /** Number of watched ranges. */
  get rangeCount(): number {
    let count = 0
    for (const { ranges } of this.#watched.values()) count += ranges.size
    return count
  }

  /**
   * Watches whole pages of a program from the next time that the loop parks: doorbells of a context, or its clock.
   * Undefined, or why this is impossible.
   */
  watch(
    program: DoorbellProgram,
    start: number,
    end: number,
    context: OpenContext,
    isClock = false,
  ): string | undefined {
    const watched = this.#watchedOf(program)
    if (watched === undefined) return "it has no userfaultfd; a container's seccomp filter may forbid it"
    this.#forget(watched, start, end)
    if (watched.ranges.size >= MAX_RANGES) return `it has ${MAX_RANGES} watched ranges already, the maximum`
    const { userfault } = watched
    if (!(isClock ? userfault.addReads(start, end) : userfault.add(start, end)))
      return 'the kernel cannot watch the mapping (Linux before 5.19, or too many mappings)'
    const range: WatchedRange = { start, end, context, isClock, hold: HOLD.first, protectedAt: NEVER, heldUntil: 0 }
    addRange(watched, range)
    return undefined
  }

  /** Contexts of `await`, without those of `found`. */
  get awaited(): ReadonlySet<OpenContext> {
    return this.#awaited
  }

  /** The context's client will map doorbells: the loop dozes until `found`, or the context ends. */
  await(context: OpenContext): void {
    if (this.#unwatched.has(context)) return
    this.#awaited.add(context)
    if (this.#everAwaited.has(context)) return
    this.#everAwaited.add(context)
    context.whenEnded.add(() => this.#awaited.delete(context))
  }

  /** The context has a clock that programs can read. */
  addClock(context: OpenContext): void {
    const { clock } = context.memory
    if (clock === undefined) return
    this.#clocks.add(clock.page)
    context.whenEnded.add(() => this.#clocks.delete(clock.page))
  }

  /** All doorbells of the context are mapped and watched. */
  found(context: OpenContext): void {
    this.#awaited.delete(context)
  }

  /** Whether a context has pages that cannot be watched. */
  get hasUnwatched(): boolean {
    return this.#unwatched.size > 0
  }

  /** Until the context ends, the loop dozes. */
  addUnwatched(context: OpenContext): void {
    this.#awaited.delete(context)
    if (this.#unwatched.has(context)) return
    this.#unwatched.add(context)
    context.whenEnded.add(() => this.#unwatched.delete(context))
  }

  /** Whether these pages of a program are watched. */
  isWatched(program: DoorbellProgram, start: number, end: number): boolean {
    const range = this.#watched.get(program)?.ranges.at(start)
    return range !== undefined && end <= range.end
  }

  /** How many ranges of a program with doorbells of this context are watched. */
  watchedCount(program: DoorbellProgram, context: OpenContext): number {
    return this.#watched.get(program)?.counts.get(context)?.doorbells ?? 0
  }

  /** Whether the clock of this context is watched in a program. */
  isClockWatched(program: DoorbellProgram, context: OpenContext): boolean {
    return (this.#watched.get(program)?.counts.get(context)?.clocks ?? 0) > 0
  }

  arm(): boolean {
    if (!this.mayPark) return false
    if (this.#watched.size === 0) return true
    const now = nowMicroseconds()
    for (const { open } of this.#watched.values()) for (const { heldUntil } of open) if (now < heldUntil) return false
    let left = MAX_PROTECTED
    for (const watched of this.#watched.values())
      for (const range of watched.open) if (left-- === 0 || !this.#protect(watched, range, now)) return false
    return true
  }

  protectNew(): boolean {
    if (this.hasUnwatched) return false
    const now = nowMicroseconds()
    for (const watched of this.#watched.values())
      for (const range of watched.open)
        if (range.protectedAt !== NEVER || !this.#protect(watched, range, now)) return false
    return true
  }

  find(now: number): void {
    if (this.#clocks.size > 0) for (const { tick } of this.#clocks) tick()
    if (this.#waiting.length > 0) this.#releaseWaiting()
    if (this.#watched.size === 0 || now < this.#nextFind) return
    this.#nextFind = now + FIND_INTERVAL
    const armed: UserfaultWatch[] = []
    for (const watched of this.#watched.values()) if (hasProtected(watched)) armed.push(watched.userfault)
    if (armed.length > 0) readWaiting(armed)
  }

  #watchedOf(program: DoorbellProgram): Watched | undefined {
    const known = this.#watched.get(program)
    if (known !== undefined) return known
    const userfault = program.watchStores({
      unmapped: (start, end) => this.#onUnmapped(program, start, end),
      stored: address => this.#onStore(program, address),
      closed: () => this.#onClosed(program),
    })
    if (userfault === undefined) return undefined
    const watched: Watched = {
      userfault,
      ranges: new RangeList(),
      counts: new Map(),
      open: new Set(),
      isClosed: false,
    }
    this.#watched.set(program, watched)
    return watched
  }

  #onUnmapped(program: DoorbellProgram, start: number, end: number): void {
    const watched = this.#watched.get(program)
    if (watched !== undefined) this.#forget(watched, start, end)
  }

  #onClosed(program: DoorbellProgram): void {
    const watched = this.#watched.get(program)
    if (watched !== undefined) watched.isClosed = true
    this.#watched.delete(program)
  }

  /** Forgets the ranges that overlap [start, end). The kernel wakes threads that wait in unmapped pages. */
  #forget(watched: Watched, start: number, end: number): void {
    for (const range of watched.ranges.removeOverlapping(start, end)) uncount(watched, range)
  }

  /** False if the kernel does not permit it now. */
  #protect(watched: Watched, range: WatchedRange, now: number): boolean {
    const { userfault, ranges, open } = watched
    if (range.isClock) {
      if (!this.#hide(range.context)) return false
      open.delete(range)
      range.protectedAt = now
      return true
    }
    let result: Protected = userfault.protect(range.start, range.end)
    if (result === 'busy') {
      userfault.read()
      this.#releaseWaiting()
      if (watched.isClosed || ranges.at(range.start) !== range) return true
      result = userfault.protect(range.start, range.end)
    }
    if (result === 'busy') return false
    open.delete(range)
    range.protectedAt = now
    if (result === 'gone') this.#forget(watched, range.start, range.end)
    return true
  }

  /** False if it cannot be hidden. */
  #hide({ memory }: OpenContext): boolean {
    const page = memory.clock?.page
    if (page === undefined || !page.isReadable) return true
    if (!memory.hideClock()) return false
    this.#clocks.delete(page)
    return true
  }

  /** Threads that wait for the clock continue. */
  #show({ userfault }: Watched, { start, end, context }: WatchedRange): Protected {
    const page = context.memory.clock?.page
    if (page !== undefined) {
      page.tick()
      page.isReadable = true
      this.#clocks.add(page)
    }
    return userfault.admit(start, end)
  }

  /**
   * A thread waits at `address`. Several threads may, and each has its event. The loop releases it after a poll: most
   * providers have posted before they ring, and if processors are rare, the thread that has rung would displace the
   * one that its message is for.
   */
  #onStore(program: DoorbellProgram, address: number): void {
    const watched = this.#watched.get(program)
    if (watched === undefined) return
    if (watched.ranges.at(address)?.isClock) this.#release(watched, address)
    else this.#waiting.push({ watched, address })
    this.#onStored()
  }

  #releaseWaiting(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const { watched, address } of waiting) if (!watched.isClosed) this.#release(watched, address)
  }

  #release(watched: Watched, address: number): void {
    const { userfault, ranges, open } = watched
    const range = ranges.at(address)
    const page = pageBelow(address, pageSize())
    let result: Protected = 'gone'
    if (range?.isClock) result = this.#show(watched, range)
    else if (range !== undefined) result = userfault.unprotect(range.start, range.end)
    // Memory that was moved (mremap), or the rest of a range whose other pages were unmapped.
    if (result === 'gone') result = userfault.unprotect(page, page + pageSize())
    if (result === 'gone') result = userfault.admit(page, page + pageSize())
    if (result === 'busy') {
      // The event that the kernel wants to have read first is read by the event loop.
      setImmediate(this.#guard(() => void (watched.isClosed || this.#release(watched, address))))
      return
    }
    if (range === undefined || open.has(range)) return
    const now = nowMicroseconds()
    range.hold = now - range.protectedAt < SOON ? Math.min(2 * range.hold, HOLD.longest) : HOLD.first
    range.heldUntil = now + range.hold
    open.add(range)
  }
}
