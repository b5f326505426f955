/*
 * The attributes to modify a queue pair to INIT, RTR and RTS for a connection, from the parameters that the ends have
 * agreed on (Linux: ib_cm_init_qp_attr).
 */

import { findGid } from '../../core/devices/gids.ts'
import type { ConnectionEnd, QpAttributes } from '../../core/driver-contract.ts'
import { AccessFlags, QpState, QpType } from '../../spec/enums.ts'
import { callError } from '../../spec/errno.ts'
import { coded, type Reason, the } from '../../spec/reason.ts'
import type { CmConnection, CmPath } from '../cm-engine/connection.ts'
import { type IbPort, pkeyIndexOf } from './path.ts'

type Attributes = Omit<QpAttributes, 'state'>

interface Connected {
  readonly port: IbPort
  readonly cm: CmConnection
  readonly end: ConnectionEnd
}

const { INIT, RTR, RTS } = QpState.values
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

/** IB_DEVICE_FLUSH_GLOBAL and IB_DEVICE_FLUSH_PERSISTENT are bits 38 and 39 of device_cap_flags_ex. */
const FLUSH_CAPABILITY_SHIFT = 38n
const FLUSH_CAPABILITIES = 3n

/** FLUSH_GLOBAL and FLUSH_PERSISTENT, two adjacent access flags, as the device's capabilities allow. */
const flushFlagsOf = ({ device }: IbPort): number =>
  Number((device.extended.deviceCapFlagsEx >> FLUSH_CAPABILITY_SHIFT) & FLUSH_CAPABILITIES) * FLUSH_GLOBAL

const toInit = ({ port, cm: { agreed, path } }: Connected): Attributes => ({
  // The rights that the queue pair grants to the peer.
  accessFlags:
    agreed.responderResources > 0 ? REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC | flushFlagsOf(port) : REMOTE_WRITE,
  pkeyIndex: pkeyIndexOf(port.device.ports[0]!.pkeys, path.pkey),
  port: 1,
})

/** The other end of a path as an address. */
export const addressOf = ({ device }: IbPort, path: CmPath) => ({
  dgid: path.remoteGid,
  flowLabel: path.flowLabel,
  sgidIndex: findGid(device.ports[0]!.gids, path.localGid),
  hopLimit: path.hopLimit,
  trafficClass: path.trafficClass,
  sl: path.sl,
  staticRate: 0,
  isGlobal: path.lids === undefined || path.hopLimit > 0 ? 1 : 0,
  port: 1,
})

/** The attribute of the device's link (spec/links.ts). */
const addressAttribute = (port: IbPort, path: CmPath) =>
  path.lids === undefined
    ? { address: addressOf(port, path) }
    : { ibAddress: { ...addressOf(port, path), srcPathBits: 0, dlid: path.lids.remote } }

const toRtr = ({ port, end, cm: { agreed, path } }: Connected): Attributes => {
  const hasResponder = end.qpType === QpType.values.RC || end.qpType === QpType.values.XRC_TGT
  return {
    ...addressAttribute(port, path),
    pathMtu: path.mtu,
    destQpn: agreed.remoteQpn,
    // The starting PSN of our REQ or REP is the first that the peer sends.
    rqPsn: end.startingPsn,
    ...(hasResponder && { maxDestRdAtomic: agreed.responderResources, minRnrTimer: 0 }),
  }
}

const toRts = ({ end, cm: { agreed } }: Connected): Attributes => {
  const hasRequester = end.qpType === QpType.values.RC || end.qpType === QpType.values.XRC_INI
  return {
    sqPsn: agreed.sqPsn,
    // Linux sets the ACK timeout of an XRC target too, which has no requester.
    ...((hasRequester || end.qpType === QpType.values.XRC_TGT) && { timeout: end.ackTimeout ?? agreed.ackTimeout }),
    ...(hasRequester && {
      retryCnt: agreed.retryCount,
      rnrRetry: agreed.rnrRetryCount,
      maxRdAtomic: agreed.initiatorDepth,
    }),
  }
}

/**
 * Attributes for a transition to `state`. Throws CallError EINVAL after the end of a connection, for states other than
 * INIT, RTR and RTS, and for RTR and RTS before the peer's parameters are known.
 */
export const connectedAttributes = (connection: Connected, state: number): Attributes => {
  const { state: connectionState } = connection.cm
  if (ENDED.has(connectionState) || (state !== INIT && !AGREED.has(connectionState)))
    return refuse(coded('connection-state')`the connection is in state ${connectionState}`)
  if (state === INIT) return toInit(connection)
  if (state === RTR) return toRtr(connection)
  return state === RTS ? toRts(connection) : refuse(`state ${state} is not INIT, RTR or RTS`)
}

const refuse = (reason: Reason | string): never => {
  throw callError.EINVAL`${the.method('cm_id.initQpAttr')}: ${reason}`
}
