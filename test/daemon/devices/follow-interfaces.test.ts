/*
 * Devices that follow an interface, with a simulated table of interfaces.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { createCore } from '../../../src/core/index.ts'
import { InterfaceFollower } from '../../../src/daemon/devices/follow-interfaces.ts'
import { identify } from '../../../src/drivers/rxe/address/identity.ts'
import { createRxeDevice } from '../../../src/drivers/rxe/device.ts'
import type { InterfaceListener, Interfaces, NetworkInterface } from '../../../src/host/net/interfaces.ts'
import { withFaults } from '../../../src/phy/faults/layer.ts'
import { createMemorySwitch, memorySwitchBytes } from '../../../src/phy/memory.ts'
import { plainArena } from '../../../src/wire/arena.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'

/** Index of the interface that the device follows. */
const INDEX = 7

it('the MAC of the interface is reported while it is a bond, and MACs of neighbours on this interface', () => {
  const link = createMemorySwitch({ arena: plainArena(memorySwitchBytes()) })
  const rxe = createRxeDevice(createCore(), {
    name: 'rxe0',
    identity: identify(ipv4(10, 0, 0, 1), { name: 'bond0', index: INDEX }),
    port: withFaults(link.attach(), 'rxe0', []),
    now: () => 0,
  })
  const mac = (last: number): Uint8Array => Uint8Array.of(2, 0, 0, 0, 0, last)
  const bond: NetworkInterface = {
    index: INDEX,
    name: 'bond0',
    mac: mac(1),
    mtu: 1500,
    isUp: true,
    hasCarrier: true,
    isLoopback: false,
    isBond: true,
  }
  const links = new Map([[INDEX, bond]])
  let listener: InterfaceListener | undefined
  const interfaces: Interfaces = {
    links: () => links,
    addresses: () => [],
    withAddress: () => undefined,
    neighbourOf: () => undefined,
    listen(added) {
      listener = added
    },
    close() {},
  }
  /** Last bytes of the MACs that were reported as the device's own. */
  const reported: number[] = []
  const fail = (_device: object, error: unknown): void => {
    throw error
  }
  const neighbours: string[] = []
  new InterfaceFollower(interfaces, [rxe], () => {}, fail, {
    ownMac: (_device, { 5: last }) => reported.push(last!),
    neighbourMac: ({ device: { name } }, { 15: last }, mac) => neighbours.push(`${name} ${last} ${mac}`),
  })
  assert.deepEqual(reported, [1])
  listener?.link(INDEX, { ...bond, mac: mac(2) })
  listener?.link(INDEX, { ...bond, mac: mac(3), isBond: false })
  assert.deepEqual(reported, [1, 2])
  listener?.neighbour(INDEX, ipv4(10, 0, 0, 9), 'aa')
  listener?.neighbour(INDEX + 1, ipv4(10, 0, 0, 9), 'bb')
  assert.deepEqual(neighbours, ['rxe0 9 aa'])
})
