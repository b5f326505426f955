/*
 * Receive WQEs in a ring that a program, which may be hostile, fills: the receive queue of one queue pair, or an SRQ
 * (IBA 10.2.9). The engine takes the oldest WQE and copies it. Indices and sizes are the device's own.
 */

import {
  clearRing,
  copyElements,
  createRing,
  elementAt,
  emptyRing,
  loadProducer,
  NO_INDEX,
  type Ring,
  type RingMemory,
  storeConsumer,
  storeProducer,
} from '../../../core/memory/rings.ts'
import { RingSge } from '../../../spec/drivers/rxe-rings.ts'
import { Receive } from '../../../transport/engine/types.ts'
import { copySges } from './elements.ts'

export interface ReceiveQueue {
  ring: Ring
  readonly maxSge: number
  readonly isShared: boolean
  /** Index of the next WQE to take. */
  takenIndex: number
  /** Number of taken WQEs since creation or RESET. */
  taken: number
  /** As in SendQueue (work-source.ts). Scans do not read that of an SRQ. */
  seenProducer: number
  /** SRQ limit: once fewer WQEs are left, it becomes 0 (not armed), and `onLimitReached` is called with the limit. */
  limit: number
  readonly onLimitReached: (limit: number) => void
}

const noHandler = (): void => {}

/**
 * A queue for at least `requests` requests of at most `maxSge` elements; an SRQ if `onLimitReached` is given. Throws
 * CallError ENOMEM.
 */
export const createReceiveQueue = (
  memory: RingMemory,
  requests: number,
  maxSge: number,
  onLimitReached?: (limit: number) => void,
): ReceiveQueue => ({
  ring: createRing(memory, requests, memory.layout.receive.SGE + maxSge * RingSge.BYTES),
  maxSge,
  isShared: onLimitReached !== undefined,
  takenIndex: 0,
  taken: 0,
  seenProducer: NO_INDEX,
  limit: 0,
  onLimitReached: onLimitReached ?? noHandler,
})

/** The receive queue of a queue pair without one: nothing is ever posted to it. */
export const emptyReceiveQueue: ReceiveQueue = {
  ring: emptyRing,
  maxSge: 0,
  isShared: false,
  takenIndex: 0,
  taken: 0,
  seenProducer: NO_INDEX,
  limit: 0,
  onLimitReached: noHandler,
}

/** Number of WQEs that are posted and not taken. */
export const pendingReceives = ({ ring, takenIndex }: ReceiveQueue): number =>
  (loadProducer(ring) - takenIndex) & ring.wrap

/** Copies the posted WQE with this index to word `at` of `into` (`Receive`). */
export const loadReceive = ({ ring, maxSge }: ReceiveQueue, index: number, into: Uint32Array, at: number): void => {
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

/** Takes the oldest WQE but does not publish the consumer index: the slot stays occupied. False if there is none. */
export const loadOldest = (queue: ReceiveQueue, into: Uint32Array, at: number): boolean => {
  if (pendingReceives(queue) === 0) {
    queue.seenProducer = queue.takenIndex
    return false
  }
  loadReceive(queue, queue.takenIndex, into, at)
  queue.takenIndex = (queue.takenIndex + 1) & queue.ring.wrap
  queue.taken++
  return true
}

/** To be called after a WQE was taken. If fewer WQEs are left than the limit, disarms and reports the limit. */
export const checkLimit = (queue: ReceiveQueue): void => {
  const { limit } = queue
  if (limit === 0 || pendingReceives(queue) >= limit) return
  queue.limit = 0
  queue.onLimitReached(limit)
}

/** Takes the oldest WQE and releases its slot. False if there is none. */
export const takeReceive = (queue: ReceiveQueue, into: Uint32Array, at: number): boolean => {
  if (!loadOldest(queue, into, at)) return false
  storeConsumer(queue.ring, queue.takenIndex)
  checkLimit(queue)
  return true
}

/** Empties the queue: device and program both find index 0. */
export const clearReceives = (queue: ReceiveQueue): void => {
  clearRing(queue.ring)
  queue.takenIndex = 0
  queue.taken = 0
}

/**
 * Moves a queue and its posted WQEs to a ring for at least `requests` WQEs. Returns the old ring, which the caller
 * frees. If more than `requests` WQEs are posted, returns undefined and changes nothing. Throws CallError ENOMEM.
 */
export const resizeReceives = (memory: RingMemory, queue: ReceiveQueue, requests: number): Ring | undefined => {
  const pending = pendingReceives(queue)
  if (pending > requests) return undefined
  const old = queue.ring
  const next = createRing(memory, requests, 2 ** old.log2Element)
  copyElements(old, queue.takenIndex, pending, next)
  queue.ring = next
  queue.takenIndex = 0
  storeProducer(next, pending)
  return old
}
