/*
 * The attributes to modify a queue pair to INIT, RTR and RTS for a connection (rdma_init_qp_attr), from the parameters
 * that the ends have agreed on.
 */
import { findGid } from '../../core/devices/gids.ts'
import type { CmId } from '../../spec/classes/connections/cm_id.ts'
import { AccessFlags, QpState, QpType } from '../../spec/enums.ts'
import { CallError } from '../../spec/errno.ts'
import type { Out } from '../../spec/schema/schema.ts'
import type { Identifier } from './identifier.ts'

type QpAttributes = Out<typeof CmId.methods.initQpAttr>

const { RESET, INIT, RTR, RTS, ERR } = QpState.values
const { REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, FLUSH_GLOBAL } = AccessFlags.values

/** States of a connection that was disconnected; TIMEWAIT can also follow a REJ. */
const ENDED: ReadonlySet<string> = new Set(['DREQ_SENT', 'DREQ_RCVD', 'TIMEWAIT'])
/** Connection states in which the peer's parameters are known. */
const AGREED: ReadonlySet<string> = new Set([
  'REQ_RCVD',
  'MRA_REQ_SENT',
  'REP_RCVD',
  'MRA_REP_SENT',
  'REP_SENT',
  'MRA_REP_RCVD',
  'ESTABLISHED',
])

const refuse = (reason: string): never => {
  throw new CallError('EINVAL', `cm_id.initQpAttr: ${reason}`)
}

/** The attributes without a connection, and of UD: the same for each state, except `state` itself. */
const unconnectedAttributes = (id: Identifier, state: number): QpAttributes => ({
  state,
  pkeyIndex: 0,
  port: 1,
  ...(id.qpType === QpType.values.UD ? { qkey: id.qkey } : { accessFlags: 0 }),
})

/** IB_DEVICE_FLUSH_GLOBAL and IB_DEVICE_FLUSH_PERSISTENT are bits 38 and 39 of device_cap_flags_ex. */
const FLUSH_CAPABILITY_SHIFT = 38n
const FLUSH_CAPABILITIES = 3n

/** FLUSH_GLOBAL and FLUSH_PERSISTENT, two adjacent access flags, as the device's capabilities allow. */
const flushFlagsOf = ({ device }: Identifier): number =>
  Number(((device?.device.extended.deviceCapFlagsEx ?? 0n) >> FLUSH_CAPABILITY_SHIFT) & FLUSH_CAPABILITIES) *
  FLUSH_GLOBAL

/** The rights that the queue pair grants to the peer. */
export const accessFlagsFor = (id: Identifier): number =>
  (id.connection?.agreed.responderResources ?? 0) > 0
    ? REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC | flushFlagsOf(id)
    : REMOTE_WRITE

const toInit = (id: Identifier): QpAttributes => ({
  state: INIT,
  accessFlags: accessFlagsFor(id),
  pkeyIndex: 0,
  port: 1,
})

const addressOf = (id: Identifier): NonNullable<QpAttributes['address']> => {
  const { connection, device } = id
  if (connection === undefined || device === undefined) return refuse('there is no connection')
  const { path } = connection
  return {
    dgid: path.remoteGid,
    flowLabel: path.flowLabel,
    sgidIndex: findGid(device.device.ports[0]!.gids, path.localGid),
    hopLimit: path.hopLimit,
    trafficClass: path.trafficClass,
    sl: path.sl,
    staticRate: 0,
    isGlobal: 1,
    port: 1,
  }
}

const toRtr = (id: Identifier): QpAttributes => {
  const { connection, qpType, startingPsn } = id
  if (connection === undefined) return refuse('there is no connection')
  const { agreed, path } = connection
  const hasResponder = qpType === QpType.values.RC || qpType === QpType.values.XRC_TGT
  return {
    state: RTR,
    address: addressOf(id),
    pathMtu: path.mtu,
    destQpn: agreed.remoteQpn,
    // The starting PSN of our REQ or REP is the first that the peer sends.
    rqPsn: startingPsn,
    ...(hasResponder && { maxDestRdAtomic: agreed.responderResources, minRnrTimer: 0 }),
  }
}

const toRts = ({ connection, qpType, ackTimeout }: Identifier): QpAttributes => {
  if (connection === undefined) return refuse('there is no connection')
  const { agreed } = connection
  const hasRequester = qpType === QpType.values.RC || qpType === QpType.values.XRC_INI
  return {
    state: RTS,
    sqPsn: agreed.sqPsn,
    // Linux sets the ACK timeout of an XRC target too, which has no requester.
    ...((hasRequester || qpType === QpType.values.XRC_TGT) && { timeout: ackTimeout ?? agreed.ackTimeout }),
    ...(hasRequester && {
      retryCnt: agreed.retryCount,
      rnrRetry: agreed.rnrRetryCount,
      maxRdAtomic: agreed.initiatorDepth,
    }),
  }
}

/**
 * Attributes for a transition to `state`. Throws CallError EINVAL
 * - without a device, and for an invalid state;
 * - for a listener that is not for datagrams;
 * - after the end of a connection, and for a received request that was rejected or withdrawn;
 * - with a connection, for states other than INIT, RTR and RTS, and for RTR and RTS before the peer's parameters are
 *   known.
 */
export const qpAttributesFor = (id: Identifier, state: number): QpAttributes => {
  if (id.device === undefined) return refuse('no device is known yet: resolve or bind an address')
  if (state > ERR) return refuse(`attribute state: ${state}; states are ${RESET} to ${ERR}`)
  if (id.qpType === QpType.values.UD) return unconnectedAttributes(id, state)
  if (id.isListening) return refuse('the identifier is in state LISTEN')
  if (id.connection === undefined) return unconnectedAttributes(id, state)
  const { state: connectionState } = id.connection
  // After a rejection the active side may connect again.
  const mayConnectAgain = id.state === 'ROUTE_RESOLVED' && !id.isRequest
  const hasEnded = ENDED.has(connectionState) || (connectionState === 'IDLE' && !mayConnectAgain)
  if (hasEnded || (state !== INIT && !AGREED.has(connectionState)))
    return refuse(`the connection is in state ${connectionState}`)
  if (state === INIT) return toInit(id)
  if (state === RTR) return toRtr(id)
  return state === RTS ? toRts(id) : refuse(`state ${state} is not INIT, RTR or RTS`)
}
