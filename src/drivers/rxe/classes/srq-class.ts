/*
 * Classes `srq` and `xrc_srq` of the soft device: shared receive queues in rings that the program maps (R8, R22; IBA
 * 10.2.9, annex A14).
 *
 * Sizes and the SRQ limit are checked as by Linux's rxe, except that a limit is compared with the new size if the same
 * call has one. A limit at creation is ignored (ibv_create_srq(3)). If a limit is armed above the number of WQEs, the
 * event is raised when the next WQE is taken, as with rxe.
 */
import { driverClass } from '../../../core/devices/driver.ts'
import { affiliate, raiseObjectEvent } from '../../../core/events/events.ts'
import { mmapInfo } from '../../../core/memory/rings.ts'
import type { CallContext, CoreObject } from '../../../core/model.ts'
import { createCause } from '../../../spec/check/causes.ts'
import { Srq, XrcSrq } from '../../../spec/classes/srq.ts'
import { RxeAttributes } from '../../../spec/drivers/rxe.ts'
import { AsyncEventType } from '../../../spec/enums.ts'
import { CallError } from '../../../spec/errno.ts'
import type { In } from '../../../spec/schema/schema.ts'
import { ringMemoryOf } from '../context.ts'
import { createReceiveQueue, resizeReceives } from '../rings/receive-queue.ts'
import { type CqObject, type SrqObject, type SrqState, stateOf, type XrcdObject } from '../state.ts'

const { SRQ_LIMIT_REACHED } = AsyncEventType.values

/** `--torment` may limit a queue to the requested WQEs, although its ring has more slots. */
const limitRequests = (call: CallContext, srq: SrqObject, requests: number): void => {
  if (ringMemoryOf(call.context).mayHideSlots) stateOf(call).torment?.limitShared(srq, requests)
}

/** Completions of a basic SRQ go to the receive CQs of the queue pairs. */
const NO_CQ = -1

const refuse = (object: CoreObject, method: string, reason: string): never => {
  throw new CallError('EINVAL', `${object.class.name}.${method}: attribute ${reason}`)
}

const requireMaxWr = (call: CallContext, object: CoreObject, method: string, maxWr: number): void => {
  const { maxSrqWr } = stateOf(call).limits
  if (maxWr < 1) refuse(object, method, `maxWr: ${maxWr} is below 1`)
  if (maxWr > maxSrqWr) refuse(object, method, `maxWr: ${maxWr} is above ${maxSrqWr}, the device's max_srq_wr`)
}

type CreateArgs = In<typeof Srq.methods.create, CoreObject>

const create = (
  call: CallContext,
  object: SrqObject,
  { pd, maxWr, maxSge, userHandle, asyncFd }: CreateArgs,
  xrcState: Pick<SrqState, 'cq' | 'domain'>,
) => {
  requireMaxWr(call, object, 'create', maxWr)
  const device = stateOf(call)
  const { maxSrqSge } = device.limits
  if (maxSge > maxSrqSge) refuse(object, 'create', `maxSge: ${maxSge} is above ${maxSrqSge}, the device's max_srq_sge`)
  const sges = Math.max(1, maxSge)
  const onLimitReached = (limit: number): void => {
    const cause = createCause('SRQ_LIMIT', { srq: object.handle, limit })
    device.failures.report({ kind: 'event', event: SRQ_LIMIT_REACHED, cause }, object.context)
    raiseObjectEvent(object, SRQ_LIMIT_REACHED)
  }
  const queue = createReceiveQueue(ringMemoryOf(call.context), maxWr, sges, onLimitReached)
  const number = device.srqns.take()
  const slot = device.srqs.add(object)
  device.srqns.bind(number, slot)
  object.state = { number, slot, queue, pd: pd.id, ...xrcState }
  limitRequests(call, object, maxWr)
  affiliate(object, userHandle, { asyncFd })
  return { maxWr: queue.ring.capacity, maxSge: sges, queue: mmapInfo(queue.ring), number }
}

const query = (_call: CallContext, { state: { queue } }: SrqObject) => ({
  maxWr: queue.ring.capacity,
  maxSge: queue.maxSge,
  limit: queue.limit,
})

const modify = (call: CallContext, object: SrqObject, { maxWr, limit }: In<typeof Srq.methods.modify, CoreObject>) => {
  const { queue } = object.state
  if (maxWr !== undefined) {
    requireMaxWr(call, object, 'modify', maxWr)
    if (maxWr < queue.limit) refuse(object, 'modify', `maxWr: ${maxWr} is below the limit, ${queue.limit}`)
  }
  const size = maxWr ?? queue.ring.capacity
  if (limit !== undefined && limit > size)
    refuse(object, 'modify', `limit: ${limit} is above ${size}, the requests that the queue holds`)
  if (maxWr !== undefined) {
    const rings = ringMemoryOf(call.context)
    const old = resizeReceives(rings, queue, maxWr)
    if (old === undefined) return refuse(object, 'modify', `maxWr: ${maxWr} is less than the requests that wait`)
    rings.free(old)
    limitRequests(call, object, maxWr)
  }
  if (limit !== undefined) queue.limit = limit
  return maxWr === undefined ? {} : { queue: mmapInfo(queue.ring) }
}

/** Frees the number and the ring of a destroyed queue. */
const release = (call: CallContext, srq: SrqObject): void => {
  const device = stateOf(call)
  const { state } = srq
  device.taps.requests?.reset(srq)
  device.srqns.free(state.number)
  device.srqs.remove(state.slot)
  ringMemoryOf(call.context).free(state.queue.ring)
}

export const srqClass = driverClass<typeof Srq, SrqState, typeof RxeAttributes.srq>(
  Srq,
  {
    create: (call, object, args) => create(call, object, args, { cq: NO_CQ, domain: undefined }),
    query,
    modify,
    destroy(call, object, args, core) {
      release(call, object)
      return core(call, object, args)
    },
  },
  RxeAttributes.srq,
)

export const xrcSrqClass = driverClass<typeof XrcSrq, SrqState, typeof RxeAttributes.xrc_srq>(
  XrcSrq,
  {
    create(call, object, args) {
      const cq = (args.cq as CqObject).state.number
      const answer = create(call, object, args, { cq, domain: (args.xrcd as XrcdObject).state })
      return { ...answer, srqNum: answer.number }
    },
    query,
    modify,
    destroy(call, object, args, core) {
      stateOf(call).engine().forgetSrq(object.state.number)
      release(call, object)
      return core(call, object, args)
    },
  },
  RxeAttributes.xrc_srq,
)
