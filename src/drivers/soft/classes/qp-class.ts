/*
 * Queue pairs of the soft device: the class of one type (R9, R19, R22).
 *
 * The handlers check transitions with the table of spec/qp-states.ts and values against the device's limits. The engine
 * executes transitions. Address vectors become flows of the port. Attributes that the engine does not keep are stored
 * for `query`.
 */
import { driverClass, withoutOptions } from '../../../core/devices/driver.ts'
import { type GidTable, holdGid, releaseGid } from '../../../core/devices/gids.ts'
import type { DriverClass } from '../../../core/driver-contract.ts'
import { affiliate } from '../../../core/events/events.ts'
import { unbindWindowsOf } from '../../../core/memory/windows.ts'
import type { CallContext, Limit } from '../../../core/model.ts'
import { addTo, requireShare } from '../../../core/objects/limits.ts'
import { RcQp } from '../../../spec/classes/qp/rc_qp.ts'
import { UcQp } from '../../../spec/classes/qp/uc_qp.ts'
import { QpFlags, QpState } from '../../../spec/enums.ts'
import { CallError, callError, codedError } from '../../../spec/errno.ts'
import { MAX_MTU_BYTES, mtuBytes, mtuEnum } from '../../../spec/mtu.ts'
import { checkTransition, isTransition, type QpTypeName } from '../../../spec/qp-states.ts'
import { because, coded, outOfRange, type Reason, the } from '../../../spec/reason.ts'
import type { ObjectClass } from '../../../spec/schema/schema.ts'
import { Service } from '../../../spec/wire/services.ts'
import { createDestinations, type Destinations } from '../address/destinations.ts'
import { NO_VLAN, storedAddress } from '../address/path.ts'
import { forgetFailing } from '../completions.ts'
import type { QueueFormat } from '../format.ts'
import { openQueues, resetQueues } from '../queues.ts'
import {
  type AnyQp,
  AttributeBits,
  type CqObject,
  noPsns,
  noteQpEnd,
  type QpModify,
  type QueuePair,
  type SoftState,
  type SrqObject,
  stateOf,
} from '../state.ts'

const { RESET, INIT, RTR, RTS } = QpState.values

/** Throws CallError EINVAL. `method` begins the message. */
const refuse = (method: string, reason: Reason | string): never => {
  throw callError.EINVAL`${the.method(method)}: ${reason}`
}

const requireInRange = (method: string, name: string, value: number, max: number, min = 0): void => {
  if (value < min || value > max) throw new CallError('EINVAL', outOfRange(method, name, value, min, max))
}

/** Closes the port's flow to the peer, if it is open. */
const closePath = (device: SoftState, state: QueuePair): void => {
  if (state.flow >= 0) device.port.closeFlow(state.flow)
  state.flow = -1
}

/** The queue pair uses the GID at `index` from now on, and no longer its previous one; -1: none. */
export const useGid = (gids: GidTable, state: QueuePair, index: number): void => {
  // First the new one: it may be the same.
  if (index >= 0) holdGid(gids, index)
  if (state.heldGid >= 0) releaseGid(gids, state.heldGid)
  state.heldGid = index
}

/** An administrator's traffic class takes the place of the given one: in arguments too, which are recorded. */
const overrideClass = ({ device }: CallContext, args: QpModify, address: { trafficClass: number }): void => {
  const trafficClass = device.taps.trafficClass?.()
  if (trafficClass === undefined) return
  address.trafficClass = trafficClass
  if (args.address !== undefined) Object.assign(args.address, { trafficClass })
}

const budgetOf = ({ device }: CallContext): Limit | undefined => device.limits.get('max_res_rd_atom')

/** Throws CallError EINVAL if the device has not so many responder resources left for the queue pair. */
const requireResponses = (call: CallContext, { responses }: QueuePair, method: string, count: number): void => {
  const budget = budgetOf(call)
  const more = count - (responses?.count ?? 0)
  const account = responses === undefined ? call.context.account : responses.account
  if (budget !== undefined && more > 0)
    requireShare(budget, account, because`${the.method(method)}: device ${call.device.name}`, more)
}

/** The queue pair has so many responder resources from now on. */
const takeResponses = (call: CallContext, state: QueuePair, count: number): void => {
  const budget = budgetOf(call)
  if (budget === undefined) return
  const { account, count: before } = state.responses ?? { account: call.context.account, count: 0 }
  addTo(budget, account, count - before)
  state.responses = { account, count }
}

/** Sends the responses that are due, and destroys the queue pair in the engine and the device. */
export const endQueuePair = (call: CallContext, device: SoftState, state: QueuePair): void => {
  const {
    why,
    device: { ports },
  } = call
  takeResponses(call, state, 0)
  const { row, qpn } = state
  useGid(ports[0]!.gids, state, -1)
  const object = device.qps[row]
  if (state.address !== undefined) noteQpEnd(device, qpn, why, object?.context)
  device.sendResponses(row)
  device.engine().destroy(row)
  device.failures.forget(row)
  device.inError.delete(qpn)
  forgetFailing(device, qpn)
  if (object !== undefined) device.taps.requests?.reset(object)
  device.qpns.free(qpn)
  device.qps[row] = undefined
  device.queues[row] = undefined
  closePath(device, state)
}

const addDatagramRow = ({ datagramRows }: SoftState, { pd }: Destinations, row: number): void => {
  const rows = datagramRows.get(pd) ?? new Set()
  datagramRows.set(pd, rows.add(row))
}

const removeDatagramRow = ({ datagramRows }: SoftState, { pd }: Destinations, row: number): void => {
  const rows = datagramRows.get(pd)
  rows?.delete(row)
  if (rows?.size === 0) datagramRows.delete(pd)
}

/** `activeMtu`: the largest path MTU that the interface allows now (`Mtu`). */
const checkValues = (method: string, args: QpModify, activeMtu: number, { pkeys, limits }: SoftState): void => {
  const { maxRdAtomic } = limits
  if (args.port !== undefined) requireInRange(method, 'port', args.port, 1, 1)
  if (args.pkeyIndex !== undefined) requireInRange(method, 'pkeyIndex', args.pkeyIndex, pkeys.length - 1)
  if (args.maxRdAtomic !== undefined) requireInRange(method, 'maxRdAtomic', args.maxRdAtomic, maxRdAtomic)
  if (args.maxDestRdAtomic !== undefined) requireInRange(method, 'maxDestRdAtomic', args.maxDestRdAtomic, maxRdAtomic)
  if (args.pathMtu === undefined) return
  // What is no number of enum ibv_mtu has no bytes.
  if (args.pathMtu < 1 || args.pathMtu > mtuEnum(MAX_MTU_BYTES))
    requireInRange(method, 'pathMtu', args.pathMtu, activeMtu, 1)
  else if (args.pathMtu > activeMtu) {
    const [bytes, most] = [mtuBytes(args.pathMtu), mtuBytes(activeMtu)]
    const range = coded(
      'out-of-range',
    )`${args.pathMtu} (${bytes} bytes) is not in 1 to ${activeMtu} (256 to ${most} bytes)`
    refuse(method, because`${the.attribute('pathMtu')}: ${range}: the MTU of the port's interface allows no more`)
  }
}

/** The attributes for the engine, which ignores undefined ones. `defaultMtu`: bytes. */
const engineAttributes = (args: QpModify, path: { flow: number; peer: number } | undefined, defaultMtu?: number) => ({
  destQpn: args.destQpn,
  rqPsn: args.rqPsn,
  sqPsn: args.sqPsn,
  pathMtu: args.pathMtu === undefined ? defaultMtu : mtuBytes(args.pathMtu),
  timeout: args.timeout,
  retryCnt: args.retryCnt,
  rnrRetry: args.rnrRetry,
  minRnrTimer: args.minRnrTimer,
  maxRdAtomic: args.maxRdAtomic,
  maxDestRdAtomic: args.maxDestRdAtomic,
  access: args.accessFlags,
  pkeyIndex: args.pkeyIndex,
  qkey: args.qkey,
  flow: path?.flow,
  peer: path?.peer,
})

/** Stores attributes that the engine does not keep. */
const recordAttributes = (state: QueuePair, { port, enSqdAsyncNotify, sqPsn, rqPsn }: QpModify): void => {
  const { sq, rq } = state.firstPsns
  if (sqPsn !== undefined || rqPsn !== undefined) state.firstPsns = { sq: sqPsn ?? sq, rq: rqPsn ?? rq }
  if (port !== undefined) state.attributeBits |= AttributeBits.PORT
  if (enSqdAsyncNotify !== undefined)
    state.attributeBits = enSqdAsyncNotify
      ? state.attributeBits | AttributeBits.SQD_EVENT
      : state.attributeBits & ~AttributeBits.SQD_EVENT
}

/** Throws CallError EINVAL for an illegal transition, and for missing or illegal attributes. */
const checkTransitionAttributes = (
  type: QpTypeName,
  before: number,
  after: number,
  args: QpModify,
  method: string,
): void => {
  if (isTransition(type, before, after, args)) return
  const names = Object.keys(args).filter(name => args[name as keyof QpModify] !== undefined)
  const reason = checkTransition(type, before, after, names, args.curState)
  if (reason !== undefined) refuse(method, reason)
}

/** Attributes that `modify` refuses for all types, with the reason. */
export const UNSUPPORTED_ATTRIBUTES = { alternatePath: 'the device has no automatic path migration', ...NO_VLAN }

/** The attributes of all types. */
const attributesOf = (device: SoftState, state: QueuePair): Record<string, unknown> => {
  device.catchUp(state.row)
  const { send, receive, attributeBits } = state
  const current = device.engine().query(state.row)
  return {
    state: current.state,
    curState: current.state,
    enSqdAsyncNotify: attributeBits & AttributeBits.SQD_EVENT ? 1 : 0,
    accessFlags: current.access,
    pkeyIndex: current.pkeyIndex,
    port: attributeBits & AttributeBits.PORT ? 1 : 0,
    qkey: current.qkey,
    ...device.paths.answer(state.address ?? device.paths.none),
    pathMtu: mtuEnum(current.pathMtu),
    timeout: current.timeout,
    retryCnt: current.retryCnt,
    rnrRetry: current.rnrRetry,
    rqPsn: current.rqPsn,
    maxRdAtomic: current.maxRdAtomic,
    ...device.paths.noAlternate(),
    minRnrTimer: current.minRnrTimer,
    sqPsn: current.sqPsn,
    maxDestRdAtomic: current.maxDestRdAtomic,
    pathMigState: 0,
    destQpn: current.destQpn,
    cap: {
      maxSendWr: send.capacity,
      maxRecvWr: receive.isShared ? 0 : receive.capacity,
      maxSendSge: send.maxSge,
      maxRecvSge: receive.isShared ? 0 : receive.maxSge,
      maxInlineData: send.maxInline,
    },
    sqDraining: current.isDraining ? 1 : 0,
    sqSigAll: current.sqSigAll ? 1 : 0,
  }
}

/** The driver class of one type of queue pair. The handlers are typed for all attributes (`AnyQp`), `cls` has fewer. */
export const qpClass = (
  cls: ObjectClass,
  type: QpTypeName,
  service: number,
  format: QueueFormat,
  takeQpn = ({ qpns }: SoftState): number => qpns.take(),
): DriverClass => {
  // paths are those of an initiator's requests, and of a target's peers
  const hasPath = type !== 'DCI' && type !== 'DCT'
  const createCall = `${cls.name}.create`
  const modifyCall = `${cls.name}.modify`
  const driverQpClass = driverClass<AnyQp, QueuePair>(cls as AnyQp, {
    create(call, object, args) {
      const { pd, sendCq, recvCq, cap, flags, userHandle, asyncFd } = args
      const srq = args.srq as SrqObject | undefined
      const device = stateOf(call)
      const { limits } = device
      const sizes = format.sizesOf(createCall, args)
      // a format may have room for more requests and elements than were asked for
      requireInRange(createCall, 'cap.maxSendWr', Math.min(cap.maxSendWr, sizes.maxSendWr), limits.maxQpWr)
      requireInRange(createCall, 'cap.maxSendSge', Math.min(cap.maxSendSge, sizes.maxSendSge), limits.maxSge)
      if (srq === undefined) {
        requireInRange(createCall, 'cap.maxRecvWr', Math.min(cap.maxRecvWr, sizes.maxRecvWr), limits.maxQpWr)
        requireInRange(createCall, 'cap.maxRecvSge', sizes.maxRecvSge, limits.maxRecvSge ?? limits.maxSge)
      }
      const maxInline = format.inlineLimit?.(limits.maxInline, sizes) ?? limits.maxInline
      if (sizes.maxInlineData > maxInline) {
        const reason = outOfRange(createCall, 'cap.maxInlineData', sizes.maxInlineData, 0, maxInline)
        throw codedError('EINVAL', 'unknown-limit')`${reason}`
      }
      const sqSigAll = ((flags ?? 0) & QpFlags.values.SQ_SIG_ALL) !== 0
      // from here on only `open` can fail, so nothing has to be undone
      const destinations =
        service === Service.UD
          ? createDestinations(device.ahs, device.port, device.paths, pd.id, device.releasedFlows)
          : undefined
      const shared = srq?.state.queue
      const opened = format.open(call, args, { className: cls.name, sizes, shared, destinations })
      const qpn = takeQpn(device)
      if (destinations !== undefined && device.paths.hasOwnFlows) destinations.qpn = qpn
      const { send, receive } = opened
      device.torment?.limitQueues(object, opened, qpn, cap)
      const row = device.engine().create({
        service,
        qpn,
        pd: pd.id,
        sendCq: (sendCq as CqObject).state.number,
        recvCq: (recvCq as CqObject).state.number,
        maxSendSge: send.maxSge,
        maxRecvSge: receive.maxSge,
        hasSrq: receive.isShared,
        recvPd: srq?.state.pd,
        sqSigAll,
        owner: call.context?.account?.payer,
      })
      device.qpns.bind(qpn, row)
      // an object from spread syntax takes more memory
      object.state = {
        row,
        qpn,
        owner: call.context,
        send,
        receive,
        destinations,
        attributeBits: 0,
        address: undefined,
        firstPsns: noPsns,
        heldGid: -1,
        flow: -1,
      }
      device.qps[row] = object
      device.queues[row] = object.state
      format.opened?.(call, args, qpn, opened)
      if (destinations !== undefined) addDatagramRow(device, destinations, row)
      device.addQueues(row)
      affiliate(object, userHandle, { asyncFd })
      return format.answer(args, qpn, send, receive)
    },

    query(call, { state }) {
      const attributes = attributesOf(stateOf(call), state)
      const { out } = cls.methods.query
      return Object.fromEntries(Object.entries(attributes).filter(([name]) => name in out)) as never
    },

    modify(call, object, args) {
      const device = stateOf(call)
      const { state } = object
      device.catchUp(state.row)
      const before = device.engine().stateOf(state.row)
      const after = args.state ?? before
      // Linux looks the GID up before it checks the transition (test/fixtures/abi/objects.abilog)
      const { paths } = device
      const address = hasPath ? paths.given(args) : undefined
      if (address !== undefined) paths.check(address, modifyCall)
      if (address !== undefined && !state.sendsGivenHops) overrideClass(call, args, address)
      checkTransitionAttributes(type, before, after, args, modifyCall)
      const { activeMtu } = call.device.ports[0].attributes
      checkValues(modifyCall, args, activeMtu, device)
      if (address !== undefined) format.checkPath?.(modifyCall, address)
      const { maxDestRdAtomic } = args
      if (maxDestRdAtomic !== undefined) requireResponses(call, state, modifyCall, maxDestRdAtomic)
      let path: { flow: number; peer: number } | undefined
      if (address !== undefined) {
        const { destQpn = device.engine().query(state.row).destQpn } = args
        const hopLimit = state.sendsGivenHops ? address.hopLimit : paths.hopLimitOf(address)
        const owner = { ecn: device.ecn, qpn: state.qpn, destQpn, hopLimit }
        const flow = paths.open(address, modifyCall, owner)
        closePath(device, state)
        state.flow = flow
        useGid(call.device.ports[0].gids, state, paths.gidIndexOf(address))
        state.address = storedAddress(device, address, args.dmac, hopLimit)
        path = { flow, peer: paths.peerOf(address) }
      }
      if (maxDestRdAtomic !== undefined) takeResponses(call, state, maxDestRdAtomic)
      // before the engine's transition, which may send an event that these attributes enable
      recordAttributes(state, args)
      // UD and RAW have no path MTU attribute: a message may fill a packet of the active MTU
      const hasMtu = service !== Service.UD && service !== Service.RAW
      const defaultMtu = hasMtu ? undefined : mtuBytes(activeMtu)
      if (after === RESET) device.sendResponses(state.row)
      device.engine().modify(state.row, after, engineAttributes(args, path, defaultMtu))
      if (after === RTR) device.qpEnds.delete(state.qpn)
      if (args.sqPsn !== undefined && after === RTS) device.failures.connected(state.row)
      if (before === INIT && after === RTR) device.taps.requests?.beginsToReceive(device.qps[state.row] ?? object)
      if (after === RESET) {
        if (state.address !== undefined) noteQpEnd(device, state.qpn, 'reset', call.context)
        closePath(device, state)
        takeResponses(call, state, 0)
        state.attributeBits = 0
        state.address = undefined
        state.firstPsns = noPsns
        resetQueues(state)
        device.taps.requests?.reset(device.qps[state.row] ?? object)
        state.destinations?.close()
        device.failures.forget(state.row)
        forgetFailing(device, state.qpn)
      } else if (args.state !== undefined) openQueues(state)
      device.recheck(state.row)
      return {}
    },

    destroy(call, object, args, core) {
      const device = stateOf(call)
      const { state } = object
      // if the process has ended or the device is removed, sends need not complete
      if (call.why === 'call') device.catchUp(state.row)
      endQueuePair(call, device, state)
      unbindWindowsOf(call.device.memory, state.qpn)
      if (state.destinations !== undefined) {
        removeDatagramRow(device, state.destinations, state.row)
        state.destinations.close()
      }
      format.close(call, state.qpn, state)
      return core(call, object, args)
    },

    postSend: format.hasPostCall
      ? (call, { state }, { wrCount }) => {
          if (wrCount)
            throw callError.EINVAL`${the.method(`${cls.name}.postSend`)}: ${wrCount} requests in the call: post them in the mapped queue`
          stateOf(call).recheck(state.row)
          return { badWr: 0 }
        }
      : null,
  })
  const { postSend: _, ...others } = driverQpClass.handlers
  const handlers = 'postSend' in cls.methods ? driverQpClass.handlers : others
  return withoutOptions({ ...driverQpClass, handlers, additions: format.additions }, UNSUPPORTED_ATTRIBUTES)
}

/** RC and UC. Other types have their own files. */
export const connectedQpClasses = (format: QueueFormat): readonly DriverClass[] => [
  qpClass(RcQp, 'RC', Service.RC, format),
  qpClass(UcQp, 'UC', Service.UC, format),
]
