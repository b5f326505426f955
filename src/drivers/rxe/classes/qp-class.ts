/*
 * Queue pairs of the soft device: create, modify, query and destroy for all types, and a factory for the class of one
 * type (R9, R19, R22).
 *
 * spec/qp-states.ts has the attributes that a transition needs and allows, a type's class has the attributes of the
 * type, and the engine executes. This file checks values against the device's limits, turns address vectors into flows
 * of the port, and stores attributes that the engine does not keep, for `query`.
 */
import { driverClass, withoutOptions } from '../../../core/devices/driver.ts'
import { affiliate } from '../../../core/events/events.ts'
import { unbindWindowsOf } from '../../../core/memory/windows.ts'
import type { Context, DriverClass } from '../../../core/model.ts'
import { RcQp } from '../../../spec/classes/qp/rc_qp.ts'
import { UcQp } from '../../../spec/classes/qp/uc_qp.ts'
import { QpQueues } from '../../../spec/drivers/rxe.ts'
import { RingSge } from '../../../spec/drivers/rxe-rings.ts'
import { QpFlags, QpState } from '../../../spec/enums.ts'
import { CallError } from '../../../spec/errno.ts'
import { checkTransition, isTransition, type QpTypeName } from '../../../spec/qp-states.ts'
import type { In, ObjectClass, Out } from '../../../spec/schema/schema.ts'
import { Service } from '../../../spec/wire/services.ts'
import { createDestinations, type Destinations } from '../address/destinations.ts'
import {
  addressAnswer,
  copyAddress,
  flowAddress,
  NO_VLAN,
  noAddress,
  openPath,
  sourceOf,
  storedAddress,
} from '../address/path.ts'
import type { QueueLimits } from '../attributes.ts'
import { type MmapInfo, mmapInfo, ringsOf } from '../context.ts'
import { createReceiveQueue, emptyReceiveQueue, type ReceiveQueue } from '../rings/receive-queue.ts'
import { createSendQueue, emptySendQueue, type QpRings, resetRings, type SendQueue } from '../rings/work-source.ts'
import {
  type AnyQp,
  AttributeBits,
  type CqObject,
  type QpModify,
  type QueuePair,
  type RxeState,
  type SrqObject,
  stateOf,
} from '../state.ts'

type Methods = AnyQp['methods']

const { RESET, ERR } = QpState.values

const refuse = (where: string, reason: string): never => {
  throw new CallError('EINVAL', `${where}: ${reason}`)
}

const within = (where: string, name: string, value: number, max: number, min = 0): void => {
  if (value < min || value > max) refuse(where, `attribute ${name}: ${value} is not in ${min} to ${max}`)
}

export const closePath = (device: RxeState, state: QueuePair): void => {
  if (state.flow >= 0) device.port.closeFlow(state.flow)
  state.flow = -1
}

/**
 * Checks values that the state table does not cover. `activeMtu`: the largest path MTU that the interface allows now.
 */
const checkValues = (where: string, args: QpModify, activeMtu: number, { maxRdAtomic }: QueueLimits): void => {
  if (args.port !== undefined) within(where, 'port', args.port, 1, 1)
  if (args.pkeyIndex !== undefined) within(where, 'pkeyIndex', args.pkeyIndex, 0)
  if (args.maxRdAtomic !== undefined) within(where, 'maxRdAtomic', args.maxRdAtomic, maxRdAtomic)
  if (args.maxDestRdAtomic !== undefined) within(where, 'maxDestRdAtomic', args.maxDestRdAtomic, maxRdAtomic)
  if (args.pathMtu !== undefined) within(where, 'pathMtu', args.pathMtu, activeMtu, 1)
}

/** The engine's attributes; undefined ones are ignored. */
const engineAttributes = (args: QpModify, path: { flow: number; peer: number } | undefined, pathMtu?: number) => ({
  destQpn: args.destQpn,
  rqPsn: args.rqPsn,
  sqPsn: args.sqPsn,
  pathMtu: args.pathMtu === undefined ? pathMtu : 128 << args.pathMtu,
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
const recordAttributes = (
  device: RxeState,
  state: QueuePair,
  { port, enSqdAsyncNotify, address, dmac }: QpModify,
): void => {
  if (port !== undefined) state.noted |= AttributeBits.PORT
  if (enSqdAsyncNotify !== undefined)
    state.noted = enSqdAsyncNotify ? state.noted | AttributeBits.SQD_EVENT : state.noted & ~AttributeBits.SQD_EVENT
  if (address) state.address = storedAddress(device, address, dmac)
}

/** The queues of a new queue pair; with `shared` it has no receive queue. */
const createRings = (
  context: Context,
  cap: In<Methods['create']>['cap'],
  { maxSge }: QueueLimits,
  shared: ReceiveQueue | undefined,
  destinations: Destinations | undefined,
): QpRings => {
  const memory = ringsOf(context)
  // rxe's user library maps both queues of every queue pair; callers in this process get no ring that they did not
  // request
  const { layout } = memory
  const inline = Math.max(cap.maxSendSge * RingSge.BYTES, cap.maxInlineData)
  const lean = (requests: number): boolean => layout.counting && requests === 0
  const max = Math.min(Math.floor(inline / RingSge.BYTES), maxSge)
  const send = lean(cap.maxSendWr) ? emptySendQueue : createSendQueue(memory, cap.maxSendWr, max, inline)
  try {
    const receive =
      shared ?? (lean(cap.maxRecvWr) ? emptyReceiveQueue : createReceiveQueue(memory, cap.maxRecvWr, cap.maxRecvSge))
    return { send, receive, destinations }
  } catch (error) {
    memory.free(send.ring)
    throw error
  }
}

type Made = Out<AnyQp['methods']['create']> & { sendQueue?: MmapInfo; recvQueue?: MmapInfo }

/** The results of a creation. Set by name: spreading costs more than everything else in a creation. */
const createReply = (
  { maxSendWr, maxRecvWr, maxRecvSge }: In<Methods['create']>['cap'],
  qpNum: number,
  send: SendQueue,
  receive: ReceiveQueue,
): Made => {
  const cap = { maxSendWr, maxRecvWr, maxSendSge: send.maxSge, maxRecvSge, maxInlineData: send.maxInline }
  const made: Made = { cap, qpNum }
  if (!receive.shared && receive !== emptyReceiveQueue) made.recvQueue = mmapInfo(receive.ring)
  if (send !== emptySendQueue) made.sendQueue = mmapInfo(send.ring)
  return made
}

/** Refuses an illegal transition, or one with illegal attributes. */
const checkSteps = (type: QpTypeName, before: number, after: number, args: QpModify, where: string): void => {
  const given = Object.keys(args).filter(name => args[name as keyof QpModify] !== undefined)
  const why = checkTransition(type, before, after, given, args.curState)
  if (why !== undefined) refuse(where, why)
}

/** Refuses attributes that no type supports, such as an alternate path. */
export const UNSUPPORTED_ATTRIBUTES = { alternatePath: 'the device has no automatic path migration', ...NO_VLAN }

/** The class of one type of queue pair. `cls` declares those of the attributes here that the type has. */
export const qpClass = (
  cls: ObjectClass,
  type: QpTypeName,
  service: number,
  takeNumber = ({ qpns }: RxeState): number => qpns.take(),
): DriverClass => {
  const createCall = `${cls.name}.create`
  const modifyCall = `${cls.name}.modify`
  const line = driverClass<AnyQp, QueuePair, typeof QpQueues>(
    cls as AnyQp,
    {
      create(call, object, { pd, sendCq, recvCq, cap, flags, userHandle, asyncFd, srq }) {
        const device = stateOf(call)
        const { limits } = device
        within(createCall, 'cap.maxSendWr', cap.maxSendWr, limits.maxQpWr)
        within(createCall, 'cap.maxRecvWr', cap.maxRecvWr, limits.maxQpWr)
        within(createCall, 'cap.maxSendSge', cap.maxSendSge, limits.maxSge)
        within(createCall, 'cap.maxRecvSge', cap.maxRecvSge, limits.maxSge)
        within(createCall, 'cap.maxInlineData', cap.maxInlineData, limits.maxInline)
        const signalAll = ((flags ?? 0) & QpFlags.values.SQ_SIG_ALL) !== 0
        // only allocating the rings can fail; nothing after it does, so nothing has to be undone
        const destinations =
          service === Service.UD
            ? createDestinations(device.ahs, device.port, call.device.ports[0].gids, pd.id, device.released)
            : undefined
        const rings = createRings(call.context, cap, limits, (srq as SrqObject | undefined)?.state.queue, destinations)
        const qpn = takeNumber(device)
        const { send, receive } =
          device.torment !== undefined && ringsOf(call.context).mayHideSlots
            ? device.torment.queuesOf(rings, qpn, cap)
            : rings
        const row = device.engine().create({
          service,
          qpn,
          pd: pd.id,
          sendCq: (sendCq as CqObject).state.number,
          recvCq: (recvCq as CqObject).state.number,
          maxSendWr: send.ring.capacity,
          maxSendSge: send.maxSge,
          maxRecvSge: receive.maxSge,
          sharedReceive: receive.shared,
          recvPd: (srq as SrqObject | undefined)?.state.pd,
          signalAll,
        })
        device.qpns.bind(qpn, row)
        // by name: a spread object is stored in two places, and there may be very many
        object.state = {
          row,
          qpn,
          owner: call.context,
          send,
          receive,
          destinations,
          noted: 0,
          address: undefined,
          flow: -1,
        }
        device.qps[row] = object
        device.rings[row] = object.state
        device.added(row)
        affiliate(object, userHandle, { asyncFd })
        return createReply(cap, qpn, send, receive)
      },

      query(call, { state }) {
        const device = stateOf(call)
        device.catchUp(state.row)
        const { send, receive, noted } = state
        const now = device.engine().query(state.row)
        const all = {
          state: now.state,
          curState: now.state,
          enSqdAsyncNotify: noted & AttributeBits.SQD_EVENT ? 1 : 0,
          accessFlags: now.access,
          pkeyIndex: now.pkeyIndex,
          port: noted & AttributeBits.PORT ? 1 : 0,
          qkey: now.qkey,
          ...addressAnswer(state.address ?? noAddress),
          pathMtu: Math.log2(now.pathMtu) - 7,
          timeout: now.timeout,
          retryCnt: now.retryCnt,
          rnrRetry: now.rnrRetry,
          rqPsn: now.rqPsn,
          maxRdAtomic: now.maxRdAtomic,
          alternatePath: { ...copyAddress(noAddress), altPort: 0, pkeyIndex: 0, timeout: 0 },
          minRnrTimer: now.minRnrTimer,
          sqPsn: now.sqPsn,
          maxDestRdAtomic: now.maxDestRdAtomic,
          pathMigState: 0,
          destQpn: now.destQpn,
          cap: {
            maxSendWr: send.ring.capacity,
            maxRecvWr: receive.shared ? 0 : receive.ring.capacity,
            maxSendSge: send.maxSge,
            maxRecvSge: receive.shared ? 0 : receive.maxSge,
            maxInlineData: send.maxInline,
          },
          sqDraining: now.draining ? 1 : 0,
          sqSigAll: now.signalAll ? 1 : 0,
        }
        const has = cls.methods.query.out
        return Object.fromEntries(Object.entries(all).filter(([name]) => name in has)) as typeof all
      },

      modify(call, { state }, args) {
        const device = stateOf(call)
        device.catchUp(state.row)
        const before = device.engine().stateOf(state.row)
        const after = args.state ?? before
        // Linux looks the GID up before it checks the transition (abi/objects)
        const source = args.address && sourceOf(call.device.ports[0].gids, args.address, modifyCall)
        if (!isTransition(type, before, after, args)) checkSteps(type, before, after, args, modifyCall)
        checkValues(modifyCall, args, call.device.ports[0].attributes.activeMtu, device.limits)
        let path: { flow: number; peer: number } | undefined
        if (args.address && source) {
          const flow = openPath(device.port, flowAddress(source, args.address), modifyCall)
          closePath(device, state)
          state.flow = flow
          path = { flow, peer: device.port.peerOf(args.address.dgid) }
        }
        // before the engine's transition, which may send an event that these attributes enable
        if (after !== ERR) recordAttributes(device, state, args)
        // UD has no path MTU of its own
        const pathMtu = service === Service.UD ? device.port.pathMtu : undefined
        device.engine().modify(state.row, after, engineAttributes(args, path, pathMtu))
        if (after === RESET) {
          closePath(device, state)
          state.noted = 0
          state.address = undefined
          resetRings(state)
          device.torment?.restart(state)
          device.feed?.reset(state.row)
          state.destinations?.release()
        }
        device.look(state.row)
        return {}
      },

      destroy(call, object, args, core) {
        const device = stateOf(call)
        const { state } = object
        // the sends of a process that has ended need not complete
        if (call.why === 'call') device.catchUp(state.row)
        device.engine().destroy(state.row)
        device.failures.forget(state.row)
        device.feed?.reset(state.row)
        unbindWindowsOf(call.device.memory, state.qpn)
        device.qpns.free(state.qpn)
        device.qps[state.row] = undefined
        device.rings[state.row] = undefined
        closePath(device, state)
        state.destinations?.close()
        const memory = ringsOf(call.context)
        memory.free(state.send.ring)
        if (!state.receive.shared) memory.free(state.receive.ring)
        return core(call, object, args)
      },

      postSend(call, { state }, { wrCount }) {
        // requests are in the mapped queue; rxe refuses a list in the call too
        if (wrCount)
          throw new CallError(
            'EINVAL',
            `${cls.name}.postSend: ${wrCount} requests in the call: post them in the mapped queue`,
          )
        stateOf(call).look(state.row)
        return { badWr: 0 }
      },
    },
    QpQueues,
  )
  return withoutOptions(line, UNSUPPORTED_ATTRIBUTES)
}

/** RC and UC. Other types have their own files. */
export const qpClasses: readonly DriverClass[] = [qpClass(RcQp, 'RC', Service.RC), qpClass(UcQp, 'UC', Service.UC)]
