/*
 * Why a peer on InfiniBand does not answer: no port, or another one than the peer's, has the LID of the path; or one of
 * the two ports is not ACTIVE. Of a port that is DOWN, the outage is the reason.
 */
import type { Device } from '../../core/model.ts'
import { type Cause, createCause } from '../../spec/check/causes.ts'
import { nameIn, PortState } from '../../spec/enums.ts'
import type { SoftState } from './state.ts'

const { INIT, ARMED } = PortState.values

const stateOf = ({ driver, state }: Device): SoftState | undefined =>
  driver.link === 'ib' ? (state as SoftState) : undefined

/** The cause that takes the place of NO_ANSWER for a queue pair; undefined: none of these. */
export const causeByLid = (device: Device, own: SoftState, row: number): Cause | undefined => {
  const { fabric, queues, qps, engine } = own
  const lid = queues[row]?.address?.dlid
  if (fabric === undefined || lid === undefined) return undefined
  const devices = [...device.core.devices.values()].filter(each => stateOf(each) !== undefined)
  const atLid = devices.find(({ ports }) => lid !== 0 && ports[0]!.attributes.lid === lid)
  for (const { name, ports } of atLid === undefined ? [device] : [device, atLid]) {
    const { state } = ports[0]!.attributes
    if (state === INIT || state === ARMED)
      return createCause('PORT_NOT_ACTIVE', { port: name, state: nameIn(PortState.values, state) })
  }
  const { destQpn } = engine().query(row)
  const qpn = qps[row]?.state.qpn
  /** Whether the device has a queue pair of the number that is connected to this one. */
  const hasPeer = (each: Device): boolean => {
    const peer = stateOf(each)?.qpns.rowOf(destQpn) ?? -1
    return peer >= 0 && !(each === device && peer === row) && stateOf(each)?.engine().query(peer).destQpn === qpn
  }
  const meant = atLid !== undefined && hasPeer(atLid) ? undefined : devices.find(hasPeer)
  if (meant !== undefined)
    return createCause('LID_OF_OTHER', {
      lid,
      peerQpn: destQpn,
      port: meant.name,
      right: meant.ports[0]!.attributes.lid,
    })
  return atLid === undefined && fabric.subnet?.reached(lid).length === 0
    ? createCause('LID_UNKNOWN', { lid })
    : undefined
}
