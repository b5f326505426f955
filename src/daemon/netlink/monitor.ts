/*
 * Sends events of devices to netlink group RDMA_NL_GROUP_NOTIFY, for `rdma monitor` (Linux: rdma_nl_notify_event).
 */
import type { Identity } from '../../core/devices/identity.ts'
import type { LinkedDevice } from '../../core/driver-contract.ts'
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

const notify = (netlink: Netlink, event: MonitorEventName, entries: Entries): void => {
  const body = encodeAttributes([...entries, ['EVENT_TYPE', MonitorEvent[event]]])
  netlink.multicast(
    RDMA_NL_GROUP_NOTIFY,
    writeMessage({ type: nldevType(MONITOR), flags: 0, sequence: 0, port: 0, body }),
  )
}

/** As in Linux, sends no event about a port without an interface, for which `interfaceEntries` is empty. */
const notifyInterface = (
  netlink: Netlink,
  event: MonitorEventName,
  found: Pick<DaemonDevice, 'device'>,
  port: number,
  interfaceEntries: Entries,
): void => {
  if (interfaceEntries.length > 0)
    notify(netlink, event, [...handleOf(found), ['PORT_INDEX', port], ...interfaceEntries])
}

export const notifyAdded = (netlink: Netlink, added: DaemonDevice): void => {
  notify(netlink, 'REGISTER', handleOf(added))
  for (const { number } of added.device.ports)
    notifyInterface(netlink, 'NETDEV_ATTACH', added, number, interfaceOf(added))
}

/** The interface of a device was replaced or renamed. */
export const notifyMoved = (
  netlink: Netlink,
  { device, link }: Pick<LinkedDevice, 'device' | 'link'>,
  previous: Identity,
): void => {
  const send = (event: MonitorEventName, identity: Identity): void =>
    notifyInterface(netlink, event, { device }, 1, describeInterface(identity))
  const { identity } = link
  // As in Linux (fill_mon_netdev_rename), without device and port.
  if (previous.interfaceIndex === identity.interfaceIndex) notify(netlink, 'NETDEV_RENAME', describeInterface(identity))
  else {
    send('NETDEV_DETACH', previous)
    send('NETDEV_ATTACH', identity)
  }
}

export const notifyRenamed = (netlink: Netlink, renamed: DaemonDevice): void =>
  notify(netlink, 'RENAME', handleOf(renamed))

export const notifyRemoved = (netlink: Netlink, removed: DaemonDevice): void =>
  notify(netlink, 'UNREGISTER', handleOf(removed))
