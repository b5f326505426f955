/*
 * The ring of an SRQ (IBA 10.2.9). Programs post receives as to a queue pair's receive queue.
 */
import type { Srq } from '../../../spec/classes/srq.ts'
import { QpState } from '../../../spec/enums.ts'
import { Errno } from '../../../spec/errno.ts'
import { PostQueue } from '../../../spec/session.ts'
import { checkId, checkLocal } from '../arguments/request-checks.ts'
import type { MmapInfo } from '../carrier.ts'
import { checkU32, closedError, injectedError, withOptionNames, withoutObject } from '../error.ts'
import { isSliceOf, type Slice } from '../mr/region.ts'
import type { Shown } from '../objects/show.ts'
import { DROP_RINGS, RELEASED, SHOWN, VerbsObject } from '../objects/verbs-object.ts'
import { checkDevicePresent, type DeviceContext } from '../plan.ts'
import { fullError, tooManySges } from '../qp/queue-pair.ts'
import { putReceive, sgeCountOf } from '../qp/requests.ts'
import {
  nextSlot,
  noProgramRing,
  outstandingRequests,
  type ProgramRing,
  produce,
  producingRing,
  ringOrNone,
} from '../ring.ts'
import { watchedRing } from '../watch/watch.ts'

/** A receive queue that queue pairs share. */
export interface ReceiveQueue {
  /** Capacity in requests. */
  readonly maxWr: number
  /** Number of posted receives that no message has consumed. */
  readonly pending: number
  /** Posts a receive. `id`: wr_id, as `SendOptions.id`. Throws RdmaError ENOMEM when the queue is full. */
  receive(local?: Slice | readonly Slice[], id?: number): void
}

/** The output attributes of `create` that this file uses. */
export interface ReceiveQueueCreateResult {
  readonly maxSge: number
  /** The ring; undefined if the driver provides none. */
  readonly queue?: MmapInfo
}

const CALL = 'srq.receive'

export abstract class ReceiveRing extends VerbsObject implements ReceiveQueue {
  readonly userHandle: number
  readonly #maxSge: number
  /** Undefined if the driver provides no ring, and after the queue or the device is closed. */
  #mmapInfo: MmapInfo | undefined
  #ring: ProgramRing

  constructor(context: DeviceContext, userHandle: number, handle: number, { maxSge, queue }: ReceiveQueueCreateResult) {
    super(context, handle)
    this.userHandle = userHandle
    this.#maxSge = maxSge
    this.#mmapInfo = queue
    this.#ring = watchedRing(context, PostQueue.SHARED, handle, queue, ringOrNone(context.carrier, queue))
  }

  /** `Srq`, or `XrcSrq`, which has the same methods. */
  abstract override get cls(): typeof Srq

  get maxWr(): number {
    return this.#ring.capacity
  }

  get pending(): number {
    return outstandingRequests(this.#ring)
  }

  receive(local?: Slice | readonly Slice[], id = 0): void {
    if (this?.context === undefined) throw withoutObject(CALL)
    checkDevicePresent(CALL, this.context)
    if (!this.isOpen) throw closedError(CALL, 'the queue')
    if (id !== 0) checkId(CALL, id)
    const ring = this.#ring
    const at = nextSlot(ring)
    if (at < 0) {
      // An SRQ lacks the state of a QP, which does not matter for ENOMEM.
      this.context.check?.posts.refused(PostQueue.SHARED, this.handle, id, Errno.ENOMEM, QpState.values.RTS)
      throw fullError(CALL, 'receive', ring.capacity, 'maxWr')
    }
    const fault = this.context.carrier.refusesPost(this.handle, undefined, false, undefined, id, local)
    if (fault !== undefined) throw injectedError(CALL, fault)
    if (sgeCountOf(local) > this.#maxSge) throw tooManySges(CALL, sgeCountOf(local), this.#maxSge, 'maxSge')
    if (local !== undefined && !isSliceOf(local, this.context)) checkLocal(CALL, this.context, local)
    putReceive(ring, at, id, local)
    produce(ring)
  }

  resize(maxWr: number): void {
    checkU32('srq.resize', 'maxWr', maxWr)
    const { carrier } = this.context
    const { out } = withOptionNames({}, () => carrier.call(this.cls, 'modify', this.handle, { maxWr }))
    const { queue } = out as { queue?: MmapInfo }
    if (queue === undefined) return
    // The device has copied the unconsumed WQEs into the new ring.
    if (this.#mmapInfo !== undefined) carrier.release(this.#mmapInfo)
    this.#mmapInfo = queue
    this.#ring = watchedRing(this.context, PostQueue.SHARED, this.handle, queue, producingRing(carrier, queue))
  }

  override [SHOWN](): Shown {
    const { handle, maxWr, pending } = this
    return { handle, maxWr, maxSge: this.#maxSge, pending }
  }

  protected override [RELEASED](): void {
    const { carrier, waiters } = this.context
    waiters.remove(this.userHandle)
    if (this.#mmapInfo !== undefined) carrier.release(this.#mmapInfo)
    this[DROP_RINGS]()
  }

  override [DROP_RINGS](): void {
    this.#mmapInfo = undefined
    this.#ring = noProgramRing(this.context.carrier.layout)
  }
}
