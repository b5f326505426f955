/*
 * Queue pairs of EFA: UD, and SRD as `driver_qp` (R9, R19, R22). Transitions follow the table of spec/qp-states.ts.
 */
import { driverClass } from '../../core/devices/driver.ts'
import type { DriverClass } from '../../core/driver-contract.ts'
import { affiliate } from '../../core/events/events.ts'
import type { CallContext } from '../../core/model.ts'
import { DriverQp } from '../../spec/classes/qp/driver_qp.ts'
import { QpTypes } from '../../spec/classes/qp/qp.ts'
import { UdQp } from '../../spec/classes/qp/ud_qp.ts'
import { EFA_SRD, EfaAttributes, EfaQpFlags } from '../../spec/drivers/efa.ts'
import { InlineBytes, ReceiveDescriptor, SEND_SIZES } from '../../spec/drivers/efa-queues.ts'
import { QpFlags, QpState } from '../../spec/enums.ts'
import { callError } from '../../spec/errno.ts'
import { checkTransition } from '../../spec/qp-states.ts'
import { the } from '../../spec/reason.ts'
import { addressText } from '../../transport/wire/address.ts'
import { Limits } from './attributes.ts'
import { powerOfTwo, requireInRange } from './classes.ts'
import { stateOf } from './device-state.ts'
import { allocateQueue, doorbellOffset, freeQueue, pageKey } from './doorbells.ts'
import { failQueuePair, resetQueuePair } from './engine.ts'
import { ENDLESS } from './engine-common.ts'
import { NOT_SCANNED } from './scan.ts'
import type { CqObject, QueuePair, ReceiveQueue, SendQueue } from './state.ts'

const { RESET, ERR } = QpState.values

type AnyQp = typeof DriverQp
interface CreateArguments {
  readonly cap: QueuePair['cap']
  readonly receiveRingBytes?: number
  readonly sendRingBytes?: number
}

/** Creates the send queue; undefined for one without requests. */
const createSends = (
  call: CallContext,
  method: string,
  { cap, sendRingBytes }: CreateArguments,
  hasLongIds: boolean,
): SendQueue | undefined => {
  const depth = powerOfTwo(cap.maxSendWr)
  if (cap.maxSendWr === 0) return undefined
  const bytes = sendRingBytes === undefined ? SEND_SIZES[0] : sendRingBytes / depth
  if (bytes !== 64 && bytes !== 128)
    throw callError.EINVAL`${the.method(method)}: a ring of ${sendRingBytes} bytes for ${depth} sends; a send has ${SEND_SIZES.join(' or ')} bytes`
  if (cap.maxInlineData > InlineBytes[bytes])
    throw callError.EINVAL`${the.method(method)}: ${the.attribute('cap.maxInlineData')}: ${cap.maxInlineData} is above ${InlineBytes[bytes]}`
  return { ...allocateQueue(call, depth * bytes), depth, bytes, hasLongIds, taken: 0 }
}

/** Creates the receive queue; undefined for one without requests. */
const createReceives = (
  call: CallContext,
  method: string,
  { cap, receiveRingBytes }: CreateArguments,
): ReceiveQueue | undefined => {
  if (cap.maxRecvWr === 0) return undefined
  const depth = powerOfTwo(cap.maxRecvWr * Math.max(cap.maxRecvSge, 1))
  const bytes = depth * ReceiveDescriptor.BYTES
  if (receiveRingBytes !== undefined && receiveRingBytes !== bytes)
    throw callError.EINVAL`${the.method(method)}: a ring of ${receiveRingBytes} bytes for receives; it has ${bytes}`
  return { ...allocateQueue(call, bytes), depth, taken: 0, seenDoorbell: 0 }
}

const checkCap = (
  method: string,
  { maxSendWr, maxRecvWr, maxSendSge, maxRecvSge, maxInlineData }: QueuePair['cap'],
) => {
  requireInRange(method, 'cap.maxSendWr', maxSendWr, 0, Limits.maxSends)
  requireInRange(method, 'cap.maxRecvWr', maxRecvWr, 0, Limits.maxReceives)
  requireInRange(method, 'cap.maxSendSge', maxSendSge, 0, Limits.maxSendSges)
  requireInRange(method, 'cap.maxRecvSge', maxRecvSge, 0, Limits.maxReceiveSges)
  requireInRange(method, 'cap.maxInlineData', maxInlineData, 0, Limits.inlineBytesExtended)
}

const qpClass = (cls: typeof DriverQp | typeof UdQp): DriverClass => {
  const isReliable = cls.name === DriverQp.name
  const createCall = `${cls.name}.create`
  const type = QpTypes[cls.name as 'driver_qp' | 'ud_qp']
  return driverClass<AnyQp, QueuePair, typeof EfaAttributes.driver_qp>(
    cls as AnyQp,
    {
      create(call, object, args) {
        const { pd, sendCq, recvCq, cap, flags = 0, userHandle, asyncFd, srq } = args
        const { driverQpType = EFA_SRD, qpFlags = 0 } = args
        const state = stateOf(call)
        if (srq !== undefined)
          throw callError.EINVAL`${the.method(createCall)}: the device has no shared receive queues`
        if (driverQpType !== EFA_SRD)
          throw callError.EOPNOTSUPP`${the.method(createCall)}: the device has no type ${driverQpType}`
        checkCap(createCall, cap)
        const send = createSends(call, createCall, args, (qpFlags & EfaQpFlags.REQUEST_ID_64) !== 0)
        let receive: ReceiveQueue | undefined
        try {
          receive = createReceives(call, createCall, args)
        } catch (error) {
          if (send !== undefined) freeQueue(call, send)
          throw error
        }
        const qpn = state.qpns.take()
        if (qpn === undefined) {
          for (const queue of [send, receive]) if (queue !== undefined) freeQueue(call, queue)
          throw callError.ENOMEM`${the.method(createCall)}: all ${Limits.maxQp - 1} numbers are in use`
        }
        object.state = {
          qpn,
          source: { qpn, address: state.gid, text: addressText(state.gid) },
          pd: pd.id,
          owner: call.context?.account?.payer ?? 0,
          object,
          isReliable,
          sendCq: sendCq as CqObject,
          receiveCq: recvCq as CqObject,
          send,
          receive,
          takesUnsolicitedWrites: (qpFlags & EfaQpFlags.UNSOLICITED_WRITE_RECEIVE) !== 0,
          cap: { ...cap },
          sqSigAll: (flags & QpFlags.values.SQ_SIG_ALL) !== 0,
          state: RESET,
          qkey: 0,
          sqPsn: 0,
          rnrRetry: ENDLESS,
          enSqdAsyncNotify: 0,
          hasPort: false,
          nextMessage: 1,
          loaded: 0,
          ended: new Map(),
          active: new Map(),
          reads: new Map(),
          waiters: new Set(),
          pairs: new Map(),
          sources: new Map(),
          ...NOT_SCANNED,
        }
        state.qps.set(qpn, object)
        state.turns.join(object.state.owner)
        state.scan.add(object, [send?.doorbell, receive?.doorbell])
        affiliate(object, userHandle, { asyncFd })
        return {
          cap: object.state.cap,
          qpNum: qpn,
          ...(receive !== undefined && {
            receiveDoorbellOffset: doorbellOffset(receive.doorbell),
            receiveDoorbellKey: pageKey(receive.doorbell),
            receiveRingKey: BigInt(receive.ring.offset),
            receiveRingSize: BigInt(receive.ring.length),
          }),
          ...(send !== undefined && {
            sendDoorbellOffset: doorbellOffset(send.doorbell),
            sendDoorbellKey: pageKey(send.doorbell),
            sendRingOffset: 0,
            sendRingKey: BigInt(send.ring.offset),
          }),
          sendSubCq: 0,
          receiveSubCq: 0,
        }
      },

      query(_call, { state: qp }) {
        const attributes = {
          state: qp.state,
          curState: qp.state,
          enSqdAsyncNotify: qp.enSqdAsyncNotify,
          pkeyIndex: 0,
          port: qp.hasPort ? 1 : 0,
          qkey: qp.qkey,
          sqPsn: qp.sqPsn,
          rnrRetry: qp.rnrRetry,
          cap: qp.cap,
          sqDraining: 0,
          sqSigAll: qp.sqSigAll ? 1 : 0,
        }
        const { out } = cls.methods.query
        return Object.fromEntries(Object.entries(attributes).filter(([name]) => name in out)) as typeof attributes
      },

      modify(call, { state: qp }, args) {
        const efa = stateOf(call)
        const after = args.state ?? qp.state
        const names = Object.keys(args).filter(name => args[name as keyof typeof args] !== undefined)
        const reason = checkTransition(type, qp.state, after, names, args.curState)
        if (reason !== undefined) throw callError.EINVAL`${the.method(`${cls.name}.modify`)}: ${reason}`
        if (args.port !== undefined && args.port !== 1)
          throw callError.EINVAL`${the.method(`${cls.name}.modify`)}: ${the.attribute('port')}: ${args.port}: the device has port 1`
        if (args.pkeyIndex !== undefined && args.pkeyIndex !== 0)
          throw callError.EOPNOTSUPP`${the.method(`${cls.name}.modify`)}: ${the.attribute('pkeyIndex')}: ${args.pkeyIndex}: the device has index 0`
        const before = qp.state
        qp.state = after
        qp.hasPort ||= args.port !== undefined
        qp.qkey = args.qkey ?? qp.qkey
        qp.sqPsn = args.sqPsn ?? qp.sqPsn
        qp.rnrRetry = args.rnrRetry ?? qp.rnrRetry
        qp.enSqdAsyncNotify = args.enSqdAsyncNotify ?? qp.enSqdAsyncNotify
        efa.scan.recheck(qp.object)
        if (after === RESET) resetQueuePair(efa, qp)
        if (after === ERR && before !== ERR) failQueuePair(efa, qp)
        return {}
      },

      destroy(call, object, args, core) {
        const { state: qp } = object
        const efa = stateOf(call)
        const { qps, qpns, scan, turns } = efa
        resetQueuePair(efa, qp)
        qps.delete(qp.qpn)
        turns.leave(qp.owner)
        scan.remove(object)
        qpns.give(qp.qpn)
        for (const queue of [qp.send, qp.receive]) if (queue !== undefined) freeQueue(call, queue)
        return core(call, object, args)
      },
    },
    EfaAttributes.driver_qp,
  )
}

/** The class without methods that the device does not have. */
const without = (cls: DriverClass, ...methods: readonly string[]): DriverClass => ({
  ...cls,
  handlers: { ...cls.handlers, ...Object.fromEntries(methods.map(name => [name, null])) },
})

/** There are neither multicast groups nor a doorbell call. */
export const udClass = without(qpClass(UdQp), 'attachMcast', 'detachMcast', 'postSend')
export const srdClass = without(qpClass(DriverQp), 'postSend')
