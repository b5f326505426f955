/*
 * Receive WQEs in a ring that a program, which may be hostile, fills: the receive queue of one queue pair, or an SRQ
 * (IBA 10.2.9). The engine takes the oldest WQE and copies it. Indices and sizes are the device's own.
 */

import {
  clearRing,
  copyElements,
  createRing,
  elementAt,
  loadProducer,
  type Ring,
  type RingMemory,
  storeConsumer,
  storeProducer,
} from '../../core/memory/rings.ts'
import { RingSge } from '../../spec/drivers/mapped-rings.ts'
import { joinWords } from '../../spec/memory.ts'
import { Receive, Sge } from '../../transport/engine/types.ts'
import { checkLimit, type ExactQueue, NO_MARK, type ReceiveQueue } from '../soft/queues.ts'
import { copySges } from './elements.ts'
import { exactRing, releaseSlots } from './exact-rings.ts'

const noHandler = (): void => {}

export class RingReceives implements ReceiveQueue, ExactQueue {
  ring: Ring
  readonly maxSge: number
  readonly isShared: boolean
  /** Index of the next WQE to take. */
  takenIndex = 0
  taken = 0
  seen = NO_MARK
  limit = 0
  readonly onLimitReached: (limit: number) => void
  isExact = false
  readonly #mayBeExact: boolean

  /** `mayBeExact`: `RingMemory.mayHideSlots`. */
  constructor(ring: Ring, maxSge: number, onLimitReached: ((limit: number) => void) | undefined, mayBeExact: boolean) {
    this.ring = ring
    this.#mayBeExact = mayBeExact
    this.maxSge = maxSge
    this.isShared = onLimitReached !== undefined
    this.onLimitReached = onLimitReached ?? noHandler
  }

  get capacity(): number {
    return this.ring.capacity
  }

  get exact(): ExactQueue | undefined {
    return this.#mayBeExact ? this : undefined
  }

  mark(): number {
    return loadProducer(this.ring)
  }

  pending(): number {
    return (loadProducer(this.ring) - this.takenIndex) & this.ring.wrap
  }

  isEmpty(): boolean {
    return this.pending() === 0
  }

  reset(): void {
    clearRing(this.ring)
    this.takenIndex = 0
    this.taken = 0
    if (this.isExact) this.release(0)
  }

  take(into: Uint32Array, at: number): boolean {
    if (this.pending() === 0) {
      this.seen = this.takenIndex
      return false
    }
    this.#load(this.takenIndex, into, at)
    this.takenIndex = (this.takenIndex + 1) & this.ring.wrap
    this.taken++
    // the slot of an SRQ's request is free at once, because its completion does not tell the slot
    if (!this.isExact) storeConsumer(this.ring, this.takenIndex)
    else if (this.isShared) this.release(this.takenIndex)
    checkLimit(this)
    return true
  }

  visit(from: number, visit: (words: Uint32Array) => void): void {
    const count = this.pending()
    if (from >= count) return
    const words = new Uint32Array(Receive.SGE + this.maxSge * Sge.WORDS)
    for (let i = from; i < count; i++) {
      this.#load(this.takenIndex + i, words, 0)
      visit(words)
    }
  }

  oldestId(): bigint {
    const { ring } = this
    const at = (elementAt(ring, this.takenIndex) + ring.layout.receive.WR_ID) >> 2
    return joinWords(ring.area.words[at + 1], ring.area.words[at])
  }

  limitTo(capacity: number): void {
    this.ring = exactRing(this.ring, capacity)
    this.isExact = true
  }

  slot(): number {
    return this.takenIndex
  }

  release(slot: number): void {
    releaseSlots(this.ring, slot)
  }

  /** Copies the posted WQE with this index to word `at` of `into` (`Receive`). */
  #load(index: number, into: Uint32Array, at: number): void {
    const { ring, maxSge } = this
    const { words } = ring.area
    const { receive } = ring.layout
    const wqe = elementAt(ring, index)
    const sges = words[(wqe + receive.DMA_NUM_SGE) >> 2] >>> 0
    // a WQE with too many elements becomes a buffer of zero bytes: any payload then causes a length error
    const count = sges > maxSge ? 0 : sges
    const length = copySges(ring, wqe + receive.SGE, count, into, at + Receive.SGE)
    into[at + Receive.ID_LO] = words[(wqe + receive.WR_ID) >> 2]
    into[at + Receive.ID_HI] = words[(wqe + receive.WR_ID + 4) >> 2]
    into[at + Receive.SGES] = count
    into[at + Receive.LENGTH] = Math.min(length, 0xffff_ffff)
  }
}

/**
 * A queue for at least `requests` requests of at most `maxSge` elements; an SRQ if `onLimitReached` is given. Throws
 * CallError ENOMEM.
 */
export const createReceiveQueue = (
  memory: RingMemory,
  requests: number,
  maxSge: number,
  onLimitReached?: (limit: number) => void,
): RingReceives =>
  new RingReceives(
    createRing(memory, requests, memory.layout.receive.SGE + maxSge * RingSge.BYTES),
    maxSge,
    onLimitReached,
    memory.mayHideSlots === true,
  )

/**
 * Moves a queue and its posted WQEs to a ring for at least `requests` WQEs. Returns the old ring, which the caller
 * frees. If more than `requests` WQEs are posted, returns undefined and changes nothing. Throws CallError ENOMEM.
 */
export const resizeReceives = (memory: RingMemory, queue: RingReceives, requests: number): Ring | undefined => {
  const pending = queue.pending()
  if (pending > requests) return undefined
  const old = queue.ring
  const next = createRing(memory, requests, 2 ** old.log2Element)
  copyElements(old, queue.takenIndex, pending, next)
  queue.ring = next
  queue.takenIndex = 0
  storeProducer(next, pending)
  return old
}
