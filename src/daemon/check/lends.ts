/*
 * Reads the rings of lends (spec/lends.ts) that programs have passed with their wait tables. The rings are mapped, so
 * that each access can look whether there is a new entry. The contents are not trusted.
 */
import { createRingPool, type Mapping } from '../../host/memory/mapping.ts'
import type { Stack } from '../../spec/check/finding.ts'
import type { ProgramEvent } from '../../spec/check/program-events.ts'
import { LendKind, LendRight, LendRing } from '../../spec/lends.ts'
import { offsetsOf } from '../../spec/message-layout.ts'
import { printable } from '../../spec/printable.ts'
import { Messages } from '../../spec/session.ts'
import type { Containment } from '../containment.ts'
import { monotonicStart, READ_LOGS_INTERVAL } from './event-log.ts'
import type { WaitTableFile } from './waits/tables.ts'

/** Microseconds after which an entry that was claimed but not written is given up: its thread has died. */
const MAX_CLAIMED = 1_000_000

const ALL_RIGHTS = LendRight.READ | LendRight.WRITE | LendRight.ATOMIC
const HEAD = offsetsOf(Messages.lendRing)
const ENTRY = offsetsOf(Messages.lend)
const ENTRY_BYTES = Messages.lend.size
/** Addresses of programs are below. */
const MAX_ADDRESS = 2 ** 48

interface Ring {
  readonly pid: number
  readonly session: object
  readonly memory: Mapping
  /** Number of the next entry to read, modulo 2^32. */
  tail: number
  /** Entries from `tail` on that were read before an earlier one was written. */
  readonly early: Set<number>
  /** When the entry at `tail` was first seen to be claimed and not written; undefined: it is not. */
  claimedSince: number | undefined
}

/** What a reader does with what it reads. */
interface LendSink {
  readonly stackOf: (pid: number, id: number) => Stack
  readonly event: (event: ProgramEvent) => void
  /** Microseconds, on the clock of the stream. */
  readonly now: () => number
}

export class LendRings {
  #rings: readonly Ring[] = []
  readonly #sink: LendSink
  readonly #containment: Containment
  readonly #pool = createRingPool()
  readonly #start = monotonicStart()
  #reader: NodeJS.Timeout | undefined

  constructor(sink: LendSink, containment: Containment) {
    this.#sink = sink
    this.#containment = containment
  }

  /** A process has passed its ring, in the file of its wait table. From now on the rings are read now and then. */
  add(session: object, pid: number, file: WaitTableFile): void {
    const memory = file.lendRing(this.#pool)
    this.#remove(ring => ring.pid === pid)
    const tail = memory.view.getUint32(HEAD.tail, true)
    this.#rings = [...this.#rings, { pid, session, memory, tail, early: new Set(), claimedSince: undefined }]
    this.#reader ??= setInterval(
      this.#containment.guard('the reading of lends', () => this.read()),
      READ_LOGS_INTERVAL,
    ).unref()
  }

  /** The daemon ends. */
  close(): void {
    clearInterval(this.#reader)
  }

  /** The session of a process has ended. */
  ended(session: object): void {
    this.read()
    for (const { pid } of this.#rings.filter(ring => ring.session === session))
      this.#sink.event({ event: 'lendsEnd', pid, lost: 0 })
    this.#remove(ring => ring.session === session)
  }

  #remove(isRemoved: (ring: Ring) => boolean): void {
    for (const ring of this.#rings) if (isRemoved(ring)) this.#pool.release(ring.memory)
    this.#rings = this.#rings.filter(ring => !isRemoved(ring))
  }

  /** Takes the new entries of all processes. Called at each access of a peer. */
  read(): void {
    for (const ring of this.#rings) if (Atomics.load(ring.memory.u32, HEAD.head / 4) !== ring.tail) this.#readRing(ring)
  }

  #readRing(ring: Ring): void {
    const { memory, early, pid } = ring
    const count = (Atomics.load(memory.u32, HEAD.head / 4) - ring.tail) >>> 0
    if (count > LendRing.entries) {
      this.#sink.event({ event: 'lendsEnd', pid, lost: count })
      this.#remove(one => one === ring)
      return
    }
    const now = this.#sink.now()
    let isGapless = true
    for (let done = 0; done < count; done++) {
      const index = (ring.tail + done) >>> 0
      const at = LendRing.firstEntry + (index % LendRing.entries) * ENTRY_BYTES
      const isWritten = Atomics.load(memory.u32, (at + ENTRY.sequence) / 4) === (index + 1) >>> 0
      if (isWritten && !early.has(index)) this.#take(pid, memory, at, now)
      if (isWritten) early.add(index)
      else if (isGapless && this.#isGivenUp(ring, now)) early.add(index)
      isGapless &&= early.has(index)
    }
    while (early.delete(ring.tail)) {
      ring.tail = (ring.tail + 1) >>> 0
      ring.claimedSince = undefined
    }
    memory.view.setBigUint64(HEAD.tail, this.#wholeTail(ring), true)
  }

  /** The entry at the tail is claimed and not written: whether that is so for too long. */
  #isGivenUp(ring: Ring, now: number): boolean {
    ring.claimedSince ??= now
    return now - ring.claimedSince > MAX_CLAIMED
  }

  /** The tail with the upper half of the head. */
  #wholeTail({ memory, tail }: Ring): bigint {
    const head = memory.view.getBigUint64(HEAD.head, true)
    return head - BigInt((Number(head & 0xffff_ffffn) - tail) >>> 0)
  }

  #take(pid: number, { view, buffer, bytes }: Mapping, at: number, now: number): void {
    const u32 = (offset: number): number => view.getUint32(at + offset, true)
    const u64 = (offset: number): number => Number(view.getBigUint64(at + offset, true))
    const time = Math.min(u64(ENTRY.time) / 1000 - this.#start, now)
    const [start, end] = [u64(ENTRY.start), u64(ENTRY.start) + u64(ENTRY.length)]
    const { event, stackOf } = this.#sink
    const label = (): string => {
      const text = Buffer.from(buffer, bytes.byteOffset + at + ENTRY.label, LendRing.labelBytes).toString('utf8')
      return printable(text.slice(0, text.includes('\0') ? text.indexOf('\0') : undefined))
    }
    const kind = u32(ENTRY.kind)
    if (kind === LendKind.TAKE_BACK)
      event({ event: 'takenBack', time, pid, lend: u64(ENTRY.id), stack: stackOf(pid, u32(ENTRY.stack)) })
    if (start >= end || end > MAX_ADDRESS) return
    if (kind === LendKind.LEND) {
      const milliseconds = u32(ENTRY.milliseconds)
      event({
        event: 'lent',
        time,
        pid,
        lend: u64(ENTRY.id),
        start,
        end,
        rights: u32(ENTRY.rights) & ALL_RIGHTS,
        qpn: u32(ENTRY.qpn),
        label: label(),
        stack: stackOf(pid, u32(ENTRY.stack)),
        ...(milliseconds > 0 && { until: time + milliseconds * 1000 }),
        ...(u32(ENTRY.isHashed) !== 0 && { hash: u32(ENTRY.hash) }),
      })
    }
    if (kind === LendKind.UNCHECKED) event({ event: 'unchecked', pid, start, end })
    if (kind === LendKind.NAME) event({ event: 'named', pid, start, end, name: label() })
  }
}
