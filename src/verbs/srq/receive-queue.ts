/*
 * Receive requests in a ring of their own, as shared receive queues have them (IBA 10.2.9): posted like
 * those of a queue pair, and taken by whichever queue pair gets a message.
 */
import type { RingPlace } from '../carrier.ts'
import { checkId, checkLocal } from '../checks/request-checks.ts'
import { detached, invalidArgument } from '../error.ts'
import { isSliceOf, type Slice } from '../mr/region.ts'
import type { DeviceContext, HeldObject } from '../plan.ts'
import { checkDevicePresent, throwQueueFull, throwTooManySges } from '../qp/queue-pair.ts'
import { putReceive } from '../qp/requests.ts'
import { nextSlot, outstandingRequests, type ProgramRing, produce, producingRing, ringOrNone } from '../ring.ts'

export interface ReceiveQueue {
  /** Requests that it holds. */
  readonly maxWr: number
  /** Requests that no message has taken yet. */
  readonly pending: number
  /** Offers a buffer for the next message. Throws RdmaError ENOMEM when the queue is full. */
  receive(local?: Slice | readonly Slice[], id?: number): void
}

export interface ReceiveFields extends HeldObject {
  /** Its number among what has events. */
  readonly number: number
  readonly maxSge: number
  /** Undefined if the driver has no ring for it. */
  place: RingPlace | undefined
  ring: ProgramRing
}

/** What a creation has answered. */
export interface ReceiveQueueMade {
  readonly maxSge: number
  readonly queue?: RingPlace
}

export const receiveFields = (
  kit: DeviceContext,
  number: number,
  handle: number,
  { maxSge, queue }: ReceiveQueueMade,
): ReceiveFields => {
  const ring = ringOrNone(kit.carrier, queue)
  return { kit, handle, isOpen: true, number, maxSge, place: queue, ring }
}

const CALL = 'srq.receive'

/** Part of a class's table. */
export const receiving: ReceiveQueue & ThisType<ReceiveFields> = {
  get maxWr() {
    return (this as unknown as ReceiveFields).ring.capacity
  },
  get pending() {
    return outstandingRequests((this as unknown as ReceiveFields).ring)
  },
  receive(local, id = 0) {
    if (this?.kit === undefined) throw detached(CALL)
    checkDevicePresent(CALL, this.kit)
    if (!this.isOpen) throw invalidArgument(CALL, 'the queue is closed')
    const { ring } = this
    const at = nextSlot(ring)
    if (at < 0) throw throwQueueFull(CALL, 'receive', ring.capacity)
    if (Array.isArray(local) && local.length > this.maxSge) throw throwTooManySges(CALL, local.length, this.maxSge)
    if (id !== 0) checkId(CALL, id)
    if (local !== undefined && !isSliceOf(local, this.kit)) checkLocal(CALL, this.kit, local)
    putReceive(ring, at, id, local)
    produce(ring)
  },
}

/**
 * The queue lies elsewhere from now on. The device has moved what waits there, of which it knows alone how much it is:
 * a message may have taken a request until then.
 */
export const moveRequests = (self: ReceiveFields, place: RingPlace): void => {
  const { carrier } = self.kit
  if (self.place !== undefined) carrier.release(self.place)
  self.place = place
  self.ring = producingRing(carrier, place)
}

/** The queue is destroyed. */
export const endRequests = (self: ReceiveFields): void => {
  const { carrier, waiters } = self.kit
  waiters.remove(self.number)
  if (self.place !== undefined) carrier.release(self.place)
  // Its memory may be another queue's by now.
  self.ring = ringOrNone(carrier, undefined)
}
