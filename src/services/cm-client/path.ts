/*
 * Paths of the connection manager, and path records (IBA 15.2.5.16). A program can set the record
 * (RDMA_OPTION_IB_PATH); on InfiniBand the subnet administrator gives it. Otherwise, because RoCE has no subnet
 * administrator, the record is made from addresses, port and, for a peer's request, the REQ, as in Linux.
 */

import { hasGid, hasLids } from '../../core/devices/gids.ts'
import type { ConnectionEnd, ConnectionListeners, MadAddress } from '../../core/driver-contract.ts'
import type { Device } from '../../core/model.ts'
import type { SocketAddress } from '../../spec/classes/connections/cm_parameters.ts'
import { callError } from '../../spec/errno.ts'
import { the } from '../../spec/reason.ts'
import { isOfPartitions, PKEY_FULL_MEMBER } from '../../transport/wire/bth.ts'
import { rdmaCmServiceId } from '../../transport/wire/mad/mad.ts'
import type { CmConnection, CmPath } from '../cm-engine/connection.ts'
import { Family } from '../socket-address.ts'

/** A device of the connection manager. */
export interface IbPort {
  /** As in `CmPath.device`; never reused. */
  readonly number: number
  readonly device: Device
  /** The node GUID. */
  readonly caGuid: bigint
  readonly listeners: ConnectionListeners
}

/** The hop limit of paths, unless a program has set another one. */
const HOP_LIMIT = 64
/** An exponent: 4.096 µs · 2^16 is 268 ms. */
const PACKET_LIFE_TIME = 16

/** Byte offsets in a PathRecord. */
const FieldAt = {
  SERVICE_ID: 0,
  DGID: 8,
  SGID: 24,
  DLID: 40,
  SLID: 42,
  /** Flow label and, in the low byte, hop limit. */
  FLOW_LABEL: 44,
  HOP_LIMIT: 47,
  TCLASS: 48,
  REVERSIBLE: 49,
  PKEY: 50,
  SL: 53,
  MTU: 54,
  RATE: 55,
  PACKET_LIFE_TIME: 56,
} as const
/** The selector "exactly", in the upper two bits of MTU, rate and packet life time. */
const EXACTLY = 0x80
/** Linux's IB_RATE_PORT_CURRENT. */
const RATE_PORT_CURRENT = 0
const REVERSIBLE = 0x80
const RECORD_BYTES = 64
/** Mask of the value after a selector. */
const SIX_BITS = 0x3f

/** `address`: of the identifier. Undefined only before the bind. */
export const serviceIdOf = ({ portSpace }: ConnectionEnd, address: SocketAddress | undefined): bigint =>
  address?.family === Family.IB ? address.serviceId : rdmaCmServiceId(portSpace, address?.port ?? 0)

type PathEnds = Pick<MadAddress, 'localGid' | 'remoteGid' | 'flowLabel' | 'trafficClass' | 'pkey'>

const pathThrough = (
  { number, device }: IbPort,
  { localGid, remoteGid, flowLabel, trafficClass, pkey }: PathEnds,
  packetLifeTime = PACKET_LIFE_TIME,
): CmPath => ({
  device: number,
  localGid,
  remoteGid,
  pkey,
  mtu: device.ports[0]!.attributes.activeMtu,
  flowLabel,
  trafficClass,
  hopLimit: HOP_LIMIT,
  sl: 0,
  packetLifeTime,
})

/** The path back to the sender of a datagram. */
export const pathBack = (port: IbPort, from: MadAddress): CmPath => {
  const path = pathThrough(port, from)
  if (from.lids === undefined) return path
  const { local, remote, sl, isGlobal } = from.lids
  // Without a GRH the datagram is for the port's first GID.
  const localGid = isGlobal ? from.localGid : (port.device.ports[0]!.gids.entries[0]?.gid ?? from.localGid)
  return { ...path, localGid, lids: { local, remote }, sl, hopLimit: isGlobal ? HOP_LIMIT : 0 }
}

/** The address of a datagram to the peer's queue pair `qpn`. */
export const addressAlong = (
  { localGid, remoteGid, lids, pkey, sl, flowLabel, trafficClass, hopLimit }: CmPath,
  qpn: number,
): MadAddress => {
  const to = { localGid, remoteGid, qpn, pkey, flowLabel, trafficClass, hopLimit }
  return lids === undefined ? to : { ...to, lids: { ...lids, sl, isGlobal: hopLimit > 0 } }
}

/** The index of a partition key: of the key itself, or else of a member of its partition. */
export const pkeyIndexOf = (pkeys: Uint16Array, pkey: number): number => {
  const exact = pkeys.indexOf(pkey)
  return exact >= 0
    ? exact
    : Math.max(
        0,
        pkeys.findIndex(own => ((own ^ pkey) & ~PKEY_FULL_MEMBER) === 0),
      )
}

/**
 * The path to the peer. Throws CallError EINVAL, ENOENT if the device does not have the path that the program has set.
 */
export const pathOf = (port: IbPort, end: ConnectionEnd): CmPath => {
  const { localGid, remoteGid, flowLabel, trafficClass, chosenPath, packetLifeTime } = end
  const { pkeys } = port.device.ports[0]!
  if (localGid === undefined || remoteGid === undefined)
    throw callError.EINVAL`${the.method('cm_id.connect')}: the address is not resolved`
  if (chosenPath === undefined)
    return pathThrough(port, { localGid, remoteGid, flowLabel, trafficClass, pkey: pkeys[0]! }, packetLifeTime)
  const path = parsePathRecord(port, chosenPath)
  const { name } = port.device
  if (!hasGid(port.device, path.localGid))
    throw callError.EINVAL`${the.method('cm_id.connect')}: the source GID of the path is not a GID of ${name}`
  if (!isOfPartitions(pkeys, path.pkey)) {
    const own = Array.from(pkeys, key => `0x${key.toString(16)}`).join(', ')
    throw callError.ENOENT`${the.method('cm_id.connect')}: ${name} is not in the partition of the path's P_Key 0x${path.pkey.toString(16)}; its P_Key is ${own}`
  }
  return path
}

const parsePathRecord = ({ number, device }: IbPort, record: Uint8Array): CmPath => {
  const view = new DataView(record.buffer, record.byteOffset)
  const ofLids = () => ({
    lids: { local: view.getUint16(FieldAt.SLID), remote: view.getUint16(FieldAt.DLID) },
    rate: view.getUint8(FieldAt.RATE) & SIX_BITS,
  })
  return {
    ...(hasLids(device) && ofLids()),
    device: number,
    remoteGid: record.subarray(FieldAt.DGID, FieldAt.DGID + 16),
    localGid: record.subarray(FieldAt.SGID, FieldAt.SGID + 16),
    flowLabel: (view.getUint32(FieldAt.FLOW_LABEL) >>> 8) & 0xf_ffff,
    hopLimit: view.getUint8(FieldAt.HOP_LIMIT),
    trafficClass: view.getUint8(FieldAt.TCLASS),
    pkey: view.getUint16(FieldAt.PKEY),
    sl: view.getUint8(FieldAt.SL) & 0xf,
    mtu: view.getUint8(FieldAt.MTU) & SIX_BITS,
    packetLifeTime: view.getUint8(FieldAt.PACKET_LIFE_TIME) & SIX_BITS,
  }
}

/** The path record of an end whose route is resolved. `connection`: its connection, if any. */
export const pathRecord = (
  { device }: IbPort,
  end: ConnectionEnd,
  connection: CmConnection | undefined,
): Uint8Array => {
  const record = new Uint8Array(RECORD_BYTES)
  const view = new DataView(record.buffer)
  const path = connection?.path
  const lids = path?.lids
  // The destination of a peer's request is the peer, which has no service id.
  view.setBigUint64(FieldAt.SERVICE_ID, connection?.serviceId ?? serviceIdOf(end, end.destination))
  record.set(end.remoteGid ?? [], FieldAt.DGID)
  record.set(end.localGid ?? [], FieldAt.SGID)
  if (lids !== undefined) {
    view.setUint16(FieldAt.DLID, lids.remote)
    view.setUint16(FieldAt.SLID, lids.local)
  }
  const hopLimit = lids === undefined ? HOP_LIMIT : path!.hopLimit
  view.setUint32(FieldAt.FLOW_LABEL, ((end.flowLabel << 8) | hopLimit) >>> 0)
  record[FieldAt.TCLASS] = end.trafficClass
  record[FieldAt.REVERSIBLE] = REVERSIBLE
  // The path of a peer's request has the P_Key, service level and MTU of the REQ.
  view.setUint16(FieldAt.PKEY, path?.pkey ?? device.ports[0]!.pkeys[0]!)
  record[FieldAt.SL] = path?.sl ?? 0
  record[FieldAt.MTU] = EXACTLY | (path?.mtu ?? device.ports[0]!.attributes.activeMtu)
  record[FieldAt.RATE] = EXACTLY | (path?.rate ?? RATE_PORT_CURRENT)
  record[FieldAt.PACKET_LIFE_TIME] = EXACTLY | (end.packetLifeTime ?? PACKET_LIFE_TIME)
  return record
}
