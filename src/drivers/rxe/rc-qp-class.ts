/*
 * Class `rc_qp` of the soft device: queue pairs of the reliable connected service, their rings and their path (R9, R19,
 * R22).
 *
 * What a transition needs and takes is the table's business (spec/qp-states.ts), what packets do is the engine's. Here
 * values are checked against the device's limits, address vectors become flows of the port, and what the engine does
 * not keep is kept for `query`.
 */
import { driverClass } from '../../core/driver.ts'
import { affiliate } from '../../core/events.ts'
import { type GidTable, getGid } from '../../core/gids.ts'
import type { Context, CoreObject } from '../../core/model.ts'
import type { FlowAddress } from '../../phy/port.ts'
import { type QpAddress, RcQp } from '../../spec/classes/rc_qp.ts'
import { RxeAttributes } from '../../spec/drivers/rxe.ts'
import { RecvWqe, RingSge, SendWqe } from '../../spec/drivers/rxe-rings.ts'
import { Mtu, QpState, RcQpFlags } from '../../spec/enums.ts'
import { CallError } from '../../spec/errno.ts'
import { checkTransition } from '../../spec/qp-states.ts'
import type { In, RecordOf } from '../../spec/schema.ts'
import type { QpAttributes } from '../../transport/types.ts'
import { isMappedIpv4 } from '../../wire/address.ts'
import { Limits } from './attributes.ts'
import { mmapInfo, ringsOf } from './context.ts'
import { createRing } from './rings.ts'
import { type CqObject, type RcQpState, type RxeState, stateOf } from './state.ts'
import { type QpRings, resetRings } from './work.ts'

type Modify = In<typeof RcQp.methods.modify, CoreObject>

const { RESET, ERR } = QpState.values

/** What a QP that has no path answers to a query: on Ethernet a path is global. */
const noAddress: RecordOf<typeof QpAddress> = {
  dgid: new Uint8Array(16),
  flowLabel: 0,
  sgidIndex: 0,
  hopLimit: 0,
  trafficClass: 0,
  sl: 0,
  staticRate: 0,
  isGlobal: 1,
  port: 0,
}

const refuse = (method: string, reason: string): never => {
  throw new CallError('EINVAL', `rc_qp.${method}: ${reason}`)
}

const within = (method: string, name: string, value: number, most: number, least = 0): void => {
  if (value < least || value > most) refuse(method, `attribute ${name}: ${value} is not in ${least} to ${most}`)
}

/** UDP source port of a soft device; receivers take any (responder.md, udp_source_port). */
const SOURCE_PORT = 4791
/** Linux resolves the hop limit of a RoCE path from the route and ignores the caller's. */
const HOP_LIMIT = 64

const leavePath = (device: RxeState, state: RcQpState): void => {
  if (state.flow >= 0) device.port.closeFlow(state.flow)
  state.flow = -1
}

/** The source GID of the path that an address vector describes. EINVAL, ENODATA. */
const sourceOf = (gids: GidTable, address: RecordOf<typeof QpAddress>): Uint8Array => {
  if (address.port !== 1) refuse('modify', `attribute address: port ${address.port}: the device has port 1`)
  if (!address.isGlobal)
    refuse('modify', 'attribute address: isGlobal is 0: a RoCE path needs a global route (a GID index, `-g`)')
  const { gid } = getGid(gids, address.sgidIndex)
  if (isMappedIpv4(gid) !== isMappedIpv4(address.dgid))
    refuse(
      'modify',
      `attribute address: GID index ${address.sgidIndex} and the destination GID are not both IPv4 or both IPv6`,
    )
  return gid
}

/**
 * EADDRNOTAVAIL for a path that the port cannot take: the network has no such source address, or there are too many.
 */
const openPath = ({ port }: RxeState, address: FlowAddress): number => {
  try {
    return port.openFlow(address)
  } catch (error) {
    if (error instanceof RangeError) throw new CallError('EADDRNOTAVAIL', `rc_qp.modify: ${error.message}`)
    throw error
  }
}

/** Opens that path and returns what the engine must know of it. */
const takePath = (
  device: RxeState,
  source: Uint8Array,
  state: RcQpState,
  address: RecordOf<typeof QpAddress>,
): { flow: number; peer: number } => {
  const flow = openPath(device, {
    source,
    destination: address.dgid.slice(),
    sourcePort: SOURCE_PORT,
    trafficClass: address.trafficClass,
    hopLimit: HOP_LIMIT,
    flowLabel: address.flowLabel & 0xfffff,
  })
  leavePath(device, state)
  state.flow = flow
  return { flow, peer: device.port.peerOf(address.dgid) }
}

/** Values that the state table does not judge. */
const checkValues = (args: Modify): void => {
  if (args.port !== undefined) within('modify', 'port', args.port, 1, 1)
  if (args.pkeyIndex !== undefined) within('modify', 'pkeyIndex', args.pkeyIndex, 0)
  if (args.maxRdAtomic !== undefined) within('modify', 'maxRdAtomic', args.maxRdAtomic, Limits.maxRdAtomic)
  if (args.maxDestRdAtomic !== undefined) within('modify', 'maxDestRdAtomic', args.maxDestRdAtomic, Limits.maxRdAtomic)
  if (args.pathMtu !== undefined) within('modify', 'pathMtu', args.pathMtu, 5, 1)
  // Automatic path migration is not there: an alternate path would be a promise that nobody keeps.
  if (args.alternatePath !== undefined)
    throw new CallError('EOPNOTSUPP', 'rc_qp.modify: no alternate paths on this device')
}

const engineAttributes = (args: Modify, path: { flow: number; peer: number } | undefined): QpAttributes => ({
  ...(args.destQpn !== undefined && { destQpn: args.destQpn }),
  ...(args.rqPsn !== undefined && { rqPsn: args.rqPsn }),
  ...(args.sqPsn !== undefined && { sqPsn: args.sqPsn }),
  ...(args.pathMtu !== undefined && { pathMtu: 128 << args.pathMtu }),
  ...(args.timeout !== undefined && { timeout: args.timeout }),
  ...(args.retryCnt !== undefined && { retryCnt: args.retryCnt }),
  ...(args.rnrRetry !== undefined && { rnrRetry: args.rnrRetry }),
  ...(args.minRnrTimer !== undefined && { minRnrTimer: args.minRnrTimer }),
  ...(args.maxRdAtomic !== undefined && { maxRdAtomic: args.maxRdAtomic }),
  ...(args.maxDestRdAtomic !== undefined && { maxDestRdAtomic: args.maxDestRdAtomic }),
  ...(args.accessFlags !== undefined && { access: args.accessFlags }),
  ...(args.pkeyIndex !== undefined && { pkeyIndex: args.pkeyIndex }),
  ...path,
})

/** What a query answers of the attributes that were given: copies, and of the path what became of it. */
const kept = (args: Modify): Modify => {
  const { address } = args
  const given = Object.fromEntries(Object.entries(args).filter(([, value]) => value !== undefined)) as Modify
  return address ? { ...given, address: { ...address, dgid: address.dgid.slice(), hopLimit: HOP_LIMIT } } : given
}

const createRings = (context: Context, cap: In<typeof RcQp.methods.create>['cap']): QpRings => {
  const memory = ringsOf(context)
  const inline = Math.max(cap.maxSendSge * RingSge.BYTES, cap.maxInlineData)
  const send = createRing(memory, cap.maxSendWr, SendWqe.SGE + inline)
  try {
    const receive = createRing(memory, cap.maxRecvWr, RecvWqe.SGE + cap.maxRecvSge * RingSge.BYTES)
    const maxSendSge = Math.min(Math.floor(inline / RingSge.BYTES), Limits.maxSge)
    return { send, receive, maxSendSge, maxRecvSge: cap.maxRecvSge, maxInline: inline, retired: 0, taken: 0 }
  } catch (error) {
    memory.free(send.piece)
    throw error
  }
}

export const rcQpClass = driverClass<typeof RcQp, RcQpState, typeof RxeAttributes.rc_qp>(
  RcQp,
  {
    create(call, object, { pd, sendCq, recvCq, cap, flags, userHandle, asyncFd }) {
      within('create', 'cap.maxSendWr', cap.maxSendWr, Limits.maxQpWr)
      within('create', 'cap.maxRecvWr', cap.maxRecvWr, Limits.maxQpWr)
      within('create', 'cap.maxSendSge', cap.maxSendSge, Limits.maxSge)
      within('create', 'cap.maxRecvSge', cap.maxRecvSge, Limits.maxSge)
      within('create', 'cap.maxInlineData', cap.maxInlineData, Limits.maxInline)
      const device = stateOf(call)
      const signalAll = ((flags ?? 0) & RcQpFlags.values.SQ_SIG_ALL) !== 0
      // Only the rings can be refused; nothing after them fails, so nothing has to be undone.
      const rings = createRings(call.context, cap)
      const qpn = device.qpns.take()
      const row = device.engine().create({
        qpn,
        pd: pd.id,
        sendCq: (sendCq as CqObject).state.number,
        recvCq: (recvCq as CqObject).state.number,
        maxSendWr: rings.send.mask,
        maxSendSge: rings.maxSendSge,
        maxRecvSge: rings.maxRecvSge,
        signalAll,
      })
      device.qpns.bind(qpn, row)
      object.state = { row, qpn, rings, signalAll, set: {}, flow: -1 }
      device.qps[row] = object
      device.rings[row] = rings
      device.look(row)
      affiliate(object, userHandle, { asyncFd })
      return {
        cap: { ...cap, maxSendSge: rings.maxSendSge, maxInlineData: rings.maxInline },
        qpNum: qpn,
        recvQueue: mmapInfo(rings.receive.piece),
        sendQueue: mmapInfo(rings.send.piece),
      }
    },

    query(call, { state }) {
      const device = stateOf(call)
      const { set, rings } = state
      const { state: now, rqPsn, sqPsn, draining } = device.engine().query(state.row)
      return {
        state: now,
        curState: now,
        enSqdAsyncNotify: set.enSqdAsyncNotify ?? 0,
        accessFlags: set.accessFlags ?? 0,
        pkeyIndex: set.pkeyIndex ?? 0,
        port: set.port ?? 0,
        address: set.address ?? noAddress,
        pathMtu: set.pathMtu ?? Mtu.values.MTU_256,
        timeout: set.timeout ?? 0,
        retryCnt: set.retryCnt ?? 0,
        rnrRetry: set.rnrRetry ?? 0,
        rqPsn,
        maxRdAtomic: set.maxRdAtomic ?? 0,
        alternatePath: { ...noAddress, primaryPort: 0, altPort: 0, pkeyIndex: 0, timeout: 0 },
        minRnrTimer: set.minRnrTimer ?? 0,
        sqPsn,
        maxDestRdAtomic: set.maxDestRdAtomic ?? 0,
        pathMigState: 0,
        destQpn: set.destQpn ?? 0,
        cap: {
          maxSendWr: rings.send.mask,
          maxRecvWr: rings.receive.mask,
          maxSendSge: rings.maxSendSge,
          maxRecvSge: rings.maxRecvSge,
          maxInlineData: rings.maxInline,
        },
        sqDraining: draining ? 1 : 0,
        sqSigAll: state.signalAll ? 1 : 0,
      }
    },

    modify(call, { state }, args) {
      const device = stateOf(call)
      const before = device.engine().query(state.row).state
      const after = args.state ?? before
      const given = Object.keys(args).filter(name => args[name as keyof Modify] !== undefined)
      // Linux looks the GID up before it looks at the transition (abi/objects).
      const source = args.address && sourceOf(call.device.ports[0].gids, args.address)
      const why = checkTransition('RC', before, after, given, args.curState)
      if (why !== undefined) refuse('modify', why)
      checkValues(args)
      const path = args.address && source && takePath(device, source, state, args.address)
      // Before the engine moves: it may raise an event that these attributes ask for.
      if (after === RESET) state.set = {}
      else if (after !== ERR) state.set = { ...state.set, ...kept(args) }
      device.engine().modify(state.row, after, engineAttributes(args, path), device.now())
      if (after === RESET) {
        leavePath(device, state)
        resetRings(state.rings)
      }
      device.look(state.row)
      return {}
    },

    destroy(call, object, args, core) {
      const device = stateOf(call)
      const { state } = object
      device.engine().destroy(state.row)
      device.qpns.free(state.qpn)
      device.qps[state.row] = undefined
      device.rings[state.row] = undefined
      leavePath(device, state)
      const memory = ringsOf(call.context)
      memory.free(state.rings.send.piece)
      memory.free(state.rings.receive.piece)
      return core(call, object, args)
    },

    postSend(call, { state }, { wrCount }) {
      // Requests lie in the mapped queue; a list of them in the call itself is what rxe refuses too.
      if (wrCount)
        throw new CallError(
          'EINVAL',
          `rc_qp.postSend: ${wrCount} requests in the call; they belong into the mapped queue`,
        )
      stateOf(call).look(state.row)
      return { badWr: 0 }
    },
  },
  RxeAttributes.rc_qp,
)
