/*
 * Receive WQEs in a ring that a hostile program fills: of one queue pair, or shared by many (IBA 10.2.9). The engine
 * takes them one at a time, oldest first.
 *
 * Indices and sizes are the device's own; a WQE is copied once, when it is taken. A shared queue that is armed sends
 * one event when fewer WQEs are left than its limit.
 */
import { RingSge } from '../../../spec/drivers/rxe-rings.ts'
import { Receive } from '../../../transport/types.ts'
import { copySges } from './elements.ts'
import {
  clearRing,
  copyElements,
  createRing,
  elementAt,
  emptyRing,
  loadProducer,
  type Ring,
  type RingMemory,
  storeConsumer,
  storeProducer,
} from './rings.ts'

export interface ReceiveQueue {
  ring: Ring
  readonly maxSge: number
  /** Whether it is an SRQ. */
  readonly shared: boolean
  /** Index of the next WQE to take: never read back from the program. */
  taken: number
  /** The program's index when it was read last, as in SendQueue (work-source.ts). */
  seen: number
  /** Fewer WQEs than this call `reached` and disarm the limit; 0: not armed. */
  limit: number
  readonly reached: (limit: number) => void
}

const noHandler = (): void => {}

/** A queue for at least `requests` requests of at most `maxSge` elements. Throws CallError ENOMEM. */
export const createReceiveQueue = (
  memory: RingMemory,
  requests: number,
  maxSge: number,
  reached?: (limit: number) => void,
): ReceiveQueue => ({
  ring: createRing(memory, requests, memory.layout.receive.SGE + maxSge * RingSge.BYTES),
  maxSge,
  shared: reached !== undefined,
  taken: 0,
  seen: -1,
  limit: 0,
  reached: reached ?? noHandler,
})

/** A queue that does not exist: nothing is ever posted here. */
export const emptyReceiveQueue: ReceiveQueue = {
  ring: emptyRing,
  maxSge: 0,
  shared: false,
  taken: 0,
  seen: -1,
  limit: 0,
  reached: noHandler,
}

/** WQEs that are posted and not taken. */
export const pendingReceives = ({ ring, taken }: ReceiveQueue): number => (loadProducer(ring) - taken) & ring.wrap

/** Copies the WQE with this index (`Receive`), which was posted. */
export const loadReceive = ({ ring, maxSge }: ReceiveQueue, index: number, into: Uint32Array, at: number): void => {
  const { words } = ring.area
  const parts = ring.layout.receive
  const wqe = elementAt(ring, index)
  const sges = words[(wqe + parts.DMA_NUM_SGE) >> 2] >>> 0
  // an element count above the limit becomes a buffer of zero bytes: any payload then causes a length error
  const count = sges > maxSge ? 0 : sges
  const length = copySges(ring, wqe + parts.SGE, count, into, at + Receive.SGE)
  into[at + Receive.ID_LO] = words[(wqe + parts.WR_ID) >> 2]
  into[at + Receive.ID_HI] = words[(wqe + parts.WR_ID + 4) >> 2]
  into[at + Receive.SGES] = count
  into[at + Receive.LENGTH] = Math.min(length, 0xffffffff)
}

/** Copies the oldest WQE, whose slot stays occupied; false if the queue is empty. */
export const loadOldest = (queue: ReceiveQueue, into: Uint32Array, at: number): boolean => {
  if (pendingReceives(queue) === 0) {
    queue.seen = queue.taken
    return false
  }
  loadReceive(queue, queue.taken, into, at)
  queue.taken = (queue.taken + 1) & queue.ring.wrap
  return true
}

/** A WQE was taken: calls `reached` if the queue is armed and has fewer WQEs than its limit. */
export const checkLimit = (queue: ReceiveQueue): void => {
  const { limit } = queue
  if (limit === 0 || pendingReceives(queue) >= limit) return
  queue.limit = 0
  queue.reached(limit)
}

/** Takes the oldest WQE, as `WorkSource.takeReceive`. */
export const takeReceive = (queue: ReceiveQueue, into: Uint32Array, at: number): boolean => {
  if (!loadOldest(queue, into, at)) return false
  storeConsumer(queue.ring, queue.taken)
  checkLimit(queue)
  return true
}

/** Empties the queue, for the program too. */
export const clearReceives = (queue: ReceiveQueue): void => {
  clearRing(queue.ring)
  queue.taken = 0
}

/**
 * Moves a queue to a ring for at least `requests`, with the posted WQEs, in order. Undefined, and nothing changed, if
 * there are more than `requests`. Throws CallError ENOMEM. The caller frees the old ring.
 */
export const resizeReceives = (memory: RingMemory, queue: ReceiveQueue, requests: number): Ring | undefined => {
  const left = pendingReceives(queue)
  if (left > requests) return undefined
  const old = queue.ring
  const next = createRing(memory, requests, 2 ** old.log2)
  copyElements(old, queue.taken, left, next)
  queue.ring = next
  queue.taken = 0
  storeProducer(next, left)
  return old
}
