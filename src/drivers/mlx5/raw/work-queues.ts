/*
 * Classes `wq`, a receive queue without a send queue, and `rwq_ind_table`. To the engine a work queue is a queue pair
 * that only receives: RDY is its RTR.
 */
import { driverClass } from '../../../core/devices/driver.ts'
import { affiliate } from '../../../core/events/events.ts'
import { type CoreObject, Lifecycle } from '../../../core/model.ts'
import { findHandle } from '../../../core/objects/handles.ts'
import { numberFromId } from '../../../core/objects/lifetime.ts'
import { MAX_LOG_TABLE_SIZE, RwqIndTable, Wq } from '../../../spec/classes/wq.ts'
import { Mlx5Attributes, RESPONSE_BYTES } from '../../../spec/drivers/mlx5.ts'
import { QpState, WqState } from '../../../spec/enums.ts'
import { callError } from '../../../spec/errno.ts'
import { because, the } from '../../../spec/reason.ts'
import { Service } from '../../../spec/wire/services.ts'
import { endQueuePair } from '../../soft/classes/qp-class.ts'
import { emptySendQueue, resetQueues } from '../../soft/queues.ts'
import { type CqObject, noPsns, type QpObject, type QueuePair } from '../../soft/state.ts'
import { checkReceives, closeQueues, inSteps, receiveElements } from '../format.ts'
import { ProgramRecord, share, unshare } from '../program-memory.ts'
import { Receives } from '../receives.ts'
import { type ProgramQueues, requireFrames, requirePowerOfTwo, stateOf } from '../state.ts'

const { RESET, RDY, ERR } = WqState.values

/** A work queue is a row of the engine, and so has the state of a queue pair. */
export type WqObject = CoreObject<QueuePair>

/** `QpState` by `WqState`. */
const engineStates: Readonly<Record<number, number>> = {
  [RESET]: QpState.values.RESET,
  [RDY]: QpState.values.RTR,
  [ERR]: QpState.values.ERR,
}
const stateOfEngine = (state: number): number => {
  if (state === QpState.values.ERR) return ERR
  return state === QpState.values.RTR ? RDY : RESET
}
const names: Readonly<Record<number, string>> = { [RESET]: 'RESET', [RDY]: 'RDY', [ERR]: 'ERR' }

export const wqClass = driverClass<typeof Wq, QueuePair, typeof Mlx5Attributes.wq>(
  Wq,
  {
    create(call, object, args) {
      requireFrames(call, 'wq.create')
      const { pd, cq, maxWr, flags = 0, userHandle, asyncFd, uidx = 0, wqFlags = 0, wqMask = 0 } = args
      const { bufferAddress = 0n, doorbellAddress = 0n, receiveRequests = 0, receiveShift = 0 } = args
      if (flags !== 0)
        throw callError.EOPNOTSUPP`${the.method('wq.create')}: flags 0x${flags.toString(16)}: the device strips and delays nothing`
      if (wqFlags !== 0 || wqMask !== 0)
        throw callError.EOPNOTSUPP`${the.method('wq.create')}: the device has neither signatures nor striding receive queues`
      checkReceives('wq.create', receiveRequests, receiveShift)
      const { soft, queues } = stateOf(call)
      const maxSge = receiveElements(receiveShift)
      const { number } = (cq as CqObject).state
      inSteps(undo => {
        const buffer = share(call, bufferAddress, receiveRequests * 2 ** receiveShift)
        undo(() => unshare(buffer))
        const record = new ProgramRecord(call, doorbellAddress)
        const receives = new Receives({ record, buffer, count: receiveRequests, shift: receiveShift, maxSge })
        const qpn = soft.qpns.take()
        const row = soft.engine().create({
          service: Service.RAW,
          qpn,
          pd: pd.id,
          sendCq: number,
          recvCq: number,
          maxSendSge: 0,
          maxRecvSge: maxSge,
          sqSigAll: false,
          owner: call.context?.account?.payer,
        })
        soft.qpns.bind(qpn, row)
        object.state = {
          row,
          qpn,
          owner: call.context,
          send: emptySendQueue,
          receive: receives,
          destinations: undefined,
          attributeBits: 0,
          address: undefined,
          firstPsns: noPsns,
          heldGid: -1,
          flow: -1,
        }
        soft.qps[row] = object
        soft.queues[row] = object.state
        soft.addQueues(row)
        const own: ProgramQueues = {
          buffers: [buffer],
          record,
          sends: undefined,
          receives,
          uidx,
          bytes: 0,
          hasFrames: true,
          opcodeOf: () => 0,
        }
        queues.set(qpn, own)
      })
      affiliate(object, userHandle, { asyncFd })
      return { maxWr, maxSge: args.maxSge, wqNum: object.state.qpn, driverBytes: RESPONSE_BYTES.wq }
    },

    query(call, { state }) {
      const { capacity, maxSge } = state.receive
      const current = stateOfEngine(stateOf(call).soft.engine().stateOf(state.row))
      return { state: current, maxWr: capacity, maxSge, flags: 0 }
    },

    modify(call, object, { state, curState, flags, flagsMask }) {
      if (flags !== undefined || flagsMask !== undefined)
        throw callError.EOPNOTSUPP`${the.method('wq.modify')}: the device has no flags of work queues that can be changed`
      const { soft, queues } = stateOf(call)
      const { row, qpn } = object.state
      const before = stateOfEngine(soft.engine().stateOf(row))
      if (curState !== undefined && curState !== before)
        throw callError.EINVAL`${the.method('wq.modify')}: ${the.attribute('curState')}: the queue is in ${names[before]}, not in ${names[curState]}`
      if (state === undefined || state === before) return {}
      if (before === ERR && state === RDY)
        throw callError.EINVAL`${the.method('wq.modify')}: ${the.attribute('state')}: ERR to RDY is not possible; move the queue to RESET first`
      if (before === RESET && state === ERR)
        throw callError.EINVAL`${the.method('wq.modify')}: ${the.attribute('state')}: RESET to ERR is not possible`
      const receives = queues.get(qpn)?.receives
      soft.engine().modify(row, engineStates[state], {})
      if (state === RESET) {
        resetQueues(object.state)
        soft.taps.requests?.reset(object as QpObject)
        soft.failures.forget(row)
      } else receives?.open()
      soft.recheck(row)
      return {}
    },

    destroy(call, object, args, core) {
      const { soft, queues } = stateOf(call)
      const { state } = object
      const own = queues.get(state.qpn)
      queues.delete(state.qpn)
      endQueuePair(call, soft, state)
      if (own !== undefined) closeQueues(call, own)
      return core(call, object, args)
    },
  },
  Mlx5Attributes.wq,
)

interface Table {
  readonly queues: readonly WqObject[]
}
export type TableObject = CoreObject<Table>

export const rwqIndTableClass = driverClass<typeof RwqIndTable, Table, typeof Mlx5Attributes.rwq_ind_table>(
  RwqIndTable,
  {
    create(call, object, { queues: entries }) {
      requirePowerOfTwo(
        because`${the.method('rwq_ind_table.create')}: the number of work queues`,
        entries.length,
        2 ** MAX_LOG_TABLE_SIZE,
      )
      const queues = entries.map(({ wq: handle }) => {
        const wq = findHandle(call.context.handles, handle)
        if (wq === undefined || wq.class.name !== Wq.name || wq.life !== Lifecycle.LIVE)
          throw callError.EINVAL`${the.method('rwq_ind_table.create')}: ${handle} is no handle of a work queue`
        return wq as WqObject
      })
      for (const wq of queues) wq.uses++
      object.parents = [...object.parents, ...queues]
      object.state = { queues }
      return { tableNum: numberFromId(object, 0xff_ffff), driverBytes: RESPONSE_BYTES.rwqIndTable }
    },
    destroy: () => ({}),
    query: (_call, { state }) => ({ queues: state.queues.map(({ handle }) => ({ wq: handle })) }),
  },
  Mlx5Attributes.rwq_ind_table,
)
