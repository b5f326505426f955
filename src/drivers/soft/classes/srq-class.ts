/*
 * Classes `srq` and `xrc_srq` of the soft device: shared receive queues in the driver's format (R8, R22; IBA 10.2.9,
 * annex A14).
 *
 * Sizes and the SRQ limit are checked as by Linux's rxe, except that a limit is compared with the new size if the same
 * call has one. A limit at creation is ignored (ibv_create_srq(3)). If a limit is armed above the number of WQEs, the
 * event is raised when the next WQE is taken, as with rxe.
 */
import { driverClass } from '../../../core/devices/driver.ts'
import type { DriverClass } from '../../../core/driver-contract.ts'
import { affiliate, raiseObjectEvent } from '../../../core/events/events.ts'
import type { CallContext, CoreObject } from '../../../core/model.ts'
import { createCause } from '../../../spec/check/causes.ts'
import { Srq, XrcSrq } from '../../../spec/classes/srq.ts'
import { AsyncEventType } from '../../../spec/enums.ts'
import { callError } from '../../../spec/errno.ts'
import { coded, type Reason, the } from '../../../spec/reason.ts'
import type { In } from '../../../spec/schema/schema.ts'
import type { SharedFormat, SrqCreate } from '../format.ts'
import type { ReceiveQueue } from '../queues.ts'
import { type CqObject, type SrqObject, type SrqState, stateOf, type XrcdObject } from '../state.ts'

const { SRQ_LIMIT_REACHED } = AsyncEventType.values

/** `--torment` may limit a queue to the requested WQEs, although there is room for more. */
const limitRequests = (call: CallContext, srq: SrqObject, requests: number): void => {
  const { exact } = srq.state.queue
  if (exact !== undefined) stateOf(call).torment?.limitShared(srq, exact, requests)
}

/** Completions of a basic SRQ go to the receive CQs of the queue pairs. */
const NO_CQ = -1

/** `about`: the attribute. */
const refuse = (
  object: CoreObject,
  method: string,
  about: 'maxWr' | 'maxSge' | 'limit',
  reason: Reason | string,
): never => {
  throw callError.EINVAL`${the.method(`${object.class.name}.${method}`)}: ${the.attribute(about)}: ${reason}`
}

const requireMaxWr = (call: CallContext, object: CoreObject, method: string, maxWr: number, min = 1): void => {
  const { maxSrqWr } = stateOf(call).limits
  if (maxWr < min) refuse(object, method, 'maxWr', coded('out-of-range')`${maxWr} is below ${min}`)
  if (maxWr > maxSrqWr)
    refuse(object, method, 'maxWr', coded('above-device-limit')`${maxWr} is above ${maxSrqWr}, the device's max_srq_wr`)
}

type QueueObject<Q extends ReceiveQueue> = CoreObject<SrqState<Q>>

const create = <Q extends ReceiveQueue>(
  call: CallContext,
  object: QueueObject<Q>,
  args: SrqCreate,
  format: SharedFormat<Q>,
  xrcState: Pick<SrqState, 'cq' | 'domain'>,
) => {
  const { pd, maxWr, maxSge, userHandle, asyncFd } = args
  format.check?.(object.class.name, args)
  requireMaxWr(call, object, 'create', maxWr, format.minWr)
  const device = stateOf(call)
  const { maxSrqSge } = device.limits
  if (maxSge > maxSrqSge)
    refuse(
      object,
      'create',
      'maxSge',
      coded('above-device-limit')`${maxSge} is above ${maxSrqSge}, the device's max_srq_sge`,
    )
  const onLimitReached = (limit: number): void => {
    const cause = createCause('SRQ_LIMIT', { srq: object.handle, limit })
    device.failures.report({ kind: 'event', event: SRQ_LIMIT_REACHED, cause }, object.context)
    raiseObjectEvent(object, SRQ_LIMIT_REACHED)
  }
  const queue = format.open(call, object.class.name, args, Math.max(1, maxSge), onLimitReached)
  const number = device.srqns.take()
  const slot = device.srqs.add(object)
  device.srqns.bind(number, slot)
  object.state = { number, slot, queue, pd: pd.id, ...xrcState }
  limitRequests(call, object, maxWr)
  affiliate(object, userHandle, { asyncFd })
  return { ...format.answer(args, queue), number }
}

const query = (_call: CallContext, { state: { queue } }: SrqObject) => ({
  maxWr: queue.capacity,
  maxSge: queue.maxSge,
  limit: queue.limit,
})

const modify = <Q extends ReceiveQueue>(
  call: CallContext,
  object: QueueObject<Q>,
  { maxWr, limit }: In<typeof Srq.methods.modify, CoreObject>,
  format: SharedFormat<Q>,
) => {
  const { queue } = object.state
  if (maxWr !== undefined) {
    if (format.resize === undefined) refuse(object, 'modify', 'maxWr', 'the device cannot resize shared receive queues')
    requireMaxWr(call, object, 'modify', maxWr)
    if (maxWr < queue.limit)
      refuse(object, 'modify', 'maxWr', coded('out-of-range')`${maxWr} is below the limit, ${queue.limit}`)
  }
  const size = maxWr ?? queue.capacity
  if (limit !== undefined && limit > size)
    refuse(
      object,
      'modify',
      'limit',
      coded('out-of-range')`${limit} is above ${size}, the requests that the queue holds`,
    )
  if (maxWr !== undefined) {
    if (format.resize?.(call, queue, maxWr) === false)
      refuse(object, 'modify', 'maxWr', `${maxWr} is less than the requests that wait`)
    limitRequests(call, object, maxWr)
  }
  if (limit !== undefined) queue.limit = limit
  return maxWr === undefined ? {} : (format.resized?.(queue) ?? {})
}

/** Frees the number and the queue of a destroyed SRQ. */
const release = <Q extends ReceiveQueue>(call: CallContext, srq: QueueObject<Q>, format: SharedFormat<Q>): void => {
  const device = stateOf(call)
  const { state } = srq
  device.taps.requests?.reset(srq)
  device.srqns.free(state.number)
  device.srqs.remove(state.slot)
  format.close(call, state.queue)
}

export const srqClasses = <Q extends ReceiveQueue>(format: SharedFormat<Q>): readonly DriverClass[] => [
  driverClass<typeof Srq, SrqState<Q>>(
    Srq,
    {
      create: (call, object, args) => create(call, object, args, format, { cq: NO_CQ, domain: undefined }),
      query,
      modify: (call, object, args) => modify(call, object, args, format),
      destroy(call, object, args, core) {
        release(call, object, format)
        return core(call, object, args)
      },
    },
    format.additions.srq,
  ),
  driverClass<typeof XrcSrq, SrqState<Q>>(
    XrcSrq,
    {
      create(call, object, args) {
        const cq = (args.cq as CqObject).state.number
        const domain = (args.xrcd as XrcdObject).state
        const answer = create(call, object, args, format, { cq, domain })
        return { ...answer, srqNum: answer.number }
      },
      query,
      modify: (call, object, args) => modify(call, object, args, format),
      destroy(call, object, args, core) {
        stateOf(call).engine().forgetSrq(object.state.number)
        release(call, object, format)
        return core(call, object, args)
      },
    },
    format.additions.xrc_srq,
  ),
]
