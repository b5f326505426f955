/*
 * Receive queues, of a queue pair or shared: requests in the program's memory become requests of the device's ring. The
 * requests of a shared queue are a list, from the program's free requests in the order in which they became free.
 */
import type { MappedChunk } from '../../core/memory/mappable-memory.ts'
import { elementAt, storeProducer } from '../../core/memory/rings.ts'
import { DataSegment, DoorbellRecord, NextSegment, POSTED_MASK, SEGMENT_BYTES } from '../../spec/drivers/mlx5-queues.ts'
import { RingSge } from '../../spec/drivers/rxe-rings.ts'
import type { ReceiveQueue } from '../rxe/rings/receive-queue.ts'
import type { ProgramRecord } from './program-memory.ts'

/** Maximum requests that are taken at a time; the next look at the ring's index takes more. */
const MAX_TAKEN = 256

export class Receives {
  /** As in `Sends`. */
  isOpen = false
  readonly #record: ProgramRecord
  readonly #view: DataView
  readonly #start: number
  readonly #count: number
  readonly #shift: number
  readonly #isShared: boolean
  readonly #queue: ReceiveQueue
  /** Requests taken since RESET, modulo 2^16. */
  #taken = 0
  #produced = 0
  /** The next request of the list. */
  #head = 0

  /**
   * `buffer`: the program's pages, with `count` requests, a power of two, of 2^`shift` bytes. Sets `queue.ring.refresh`.
   */
  constructor(record: ProgramRecord, buffer: MappedChunk, count: number, shift: number, queue: ReceiveQueue) {
    this.#record = record
    this.#view = buffer.view
    this.#start = buffer.at
    this.#count = count
    this.#shift = shift
    this.#isShared = queue.isShared
    this.#queue = queue
    queue.ring.refresh = () => this.#refresh()
  }

  /** As of `Sends`. */
  reset(): void {
    this.isOpen = false
    this.#taken = 0
    this.#produced = 0
  }

  #refresh(): void {
    if (!this.isOpen) return
    let left = Math.min((this.#record.load(DoorbellRecord.RECEIVES) - this.#taken) & POSTED_MASK, MAX_TAKEN)
    if (left === 0) return
    const { ring, takenIndex } = this.#queue
    while (left > 0 && ((this.#produced - takenIndex) & ring.wrap) < ring.capacity) {
      this.#take(elementAt(ring, this.#produced))
      this.#taken = (this.#taken + 1) & POSTED_MASK
      this.#produced = (this.#produced + 1) & ring.wrap
      left--
    }
    storeProducer(ring, this.#produced)
  }

  /** Copies the next request to element `to` of the ring. */
  #take(to: number): void {
    const view = this.#view
    const { ring, maxSge } = this.#queue
    const { words } = ring.area
    const { receive } = ring.layout
    const index = this.#isShared ? this.#head : this.#taken & (this.#count - 1)
    let at = this.#start + index * 2 ** this.#shift
    const end = at + 2 ** this.#shift
    if (this.#isShared) {
      this.#head = view.getUint16(at + NextSegment.INDEX) & (this.#count - 1)
      at += SEGMENT_BYTES
    }
    let count = 0
    for (; at < end && count < maxSge; at += SEGMENT_BYTES) {
      const length = view.getUint32(at + DataSegment.BYTES)
      const lkey = view.getUint32(at + DataSegment.LKEY)
      if (lkey === DataSegment.INVALID_LKEY && length === 0) break
      const sge = to + receive.SGE + count * RingSge.BYTES
      words[(sge + RingSge.ADDRESS) >> 2] = view.getUint32(at + DataSegment.ADDRESS + 4)
      words[(sge + RingSge.ADDRESS + 4) >> 2] = view.getUint32(at + DataSegment.ADDRESS)
      words[(sge + RingSge.LENGTH) >> 2] = length
      words[(sge + RingSge.LKEY) >> 2] = lkey
      count++
    }
    // A completion has the count of a queue's requests, which UCX compares with its own, or the index in a shared queue.
    words[(to + receive.WR_ID) >> 2] = this.#isShared ? index : this.#taken
    words[(to + receive.WR_ID + 4) >> 2] = 0
    words[(to + receive.DMA_NUM_SGE) >> 2] = count
  }
}
