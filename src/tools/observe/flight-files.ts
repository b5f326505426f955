/*
 * The files of flight recorders (file-layout.ts, shim/host/flight.c): copies their rings, which programs go on to
 * overwrite. What was overwritten during the copy is left out: the ring's tail, read again, says what that is.
 */
import { closeSync, existsSync, openSync, readdirSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { offsetsOf } from '../../spec/message-layout.ts'
import { FlightFile, ObserveFile, ObserveStructs } from './file-layout.ts'
import { isPadding, type ObservedRecord, recordOf, sizeOf } from './records.ts'

const { rings: RINGS, firstRing: FIRST_RING } = FlightFile
const { ringHeader: RING_HEADER } = ObserveFile
const Head = offsetsOf(ObserveStructs.flightHead)
const Ring = offsetsOf(ObserveStructs.observeRing)
const RECORD_BYTES = ObserveStructs.record.size
const UNIT = 8
/** A ring of a file that was damaged by its program may claim any size. */
const MAX_RING = 1 << 30

export interface Flight {
  readonly path: string
  readonly fd: number
  readonly pid: number
  readonly ringBytes: number
  /** `trigger` at the last look. */
  triggers: number
  /** `lost` at the last look. */
  lost: bigint
}

export class FlightFiles {
  readonly #prefix: string
  readonly #flights = new Map<string, Flight>()

  /** `prefix`: how the paths of the files begin. */
  constructor(prefix: string) {
    this.#prefix = prefix
  }

  get flights(): readonly Flight[] {
    return [...this.#flights.values()]
  }

  /** Looks for files of new processes. */
  scan(): void {
    const folder = dirname(this.#prefix)
    // Scripts that clear /dev/shm remove it; then there are no new files.
    if (!existsSync(folder)) return
    for (const name of readdirSync(folder)) {
      const path = join(folder, name)
      if (!name.startsWith(basename(this.#prefix)) || this.#flights.has(path)) continue
      let fd: number | undefined
      try {
        fd = openSync(path, 'r+')
        const head = Buffer.alloc(ObserveStructs.flightHead.size)
        readSync(fd, head, 0, head.length, 0)
        const ringBytes = head.readUInt32LE(Head.ringBytes)
        const isReady = head.readUInt32LE(Head.version) === FlightFile.version
        if (isReady && ringBytes > RING_HEADER && ringBytes <= MAX_RING) {
          this.#flights.set(path, { path, fd, pid: head.readUInt32LE(Head.pid), ringBytes, triggers: 0, lost: 0n })
          continue
        }
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      }
      if (fd !== undefined) closeSync(fd)
    }
  }

  #word(fd: number, at: number): number {
    const word = Buffer.alloc(4)
    readSync(fd, word, 0, 4, at)
    return word.readUInt32LE()
  }

  /** The processes with completions in error since the last look. */
  triggered(): Flight[] {
    return this.flights.filter(flight => {
      const triggers = this.#word(flight.fd, Head.trigger)
      const isNew = triggers !== flight.triggers
      flight.triggers = triggers
      return isNew
    })
  }

  /** Records that a process has dropped since the last look. */
  lostOf(flight: Flight): number {
    const word = Buffer.alloc(8)
    readSync(flight.fd, word, 0, 8, Head.lost)
    const lost = word.readBigUInt64LE()
    const count = Number(lost - flight.lost)
    flight.lost = lost
    return Math.max(0, count)
  }

  /** Lets a process record again. */
  thaw({ fd }: Flight): void {
    writeSync(fd, Buffer.alloc(4), 0, 4, Head.frozen)
  }

  /** The records of a process, in no order. */
  read(flight: Flight): ObservedRecord[] {
    const { fd, pid, ringBytes } = flight
    const capacity = ringBytes - RING_HEADER
    const header = Buffer.alloc(RING_HEADER)
    const bytes = new Uint8Array(capacity)
    const view = new DataView(bytes.buffer)
    const records: ObservedRecord[] = []
    for (let i = 0; i < RINGS; i++) {
      const at = FIRST_RING + i * ringBytes
      readSync(fd, header, 0, RING_HEADER, at)
      const head = header.readBigUInt64LE(Ring.head)
      if (head === 0n) continue
      readSync(fd, bytes, 0, capacity, at + RING_HEADER)
      // After the copy: what the program has overwritten meanwhile is before this tail.
      readSync(fd, header, 0, RING_HEADER, at)
      let tail = header.readBigUInt64LE(Ring.tail)
      if (head - tail > BigInt(capacity)) continue
      while (tail < head) {
        const start = Number(tail % BigInt(capacity))
        if (start + UNIT > capacity) break
        const size = sizeOf(view, start)
        const least = isPadding(view, start) ? UNIT : RECORD_BYTES
        // The program has overwritten its own memory.
        if (size < least || size % UNIT !== 0 || start + size > capacity) break
        tail += BigInt(size)
        if (isPadding(view, start)) continue
        try {
          const record = recordOf(bytes.subarray(start, start + size), pid)
          if (record !== undefined) records.push(record)
        } catch (error) {
          if (!(error instanceof RangeError)) throw error
          break
        }
      }
    }
    return records
  }

  remove(flight: Flight): void {
    this.#flights.delete(flight.path)
    closeSync(flight.fd)
    try {
      unlinkSync(flight.path)
    } catch {
      // The user has removed it.
    }
  }

  close(): void {
    for (const flight of this.flights) this.remove(flight)
  }
}
