/*
 * Receive requests in a ring of their own, as shared receive queues have them (IBA 10.2.9): posted like
 * those of a queue pair, and taken by whichever queue pair gets a message.
 */
import type { Srq } from '../../spec/classes/srq.ts'
import type { RingPlace } from '../carrier.ts'
import { checkId, checkLocal } from '../checks/request-checks.ts'
import { detached, invalidArgument } from '../error.ts'
import { isSliceOf, type Slice } from '../mr/region.ts'
import type { DeviceContext } from '../plan.ts'
import { checkDevicePresent, throwQueueFull, throwTooManySges } from '../qp/queue-pair.ts'
import { putReceive } from '../qp/requests.ts'
import { nextSlot, outstandingRequests, type ProgramRing, produce, producingRing, ringOrNone } from '../ring.ts'
import type { Shown } from '../show.ts'
import { RELEASED, SHOWN, VerbsObject } from '../verbs-object.ts'

/** A queue of receive requests of its own. */
export interface ReceiveQueue {
  /** Requests that it holds. */
  readonly maxWr: number
  /** Requests that no message has taken yet. */
  readonly pending: number
  /** Offers a buffer for the next message. Throws RdmaError ENOMEM when the queue is full. */
  receive(local?: Slice | readonly Slice[], id?: number): void
}

/** What a creation has answered. */
export interface ReceiveQueueMade {
  readonly maxSge: number
  readonly queue?: RingPlace
}

const CALL = 'srq.receive'

/** A queue of receive WQEs in a ring of its own. */
export abstract class ReceiveRing extends VerbsObject implements ReceiveQueue {
  /** Its number among what has events. */
  readonly number: number
  readonly #maxSge: number
  /** Undefined if the driver has no ring for it. */
  #place: RingPlace | undefined
  #ring: ProgramRing

  constructor(kit: DeviceContext, number: number, handle: number, { maxSge, queue }: ReceiveQueueMade) {
    super(kit, handle)
    this.number = number
    this.#maxSge = maxSge
    this.#place = queue
    this.#ring = ringOrNone(kit.carrier, queue)
  }

  /** That of XRC has the same methods, under its own name. */
  abstract override get cls(): typeof Srq

  get maxWr(): number {
    return this.#ring.capacity
  }

  get pending(): number {
    return outstandingRequests(this.#ring)
  }

  receive(local?: Slice | readonly Slice[], id = 0): void {
    if (this?.kit === undefined) throw detached(CALL)
    checkDevicePresent(CALL, this.kit)
    if (!this.isOpen) throw invalidArgument(CALL, 'the queue is closed')
    const ring = this.#ring
    const at = nextSlot(ring)
    if (at < 0) throw throwQueueFull(CALL, 'receive', ring.capacity)
    if (Array.isArray(local) && local.length > this.#maxSge) throw throwTooManySges(CALL, local.length, this.#maxSge)
    if (id !== 0) checkId(CALL, id)
    if (local !== undefined && !isSliceOf(local, this.kit)) checkLocal(CALL, this.kit, local)
    putReceive(ring, at, id, local)
    produce(ring)
  }

  resize(maxWr: number): void {
    const { carrier } = this.kit
    const { out } = carrier.call(this.cls, 'modify', this.handle, { maxWr })
    const { queue } = out as { queue?: RingPlace }
    if (queue === undefined) return
    // the device has moved the ring, with the WQEs that no message has taken
    if (this.#place !== undefined) carrier.release(this.#place)
    this.#place = queue
    this.#ring = producingRing(carrier, queue)
  }

  override [SHOWN](): Shown {
    const { handle, maxWr, pending } = this
    return { handle, maxWr, maxSge: this.#maxSge, pending }
  }

  protected override [RELEASED](): void {
    const { carrier, waiters } = this.kit
    waiters.remove(this.number)
    if (this.#place !== undefined) carrier.release(this.#place)
    // the memory may be another queue's by now
    this.#ring = ringOrNone(carrier, undefined)
  }
}
