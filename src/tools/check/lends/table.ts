/*
 * The bytes that programs have lent (`lent` of spec/check/program-events.ts). A byte is lent while any lend of it lasts
 * that allows the access: by its right, its peer and its time. The number of lends is bounded: a program with too many
 * is given up.
 */
import type { Moment, Stack } from '../../../spec/check/finding.ts'
import type { NoteOmission } from '../../../spec/check/omissions.ts'
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import { LendRight } from '../../../spec/lends.ts'
import { moment } from '../objects.ts'
import { type Interval, Intervals } from './intervals.ts'

/** Maximum lends that last, of all processes. */
export const MAX_LENDS = 2 ** 17
/** Maximum lends that are over and remembered, the latest. */
const MAX_ENDED = 2 ** 14
/** Maximum unchecked ranges, and names, of a process. */
const MAX_RANGES = 4096

/** Maximum lends of one byte that a finding looks at. */
const MAX_LOOKED = 256

/** The bits of LendRight. */
const RIGHTS = [LendRight.READ, LendRight.WRITE, LendRight.ATOMIC]

export interface Lend {
  readonly start: number
  readonly end: number
  /** LendRight. */
  readonly rights: number
  /** The queue pair by whose peer the bytes may be accessed; 0: by any. */
  readonly qpn: number
  readonly label: string
  readonly stack: Stack
  /** Microseconds. */
  readonly time: number
  /** Microseconds; infinite: until it is taken back. */
  readonly until: number
  /** Of the bytes when they were lent; undefined: unknown, or they have changed rightly. */
  hash: number | undefined
  /** Accesses so far. */
  accesses: number
  /** How it has ended; undefined: it has not. */
  ended: Moment | undefined
}

interface Place {
  readonly tree: Intervals<Lend>
  readonly interval: Interval<Lend>
}

/** The lends of one right. */
interface Trees {
  readonly toAny: Intervals<Lend>
  readonly toPeers: Map<number, Intervals<Lend>>
}

/** The lends of a process, by its addresses. */
export class ProcessLends {
  readonly pid: number | undefined
  /** Too much was declared, or declarations were lost: nothing is known. */
  isGivenUp = false
  /** By `Lending.lend`. */
  readonly #lasting = new Map<number, { readonly lend: Lend; readonly places: readonly Place[] }>()
  readonly #byRight = new Map<number, Trees>(
    RIGHTS.map(right => [right, { toAny: new Intervals(), toPeers: new Map() }]),
  )
  /** Numbers of lends with a time, by their time. */
  readonly #deadlines = new Intervals<number>()
  #nextDeadline = Number.POSITIVE_INFINITY
  readonly #unchecked = new Intervals<undefined>()
  /** The lends with a hash, and their ranges. */
  readonly #hashed = new Intervals<Lend>()
  readonly #hashedRanges = new Map<Lend, Interval<Lend>>()
  readonly #names: { readonly start: number; readonly end: number; readonly name: string }[] = []
  readonly #onEnd: (lend: Lend) => void

  constructor(pid: number | undefined, onEnd: (lend: Lend) => void) {
    this.pid = pid
    this.#onEnd = onEnd
  }

  get size(): number {
    return this.#lasting.size
  }

  lend(event: ProgramEvent<'lent'>): Lend {
    const { lend: id, start, end, rights, qpn, label, stack, time, until = Number.POSITIVE_INFINITY, hash } = event
    this.#end(id, moment('lent again', time, stack))
    const lend: Lend = { start, end, rights, qpn, label, stack, time, until, hash, accesses: 0, ended: undefined }
    if (hash !== undefined) this.#hashedRanges.set(lend, this.#hashed.add(start, end, lend))
    const places: Place[] = []
    for (const right of RIGHTS) {
      if ((rights & right) === 0) continue
      const tree = this.#treeOf(right, qpn)
      places.push({ tree, interval: tree.add(start, end, lend) })
    }
    this.#lasting.set(id, { lend, places })
    if (until !== Number.POSITIVE_INFINITY) {
      this.#deadlines.add(until, until, id)
      this.#nextDeadline = Math.min(this.#nextDeadline, until)
    }
    return lend
  }

  #treeOf(right: number, qpn: number): Intervals<Lend> {
    const { toAny, toPeers } = this.#byRight.get(right)!
    if (qpn === 0) return toAny
    let tree = toPeers.get(qpn)
    if (tree === undefined) {
      tree = new Intervals()
      toPeers.set(qpn, tree)
    }
    return tree
  }

  /** Returns the lend; undefined: it is unknown, or was over. */
  takeBack(id: number, time: number, stack: Stack): Lend | undefined {
    return this.#end(id, moment('taken back', time, stack))
  }

  #end(id: number, ended: Moment): Lend | undefined {
    const known = this.#lasting.get(id)
    if (known === undefined) return undefined
    this.#lasting.delete(id)
    const { lend, places } = known
    for (const { tree, interval } of places) tree.remove(interval)
    this.#forgetHash(lend)
    if (lend.qpn !== 0)
      for (const { toPeers } of this.#byRight.values()) if (toPeers.get(lend.qpn)?.size === 0) toPeers.delete(lend.qpn)
    lend.ended = ended
    this.#onEnd(lend)
    return lend
  }

  /** Ends what is over at `time`. */
  settle(time: number): void {
    if (time < this.#nextDeadline) return
    let first = this.#deadlines.first()
    while (first !== undefined && first.start <= time) {
      this.#deadlines.remove(first)
      const known = this.#lasting.get(first.value)
      if (known?.lend.until === first.start) this.#end(first.value, moment('its time was over', first.start, []))
      first = this.#deadlines.first()
    }
    this.#nextDeadline = first?.start ?? Number.POSITIVE_INFINITY
  }

  /** Forgets all lends. */
  clear(): void {
    for (const id of [...this.#lasting.keys()]) this.#end(id, moment('the process has ended', 0, []))
  }

  uncheck(start: number, end: number, omit: NoteOmission): void {
    if (this.#unchecked.size === MAX_RANGES) omit('lends', 1)
    else this.#unchecked.add(start, end, undefined)
  }

  name(start: number, end: number, name: string): void {
    if (this.#names.length === MAX_RANGES) this.#names.shift()
    this.#names.push({ start, end, name })
  }

  /** The latest name of a byte; undefined: it has none. */
  nameOf(address: number): string | undefined {
    return this.#names.findLast(({ start, end }) => start <= address && address < end)?.name
  }

  /**
   * The first byte of those from `start` to before `end` that the peer of queue pair `qpn` may not access; `end`: none.
   * `onLend` gets the lends that allow it.
   */
  firstNotLent(right: number, qpn: number, start: number, end: number, onLend: (lend: Lend) => void): number {
    const { toAny, toPeers } = this.#byRight.get(right)!
    const toPeer = toPeers.size === 0 ? undefined : toPeers.get(qpn)
    let at = start
    while (at < end) {
      let best = toAny.farthest(at)
      const other = toPeer?.farthest(at)
      if (other !== undefined && (best === undefined || other.end > best.end)) best = other
      if (best !== undefined && best.end > at) onLend(best.value)
      else {
        const unchecked = this.#unchecked.size === 0 ? undefined : this.#unchecked.farthest(at)
        if (unchecked === undefined || unchecked.end <= at) return at
        at = unchecked.end
        continue
      }
      at = best.end
    }
    return end
  }

  /** All lends that last, in the order in which they were made. */
  all(): Lend[] {
    return [...this.#lasting.values()].map(({ lend }) => lend)
  }

  /**
   * The lends that last, and have a byte of those from `start` to before `end`, the oldest first; of very many, some.
   */
  lasting(start: number, end: number): Lend[] {
    const found = new Set<Lend>()
    for (const { toAny, toPeers } of this.#byRight.values())
      for (const tree of [toAny, ...toPeers.values()])
        for (const lend of tree.overlapping(start, end, MAX_LOOKED)) if (found.size < MAX_LOOKED) found.add(lend)
    return [...found].sort((a, b) => a.time - b.time)
  }

  /** Whether a lend has a byte of those from `start` to before `end`. */
  hasLasting(start: number, end: number): boolean {
    for (const { toAny, toPeers } of this.#byRight.values())
      for (const tree of [toAny, ...toPeers.values()]) if (tree.overlapping(start, end, 1).length > 0) return true
    return false
  }

  /** Peers may have changed these bytes. */
  written(start: number, end: number): void {
    if (this.#hashed.size === 0) return
    for (const lend of this.#hashed.overlapping(start, end)) {
      lend.hash = undefined
      this.#forgetHash(lend)
    }
  }

  #forgetHash(lend: Lend): void {
    const range = this.#hashedRanges.get(lend)
    if (range === undefined) return
    this.#hashedRanges.delete(lend)
    this.#hashed.remove(range)
  }
}

/** The lends of all processes. */
export class LendTable {
  readonly #processes = new Map<number | undefined, ProcessLends>()
  readonly #omit: NoteOmission
  #lasting = 0
  /** A ring. */
  readonly #ended: { readonly lender: ProcessLends; readonly lend: Lend }[] = []
  #nextEnded = 0
  /** Some lends that are over are not remembered. */
  hasForgotten = false

  constructor(omit: NoteOmission) {
    this.#omit = omit
  }

  find(pid: number | undefined): ProcessLends | undefined {
    return this.#processes.get(pid)
  }

  /** The processes that have declared something. */
  lenders(): readonly ProcessLends[] {
    return [...this.#processes.values()]
  }

  of(pid: number | undefined): ProcessLends {
    let lender = this.#processes.get(pid)
    if (lender === undefined) {
      const created = new ProcessLends(pid, lend => this.#noteEnd(created, lend))
      lender = created
      this.#processes.set(pid, lender)
    }
    return lender
  }

  /** Undefined: the process is given up. */
  lend(event: ProgramEvent<'lent'>): Lend | undefined {
    const lender = this.of(event.pid)
    if (lender.isGivenUp) return undefined
    if (this.#lasting === MAX_LENDS) {
      this.giveUp(lender, lender.size + 1)
      return undefined
    }
    const lend = lender.lend(event)
    this.#lasting++
    return lend
  }

  /** Nothing is known of the lends of a process any more. */
  giveUp(lender: ProcessLends, lost: number): void {
    lender.isGivenUp = true
    lender.clear()
    this.#omit('lends', lost)
  }

  /** The process has ended. */
  forget(pid: number | undefined): void {
    this.#processes.get(pid)?.clear()
    this.#processes.delete(pid)
  }

  #noteEnd(lender: ProcessLends, lend: Lend): void {
    this.#lasting--
    if (this.#ended.length === MAX_ENDED) this.hasForgotten = true
    this.#ended[this.#nextEnded] = { lender, lend }
    this.#nextEnded = (this.#nextEnded + 1) % MAX_ENDED
  }

  /** The remembered lends of a process that are over, and had this byte, the latest first. */
  *ended(of: ProcessLends, address: number): Generator<Lend> {
    for (let i = 1; i <= this.#ended.length; i++) {
      const { lender, lend } = this.#ended[(this.#nextEnded - i + this.#ended.length) % this.#ended.length]!
      if (lender === of && lend.start <= address && address < lend.end) yield lend
    }
  }
}
