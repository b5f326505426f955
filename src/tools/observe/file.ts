/*
 * The observation file of a command (spec/observe.ts): creates it, and reads what programs record. A record is read
 * once all records that happened before it can be read: those that were complete when the reading began.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { offsetsOf } from '../../spec/message-layout.ts'
import { ObserveFile, ObserveStructs } from '../../spec/observe.ts'
import { isPadding, type ObservedRecord, recordOf, sizeOf, timeOf } from './records.ts'

const { rings: RINGS, ringBytes: RING_BYTES, firstRing: FIRST_RING, ringHeader: RING_HEADER } = ObserveFile
const CAPACITY = RING_BYTES - RING_HEADER
/** Bytes of a record's header, and what the sizes of records are multiples of: the size of the least padding. */
const RECORD_BYTES = ObserveStructs.record.size
const UNIT = 8
const Head = offsetsOf(ObserveStructs.observeHead)
const Ring = offsetsOf(ObserveStructs.observeRing)

/** Whether a process exists, also one of another user. */
const exists = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

export class ObservationFile {
  readonly #fd: number
  readonly #header = Buffer.alloc(RING_HEADER)
  /** Not a Buffer, whose `slice` is a view: records copy their ranges. */
  readonly #data = new Uint8Array(CAPACITY)
  /** Number of rings that were in use. Programs claim the first free ring, and only `read` frees one. */
  #used = 0
  readonly #lostOf = new Map<number, bigint>()
  /** Processes with records that are not known to have ended. */
  readonly #seen = new Set<number>()

  /**
   * Creates the file, only for this user. All of its bytes are written: a program that stores to a hole on a full disk
   * would be killed. Throws the system's error.
   */
  constructor(path: string) {
    this.#fd = openSync(path, 'wx+', 0o600)
    const head = Buffer.alloc(FIRST_RING)
    head.writeUInt32LE(ObserveFile.version, Head.version)
    head.writeUInt32LE(RINGS, Head.rings)
    head.writeUInt32LE(RING_BYTES, Head.ringBytes)
    writeSync(this.#fd, head, 0, head.length, 0)
    const ring = Buffer.alloc(RING_BYTES)
    for (let i = 0; i < RINGS; i++) writeSync(this.#fd, ring, 0, RING_BYTES, FIRST_RING + i * RING_BYTES)
  }

  close(): void {
    closeSync(this.#fd)
  }

  /** Sets what programs must ask: bits of AskKind. */
  set asks(bits: number) {
    const word = Buffer.alloc(4)
    word.writeUInt32LE(bits)
    writeSync(this.#fd, word, 0, word.length, Head.asks)
  }

  /** Records of threads that found no free ring. */
  get lostThreads(): number {
    const head = Buffer.alloc(FIRST_RING)
    readSync(this.#fd, head, 0, FIRST_RING, 0)
    return Number(head.readBigUInt64LE(Head.lost))
  }

  /** Reads the records that were complete at `now` (nanoseconds of CLOCK_MONOTONIC), in the order of time. */
  read(now: bigint): ObservedRecord[] {
    const records: ObservedRecord[] = []
    const withRing = new Set<number>()
    for (let i = 0; i < RINGS && i <= this.#used; i++) {
      const pid = this.#readRing(i, now, records)
      if (pid !== 0) withRing.add(pid)
    }
    records.sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0))
    for (const pid of this.#seen)
      if (!withRing.has(pid) && !exists(pid)) {
        this.#seen.delete(pid)
        records.push({ kind: 'gone', pid, tid: pid, time: now, stack: 0 })
      }
    return records
  }

  /** Returns the pid of the ring; 0: it is free now. */
  #readRing(i: number, now: bigint, records: ObservedRecord[]): number {
    const at = FIRST_RING + i * RING_BYTES
    const header = this.#header
    readSync(this.#fd, header, 0, RING_HEADER, at)
    const pid = header.readUInt32LE(Ring.pid)
    if (pid === 0) return 0
    this.#used = Math.max(this.#used, i + 1)
    this.#seen.add(pid)
    const head = header.readBigUInt64LE(Ring.head)
    const first = header.readBigUInt64LE(Ring.tail)
    const lost = header.readBigUInt64LE(Ring.lost)
    const count = Number(lost - (this.#lostOf.get(i) ?? 0n))
    const lostAt = count > 0 ? header.readBigUInt64LE(Ring.lostAt) : undefined
    // A loss after records that are not complete yet is told when they are.
    const onLost = (time: bigint): void => {
      this.#lostOf.set(i, lost)
      records.push({ kind: 'lost', pid, tid: pid, time, stack: 0, count })
    }
    const hasRecords = head !== first || lostAt !== undefined
    const tail = hasRecords ? this.#readRecords(at, pid, first, head, now, records, lostAt, onLost) : first
    const isOver = header.readUInt32LE(Ring.ended) === 1 || !exists(pid)
    // A process that has ended since the header was read may have recorded or dropped more.
    if (tail === head && isOver && this.#isUnchanged(at, head, this.#lostOf.get(i) ?? 0n)) {
      this.#lostOf.delete(i)
      writeSync(this.#fd, Buffer.alloc(RING_HEADER), 0, RING_HEADER, at)
      return 0
    }
    if (tail !== first) {
      header.writeBigUInt64LE(tail, Ring.tail)
      writeSync(this.#fd, header, Ring.tail, 8, at + Ring.tail)
    }
    return pid
  }

  #isUnchanged(at: number, head: bigint, lost: bigint): boolean {
    const header = Buffer.alloc(RING_HEADER)
    readSync(this.#fd, header, 0, RING_HEADER, at)
    return header.readBigUInt64LE(Ring.head) === head && header.readBigUInt64LE(Ring.lost) === lost
  }

  /** Returns the new tail. `onLost` gets the time of the last record before `lostAt`. */
  #readRecords(
    at: number,
    pid: number,
    first: bigint,
    head: bigint,
    now: bigint,
    records: ObservedRecord[],
    lostAt: bigint | undefined,
    onLost: (time: bigint) => void,
  ): bigint {
    const length = Number(head - first)
    // The program has overwritten its own memory, here and below.
    if (length < 0 || length > CAPACITY || first % BigInt(UNIT) !== 0n) return head
    const begin = Number(first % BigInt(CAPACITY))
    const untilEnd = Math.min(length, CAPACITY - begin)
    readSync(this.#fd, this.#data, begin, untilEnd, at + RING_HEADER + begin)
    if (untilEnd < length) readSync(this.#fd, this.#data, 0, length - untilEnd, at + RING_HEADER)
    const view = new DataView(this.#data.buffer, this.#data.byteOffset, CAPACITY)
    let tail = first
    let time = 0n
    let toldLoss = lostAt === undefined
    const tellLoss = (): void => {
      if (toldLoss || tail < lostAt!) return
      toldLoss = true
      onLost(time)
    }
    while (tail < head) {
      tellLoss()
      const start = Number(tail % BigInt(CAPACITY))
      const size = sizeOf(view, start)
      const least = isPadding(view, start) ? UNIT : RECORD_BYTES
      if (size < least || size % UNIT !== 0 || start + size > CAPACITY) return head
      if (!isPadding(view, start)) {
        if (timeOf(view, start) > now) break
        time = timeOf(view, start)
        try {
          const record = recordOf(this.#data.subarray(start, start + size), pid)
          if (record !== undefined) records.push(record)
        } catch (error) {
          if (!(error instanceof RangeError)) throw error
          return head
        }
      }
      tail += BigInt(size)
    }
    tellLoss()
    return tail
  }
}
