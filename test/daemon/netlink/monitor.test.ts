/*
 * Events of devices to the group RDMA_NL_GROUP_NOTIFY.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { identify } from '../../../src/core/devices/identity.ts'
import { isLinked } from '../../../src/core/driver-contract.ts'
import type { DaemonDevice } from '../../../src/daemon/devices/devices.ts'
import { notifyAdded, notifyMoved } from '../../../src/daemon/netlink/monitor.ts'
import type { Netlink } from '../../../src/daemon/netlink/netlink.ts'
import { MonitorEvent, RDMA_NL_GROUP_NOTIFY } from '../../../src/spec/linux/nldev.ts'
import { parseAddress } from '../../../src/transport/wire/address.ts'
import { decodeAttributes } from '../../../src/uapi/nldev/attributes.ts'
import { readMessages } from '../../../src/uapi/nldev/messages.ts'
import { machine } from '../../drivers/rxe/machine.ts'
import { attributeOf } from './test-socket.ts'

const identityAt = (index: number) => identify(parseAddress('127.0.0.1') as Uint8Array, { name: 'lo', index })

/** The events that `notify` sends about a device whose interface has this index; index 0: the device has none. */
const eventsOf = (index: number, notify: (netlink: Netlink, device: DaemonDevice) => void): unknown[] => {
  const events: unknown[] = []
  const netlink: Pick<Netlink, 'multicast'> = {
    multicast(group, datagram) {
      assert.equal(group, RDMA_NL_GROUP_NOTIFY)
      for (const { body } of readMessages(datagram)) {
        const entries = decodeAttributes(body)
        const isAboutDevice = attributeOf(entries, 'EVENT_TYPE') !== MonitorEvent.NETDEV_RENAME
        assert.equal(attributeOf(entries, 'DEV_NAME'), isAboutDevice ? 'rxe0' : undefined)
        events.push([attributeOf(entries, 'EVENT_TYPE'), attributeOf(entries, 'NDEV_INDEX')])
      }
    },
  }
  const [rxe] = machine(1).devices
  rxe.device.state.identity = identityAt(index)
  notify(
    netlink as Netlink,
    { spec: { name: 'rxe0', address: '127.0.0.1' }, device: rxe.device, network: rxe } as DaemonDevice,
  )
  return events
}

it('an event about the interface of a port has the index of the interface; without interface there is no event', () => {
  const { REGISTER, NETDEV_ATTACH, NETDEV_DETACH, NETDEV_RENAME } = MonitorEvent
  assert.deepEqual(eventsOf(7, notifyAdded), [
    [REGISTER, undefined],
    [NETDEV_ATTACH, 7],
  ])
  assert.deepEqual(eventsOf(0, notifyAdded), [[REGISTER, undefined]])
  const moveFrom =
    (previous: number) =>
    (netlink: Netlink, { network }: DaemonDevice) =>
      isLinked(network) && notifyMoved(netlink, network, identityAt(previous))
  assert.deepEqual(eventsOf(7, moveFrom(7)), [[NETDEV_RENAME, 7]])
  assert.deepEqual(eventsOf(7, moveFrom(6)), [
    [NETDEV_DETACH, 6],
    [NETDEV_ATTACH, 7],
  ])
  assert.deepEqual(eventsOf(7, moveFrom(0)), [[NETDEV_ATTACH, 7]])
})
