/*
 * What programs that listen are told of devices that come, change and go (Linux: rdma_nl_notify_event).
 */
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
import { interfaceOf } from './devices.ts'
import type { Netlink } from './netlink.ts'

const notify = (netlink: Netlink, event: MonitorEventName, about: Entries): void => {
  const body = encodeAttributes([...about, ['EVENT_TYPE', MonitorEvent[event]]])
  netlink.multicast(
    RDMA_NL_GROUP_NOTIFY,
    writeMessage({ type: nldevType(MONITOR), flags: 0, sequence: 0, port: 0, body }),
  )
}

export const notifyAdded = (netlink: Netlink, added: DaemonDevice): void => {
  notify(netlink, 'REGISTER', handleOf(added))
  for (const { number } of added.device.ports)
    notify(netlink, 'NETDEV_ATTACH', [...handleOf(added), ['PORT_INDEX', number], ...interfaceOf(added)])
}

export const notifyRenamed = (netlink: Netlink, renamed: DaemonDevice): void =>
  notify(netlink, 'RENAME', handleOf(renamed))

export const notifyRemoved = (netlink: Netlink, removed: DaemonDevice): void =>
  notify(netlink, 'UNREGISTER', handleOf(removed))
