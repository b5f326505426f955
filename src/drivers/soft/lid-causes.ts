/*
 * Why messages do not arrive: a datagram to a group has the number of a queue pair; on InfiniBand no port, or another
 * one than the peer's, has the LID of the path; one of the two ports is not ACTIVE (of a port that is DOWN, the outage
 * is the reason); the partition keys of the ends do not match; a group has members on ports that have not joined it.
 */
import { findGid } from '../../core/devices/gids.ts'
import type { Device } from '../../core/model.ts'
import { type Cause, createCause } from '../../spec/check/causes.ts'
import { nameIn, PortState } from '../../spec/enums.ts'
import { MULTICAST_QPN } from '../../spec/wire/headers.ts'
import { FIRST_MULTICAST_LID } from '../../spec/wire/subnet.ts'
import { partitionCause } from '../../transport/engine/causes.ts'
import { addressText, isMulticastGid } from '../../transport/wire/address.ts'
import { doPkeysMatch } from '../../transport/wire/bth.ts'
import type { Address } from './address/path.ts'
import type { SoftState } from './state.ts'

const { INIT, ARMED } = PortState.values

const stateOf = ({ driver, state }: Device): SoftState | undefined =>
  driver.link === 'ib' ? (state as SoftState) : undefined

/** The devices of the core with InfiniBand ports. */
const devicesOf = ({ core }: Device): Device[] => [...core.devices.values()].filter(each => stateOf(each) !== undefined)

const causeByState = (devices: readonly Device[]): Cause | undefined => {
  for (const { name, ports } of devices) {
    const { state } = ports[0]!.attributes
    if (state === INIT || state === ARMED)
      return createCause('PORT_NOT_ACTIVE', { port: name, state: nameIn(PortState.values, state) })
  }
  return undefined
}

/** `row`, `peerRow`: the two ends, in their devices' engines. */
const causeByPartition = (own: SoftState, row: number, peer: SoftState, peerRow: number): Cause | undefined => {
  const pkeyOf = ({ pkeys, engine }: SoftState, at: number): number => pkeys[engine().query(at).pkeyIndex] ?? 0
  const qpnOf = ({ qps }: SoftState, at: number): number => qps[at]?.state.qpn ?? 0
  const sent = pkeyOf(own, row)
  const expected = pkeyOf(peer, peerRow)
  return doPkeysMatch(sent, expected)
    ? undefined
    : partitionCause(qpnOf(own, row), sent, qpnOf(peer, peerRow), expected)
}

/** `peerRowOn`: the row of the peer, if it is on a device; else a negative number. */
const causeOf = (
  device: Device,
  own: SoftState,
  row: number,
  { dlid: lid, isGlobal, dgid }: Address,
  peerQpn: number,
  peerRowOn: (device: Device) => number,
): Cause | undefined => {
  const devices = devicesOf(device)
  const atLid = devices.find(({ ports }) => lid !== 0 && ports[0]!.attributes.lid === lid)
  const inactive = causeByState(atLid === undefined ? [device] : [device, atLid])
  if (inactive !== undefined) return inactive
  const peerRow = atLid === undefined ? -1 : peerRowOn(atLid)
  if (atLid !== undefined && peerRow >= 0) {
    const cause = causeByPartition(own, row, stateOf(atLid)!, peerRow)
    if (cause !== undefined || !isGlobal || findGid(atLid.ports[0]!.gids, dgid) >= 0) return cause
    return createCause('GRH_OF_OTHER', { dgid: addressText(dgid), port: atLid.name, lid })
  }
  const meant = devices.find(each => peerRowOn(each) >= 0 && !(each === device && peerRowOn(each) === row))
  if (meant !== undefined)
    return createCause('LID_OF_OTHER', { lid, peerQpn, port: meant.name, right: meant.ports[0]!.attributes.lid })
  return atLid === undefined && own.fabric?.subnet?.reached(lid).length === 0
    ? createCause('LID_UNKNOWN', { lid })
    : undefined
}

/** The cause that takes the place of NO_ANSWER for a queue pair; undefined: none of these. */
export const causeByLid = (device: Device, own: SoftState, row: number): Cause | undefined => {
  const { queues, qps, engine } = own
  const address = stateOf(device) && queues[row]?.address
  if (address === undefined) return undefined
  const { destQpn } = engine().query(row)
  const qpn = qps[row]?.state.qpn
  /** The row of a queue pair of the number that is connected to this one. */
  const peerRowOn = (each: Device): number => {
    const state = stateOf(each)
    const peer = state?.qpns.rowOf(destQpn) ?? -1
    const isPeer = peer >= 0 && !(each === device && peer === row) && state?.engine().query(peer).destQpn === qpn
    return isPeer ? peer : -1
  }
  const cause = causeOf(device, own, row, address, destQpn, peerRowOn)
  // The packets arrive.
  return cause?.id === 'GRH_OF_OTHER' ? undefined : cause
}

const causeOfLostMulticast = (device: Device, own: SoftState, { dlid, dgid }: Address): Cause | undefined => {
  const members = devicesOf(device).filter(each => stateOf(each)!.groups.rowsOf(dgid).length > 0)
  const [first] = members
  if (first === undefined) return undefined
  const reached: readonly unknown[] = own.fabric?.subnet?.reached(dlid) ?? []
  const fabrics: readonly unknown[] = devicesOf(device).map(each => stateOf(each)!.fabric)
  // What is no device's leads to ports of other daemons.
  if (members.includes(device) || reached.some(each => !fabrics.includes(each))) return undefined
  if (members.some(each => reached.includes(stateOf(each)!.fabric))) return undefined
  return causeByState([device]) ?? createCause('NOT_JOINED', { port: first.name, lid: dlid })
}

/** `RequestReader.whyLost` */
export const causeOfLostDatagram = (
  device: Device,
  qpn: number,
  to: Uint8Array,
  destQpn: number,
): Cause | undefined => {
  if (isMulticastGid(to) && destQpn !== MULTICAST_QPN)
    return createCause('GROUP_QPN', { group: addressText(to), qpn: destQpn })
  const own = stateOf(device)
  const row = own?.qpns.rowOf(qpn) ?? -1
  const address = own?.queues[row]?.destinations?.address()
  if (own === undefined || address === undefined) return undefined
  if (address.dlid >= FIRST_MULTICAST_LID) return causeOfLostMulticast(device, own, address)
  const isHere = devicesOf(device).some(({ ports }) => ports[0]!.attributes.lid === address.dlid)
  // A port of another daemon.
  if (!isHere && (own.fabric?.subnet?.reached(address.dlid).length ?? 0) > 0) return undefined
  const peerRowOn = (each: Device): number => {
    const { qpns, qps } = stateOf(each)!
    const peer = qpns.rowOf(destQpn)
    return qps[peer]?.class.name === 'ud_qp' ? peer : -1
  }
  return causeOf(device, own, row, address, destQpn, peerRowOn)
}
