/*
 * Receive queues, of a queue pair or shared: requests in the program's memory become the engine's words (`Receive`)
 * when a message takes them. The requests of a shared queue are a list, from the program's free requests in the order
 * in which they became free; or a ring, which only firmware commands make (a cyclic RMP).
 */
import type { MappedChunk } from '../../core/memory/mappable-memory.ts'
import { DataSegment, DoorbellRecord, NextSegment, POSTED_MASK, SEGMENT_BYTES } from '../../spec/drivers/mlx5-queues.ts'
import { Receive, Sge } from '../../transport/engine/types.ts'
import { checkLimit, NO_MARK, type ReceiveQueue } from '../soft/queues.ts'
import type { ProgramRecord } from './program-memory.ts'
import type { WireLengths } from './signature/signed-space.ts'

const MAX_LENGTH = 0xffff_ffff

/** What a receive queue is made of. */
interface ReceiveOptions {
  readonly record: ProgramRecord
  /** The program's pages, with `count` requests, a power of two, of 2^`shift` bytes. */
  readonly buffer: MappedChunk
  readonly count: number
  readonly shift: number
  readonly maxSge: number
  /** Of a shared queue. */
  readonly onLimitReached?: (limit: number) => void
  readonly order?: SharedOrder
  readonly wire?: WireLengths
}

/**
 * Of a shared queue. LIST: each request begins with a segment that names the next one. RING: that segment has no
 * meaning. BARE_RING: the requests have none.
 */
export const SharedOrder = { LIST: 0, RING: 1, BARE_RING: 2 } as const
export type SharedOrder = (typeof SharedOrder)[keyof typeof SharedOrder]

export class Receives implements ReceiveQueue {
  readonly capacity: number
  readonly maxSge: number
  readonly isShared: boolean
  taken = 0
  seen = NO_MARK
  limit = 0
  readonly onLimitReached: (limit: number) => void
  /** As in `Sends`. */
  #isOpen = false
  readonly #record: ProgramRecord
  readonly #view: DataView
  readonly #start: number
  readonly #shift: number
  readonly #isList: boolean
  /** Bytes of a request before its elements. */
  readonly #elementsAt: number
  readonly #wire: WireLengths | undefined
  /** The next request of the list. */
  #head = 0

  constructor({
    record,
    buffer,
    count,
    shift,
    maxSge,
    onLimitReached,
    order = SharedOrder.LIST,
    wire,
  }: ReceiveOptions) {
    this.capacity = count
    this.maxSge = maxSge
    this.isShared = onLimitReached !== undefined
    this.onLimitReached = onLimitReached ?? (() => {})
    this.#record = record
    this.#view = buffer.view
    this.#start = buffer.at
    this.#shift = shift
    this.#wire = wire
    this.#isList = this.isShared && order === SharedOrder.LIST
    this.#elementsAt = this.isShared && order !== SharedOrder.BARE_RING ? SEGMENT_BYTES : 0
  }

  open(): void {
    this.#isOpen = true
  }

  reset(): void {
    this.#isOpen = false
    this.taken = 0
  }

  mark(): number {
    return this.#isOpen ? this.#record.load(DoorbellRecord.RECEIVES) & POSTED_MASK : 0
  }

  pending(): number {
    return this.#isOpen ? (this.#record.load(DoorbellRecord.RECEIVES) - this.taken) & POSTED_MASK : 0
  }

  isEmpty(): boolean {
    return this.pending() === 0
  }

  take(into: Uint32Array, at: number): boolean {
    if (this.isEmpty()) {
      this.seen = this.taken & POSTED_MASK
      return false
    }
    this.#head = this.#copy(this.#first(), this.taken, into, at)
    this.taken++
    checkLimit(this)
    return true
  }

  visit(from: number, visit: (words: Uint32Array) => void): void {
    const words = new Uint32Array(Receive.SGE + this.maxSge * Sge.WORDS)
    let index = this.#first()
    for (let i = 0, count = this.pending(); i < count; i++) {
      const next = this.#copy(index, this.taken + i, words, 0)
      if (i >= from) visit(words)
      index = next
    }
  }

  oldestId(): bigint {
    return BigInt(this.#isList ? this.#head : this.taken & POSTED_MASK)
  }

  /** Index of the oldest request that is not taken. */
  #first(): number {
    return this.#isList ? this.#head : this.taken & (this.capacity - 1)
  }

  /** Copies the request at `index`, the `number`th one since RESET, to word `at` of `into`. Returns the next index. */
  #copy(index: number, number: number, into: Uint32Array, at: number): number {
    const view = this.#view
    let from = this.#start + index * 2 ** this.#shift
    const end = from + 2 ** this.#shift
    const next = this.#isList ? view.getUint16(from + NextSegment.INDEX) : index + 1
    from += this.#elementsAt
    let count = 0
    let total = 0
    for (; from < end && count < this.maxSge; from += SEGMENT_BYTES) {
      const length = view.getUint32(from + DataSegment.BYTES)
      const lkey = view.getUint32(from + DataSegment.LKEY)
      if (lkey === DataSegment.INVALID_LKEY && length === 0) break
      const sge = at + Receive.SGE + count * Sge.WORDS
      into[sge + Sge.LO] = view.getUint32(from + DataSegment.ADDRESS + 4)
      into[sge + Sge.HI] = view.getUint32(from + DataSegment.ADDRESS)
      into[sge + Sge.LENGTH] = length
      into[sge + Sge.LKEY] = lkey
      if (this.#wire?.areNeeded === true) this.#wire.adjust(into, sge)
      total += into[sge + Sge.LENGTH]!
      count++
    }
    // A completion has the count of a ring's requests, which UCX compares with its own, or the index in a list.
    into[at + Receive.ID_LO] = this.#isList ? index : number & POSTED_MASK
    into[at + Receive.ID_HI] = 0
    into[at + Receive.SGES] = count
    into[at + Receive.LENGTH] = Math.min(total, MAX_LENGTH)
    return next & (this.capacity - 1)
  }
}
