/*
 * Sends events of devices to netlink group RDMA_NL_GROUP_NOTIFY, for `rdma monitor` (Linux: rdma_nl_notify_event).
 */
import type { Identity } from '../../core/devices/identity.ts'
import type { LinkedDevice } from '../../core/driver-contract.ts'
import type { Device } from '../../core/model.ts'
import {
  MONITOR,
  MonitorEvent,
  type MonitorEventName,
  nldevType,
  RDMA_NL_GROUP_NOTIFY,
} from '../../spec/linux/nldev.ts'
import { type Entries, encodeAttributes } from '../../uapi/nldev/attributes.ts'
import { writeMessage } from '../../uapi/nldev/messages.ts'
import type { DaemonDevice } from '../devices/devices.ts'
import { handleOf } from './answers.ts'
import { describeInterface, interfaceOf } from './devices.ts'
import type { Netlink } from './netlink.ts'

/** Sent by `multicast`, to those who see the device. */
export type Notified = Pick<Netlink, 'multicast'> & {
  /** Whether a network namespace sees a device; absent: yes. */
  sees?(namespace: string | undefined, device: Device): boolean
}

const notify = (
  netlink: Notified,
  event: MonitorEventName,
  { device }: Pick<DaemonDevice, 'device'>,
  entries: Entries,
): void => {
  const body = encodeAttributes([...entries, ['EVENT_TYPE', MonitorEvent[event]]])
  netlink.multicast(
    RDMA_NL_GROUP_NOTIFY,
    writeMessage({ type: nldevType(MONITOR), flags: 0, sequence: 0, port: 0, body }),
    ({ namespace }) => netlink.sees?.(namespace, device) !== false,
  )
}

/** As in Linux, sends no event about a port without an interface, for which `interfaceEntries` is empty. */
const notifyInterface = (
  netlink: Notified,
  event: MonitorEventName,
  found: Pick<DaemonDevice, 'device'>,
  port: number,
  interfaceEntries: Entries,
): void => {
  if (interfaceEntries.length > 0)
    notify(netlink, event, found, [...handleOf(found), ['PORT_INDEX', port], ...interfaceEntries])
}

export const notifyAdded = (netlink: Notified, added: DaemonDevice): void => {
  notify(netlink, 'REGISTER', added, handleOf(added))
  for (const { number } of added.device.ports)
    notifyInterface(netlink, 'NETDEV_ATTACH', added, number, interfaceOf(added))
}

/** The interface of a device was replaced or renamed. */
export const notifyMoved = (
  netlink: Notified,
  { device, link }: Pick<LinkedDevice, 'device' | 'link'>,
  previous: Identity,
): void => {
  const send = (event: MonitorEventName, identity: Identity): void =>
    notifyInterface(netlink, event, { device }, 1, describeInterface(device, identity))
  const { identity } = link
  const entries = describeInterface(device, identity)
  if (entries.length === 0) return
  // As in Linux (fill_mon_netdev_rename), without device and port.
  if (previous.interfaceIndex === identity.interfaceIndex) notify(netlink, 'NETDEV_RENAME', { device }, entries)
  else {
    send('NETDEV_DETACH', previous)
    send('NETDEV_ATTACH', identity)
  }
}

export const notifyRenamed = (netlink: Notified, renamed: DaemonDevice): void =>
  notify(netlink, 'RENAME', renamed, handleOf(renamed))

export const notifyRemoved = (netlink: Notified, removed: DaemonDevice): void =>
  notify(netlink, 'UNREGISTER', removed, handleOf(removed))
