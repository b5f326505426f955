/*
 * A receive queue with its own ring, as used by SRQs (IBA 10.2.9): posted to like a queue pair's receive queue, and
 * consumed by any of its queue pairs.
 */
import type { Srq } from '../../spec/classes/srq.ts'
import { QpState } from '../../spec/enums.ts'
import { Errno } from '../../spec/errno.ts'
import { PostQueue } from '../../spec/session.ts'
import type { RingPlace } from '../carrier.ts'
import { watched } from '../check/checked.ts'
import { checkId, checkLocal } from '../checks/request-checks.ts'
import { detached, invalidArgument } from '../error.ts'
import { isSliceOf, type Slice } from '../mr/region.ts'
import type { Shown } from '../objects/show.ts'
import { DETACH, RELEASED, SHOWN, VerbsObject } from '../objects/verbs-object.ts'
import type { DeviceContext } from '../plan.ts'
import { checkDevicePresent, fullError, tooManySges } from '../qp/queue-pair.ts'
import { putReceive } from '../qp/requests.ts'
import {
  nextSlot,
  noProgramRing,
  outstandingRequests,
  type ProgramRing,
  produce,
  producingRing,
  ringOrNone,
} from '../ring.ts'

/** A receive queue that is an object of its own. */
export interface ReceiveQueue {
  /** Its capacity in requests. */
  readonly maxWr: number
  /** Number of posted receives that no message has consumed. */
  readonly pending: number
  /** Posts a receive. Throws RdmaError ENOMEM when the queue is full. */
  receive(local?: Slice | readonly Slice[], id?: number): void
}

/** The result of a creation. */
export interface ReceiveQueueMade {
  readonly maxSge: number
  readonly queue?: RingPlace
}

const CALL = 'srq.receive'

/** A queue of receive WQEs in a ring of its own. */
export abstract class ReceiveRing extends VerbsObject implements ReceiveQueue {
  /** Its number among the objects with events. */
  readonly number: number
  readonly #maxSge: number
  /** Undefined if the driver provides no ring. */
  #place: RingPlace | undefined
  #ring: ProgramRing

  constructor(kit: DeviceContext, number: number, handle: number, { maxSge, queue }: ReceiveQueueMade) {
    super(kit, handle)
    this.number = number
    this.#maxSge = maxSge
    this.#place = queue
    this.#ring = watched(kit, PostQueue.SHARED, handle, queue, ringOrNone(kit.carrier, queue))
  }

  /** XRC's SRQ has the same methods, in its own class. */
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
    if (at < 0) {
      this.kit.checked?.posts.refused(PostQueue.SHARED, this.handle, id, Errno.ENOMEM, QpState.values.RTS)
      throw fullError(CALL, 'receive', ring.capacity)
    }
    if (Array.isArray(local) && local.length > this.#maxSge) throw tooManySges(CALL, local.length, this.#maxSge)
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
    // the device has moved the ring, with the unconsumed WQEs
    if (this.#place !== undefined) carrier.release(this.#place)
    this.#place = queue
    this.#ring = watched(this.kit, PostQueue.SHARED, this.handle, queue, producingRing(carrier, queue))
  }

  override [SHOWN](): Shown {
    const { handle, maxWr, pending } = this
    return { handle, maxWr, maxSge: this.#maxSge, pending }
  }

  protected override [RELEASED](): void {
    const { carrier, waiters } = this.kit
    waiters.remove(this.number)
    if (this.#place !== undefined) carrier.release(this.#place)
    this[DETACH]()
  }

  override [DETACH](): void {
    this.#place = undefined
    this.#ring = noProgramRing(this.kit.carrier.layout)
  }
}
