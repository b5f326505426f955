/*
 * Classes `xrc_ini_qp` and `xrc_tgt_qp` of the soft device: differences from qp-class.ts (IBA annex A14; R9).
 *
 * An initiator has an empty receive queue, because rxe's user library maps one for each queue pair without an SRQ. A
 * target is one queue pair of the engine. Every process that has the target's domain open may open the target too, with
 * an object of its own. Each message names its SRQ (`findSrqOfDomain`).
 */
import { driverClass, withoutOptions } from '../../../core/devices/driver.ts'
import type { DriverClass } from '../../../core/driver-contract.ts'
import { affiliate } from '../../../core/events/events.ts'
import type { AnyHandler } from '../../../core/model.ts'
import { XrcIniQp, XrcTgtQp } from '../../../spec/classes/qp/xrc_qp.ts'
import { callError } from '../../../spec/errno.ts'
import { the } from '../../../spec/reason.ts'
import { Service } from '../../../spec/wire/services.ts'
import type { QueueFormat } from '../format.ts'
import { emptyReceiveQueue, emptySendQueue, type FindSrq } from '../queues.ts'
import {
  noPsns,
  type QpObject,
  type QueuePair,
  type SoftState,
  type SrqState,
  stateOf,
  type XrcdObject,
} from '../state.ts'
import { endQueuePair, qpClass, UNSUPPORTED_ATTRIBUTES } from './qp-class.ts'

/** The state of a target. All objects that have the target open share it. */
interface Target extends QueuePair {
  readonly domain: XrcdObject['state']
  openers: readonly QpObject[]
}

// ---- initiators ----

const xrcIniQpClass = (format: QueueFormat): DriverClass => {
  const initiator = qpClass(XrcIniQp, 'XRC_INI', Service.XRC_INI, format)
  const createInitiator = initiator.handlers.create as AnyHandler
  return {
    ...initiator,
    handlers: {
      ...initiator.handlers,
      create(call, object, args, core) {
        // Class xrc_ini_qp has no recvCq, but qp-class.ts needs one.
        const cap = { ...(args.cap as Record<string, number>), maxRecvWr: 0, maxRecvSge: 0 }
        return createInitiator(call, object, { ...args, cap, recvCq: args.sendCq }, core)
      },
    },
  }
}

// ---- targets ----

/** The receive queue of a target before its first message; `selectShared` (queues.ts) replaces it. */
const NO_RECEIVES = { ...emptyReceiveQueue, isShared: true }

const createTarget = (device: SoftState, domain: Target['domain'], opener: QpObject): Target => {
  const qpn = device.qpns.take()
  const row = device.engine().create({
    service: Service.XRC_TGT,
    qpn,
    pd: 0, // each message has the protection domain and the CQ of its SRQ
    sendCq: -1,
    recvCq: -1,
    maxSendSge: 0,
    maxRecvSge: device.limits.maxSrqSge,
    hasSrq: true,
    sqSigAll: false,
    owner: opener.context?.account?.payer,
  })
  device.qpns.bind(qpn, row)
  const created: Target = {
    row,
    qpn,
    send: emptySendQueue,
    receive: NO_RECEIVES,
    destinations: undefined,
    attributeBits: 0,
    address: undefined,
    firstPsns: noPsns,
    heldGid: -1,
    flow: -1,
    domain,
    openers: [opener],
  }
  device.queues[row] = created
  return created
}

const openTarget = (device: SoftState, domain: Target['domain'], opener: QpObject, qpn: number): Target => {
  const known = device.qps[device.qpns.rowOf(qpn)]?.state as Target | undefined
  if (known?.domain === domain) {
    known.openers = [...known.openers, opener]
    return known
  }
  throw callError.EINVAL`${the.method('xrc_tgt_qp.create')}: ${the.attribute('qpNum')}: ${qpn} is not a target queue pair of this domain`
}

const target = driverClass<typeof XrcTgtQp, QueuePair>(XrcTgtQp, {
  create(call, object, { xrcd, qpNum, userHandle, asyncFd }) {
    const device = stateOf(call)
    const { state: domain } = xrcd as XrcdObject
    const opener = object as QpObject
    const opened =
      qpNum === undefined ? createTarget(device, domain, opener) : openTarget(device, domain, opener, qpNum)
    device.qps[opened.row] ??= opener
    object.state = opened
    affiliate(object, userHandle, { asyncFd })
    return { qpNum: opened.qpn }
  },

  destroy(call, object, args, core) {
    const device = stateOf(call)
    const opened = object.state as Target
    opened.openers = opened.openers.filter(opener => opener !== object)
    // The last opener is the queue pair's object until its end, which is reported.
    if (opened.openers.length === 0) endQueuePair(call, device, opened)
    else device.qps[opened.row] = opened.openers[0]
    return core(call, object, args)
  },
})

const xrcTgtQpClass = (format: QueueFormat): DriverClass => {
  const { modify, query } = qpClass(XrcTgtQp, 'XRC_TGT', Service.XRC_TGT, format).handlers
  return withoutOptions({ ...target, handlers: { ...target.handlers, modify, query } }, UNSUPPORTED_ATTRIBUTES)
}

export const xrcQpClasses = (format: QueueFormat): readonly DriverClass[] => [
  xrcIniQpClass(format),
  xrcTgtQpClass(format),
]

/** The SRQ that an XRC packet names; undefined unless it belongs to the target's domain. */
export const findSrqOfDomain =
  ({ srqns, srqs, qps }: SoftState): FindSrq =>
  (row, srqn): SrqState | undefined => {
    const slot = srqns.rowOf(srqn)
    const srq = slot < 0 ? undefined : srqs.get(slot).state
    return srq?.domain !== undefined && srq.domain === qps[row]?.state.domain ? srq : undefined
  }
