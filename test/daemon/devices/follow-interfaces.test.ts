/*
 * Devices that follow an interface, with a simulated table of interfaces.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import { portSpeed } from '../../../src/core/base/device.ts'
import { identify } from '../../../src/core/devices/identity.ts'
import { addFailureHandler } from '../../../src/core/failures.ts'
import { createCore, type Device } from '../../../src/core/index.ts'
import type { DaemonDevice, Devices } from '../../../src/daemon/devices/devices.ts'
import { InterfaceFollower } from '../../../src/daemon/devices/follow-interfaces.ts'
import { HotPlug, type HotPlugParts } from '../../../src/daemon/devices/hot-plug.ts'
import { DeviceNamespaces } from '../../../src/daemon/devices/namespaces.ts'
import { createRxeDevice } from '../../../src/drivers/rxe/device.ts'
import { EADDRINUSE, EADDRNOTAVAIL, SystemError } from '../../../src/host/errno.ts'
import type { InterfaceListener, Interfaces, NetworkInterface } from '../../../src/host/net/interfaces.ts'
import { AsyncEventType, PortState } from '../../../src/spec/enums.ts'
import { withFaults } from '../../../src/transport/phy/faults/layer.ts'
import { createMemorySwitch, memorySwitchBytes } from '../../../src/transport/phy/memory.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { scratchFolder } from '../../tools.ts'

const folder = scratchFolder()

/** The index of the interface. */
const INDEX = 7

const mac = (last: number): Uint8Array => Uint8Array.of(2, 0, 0, 0, 0, last)
const link: NetworkInterface = {
  index: INDEX,
  name: 'eth7',
  mac: mac(1),
  mtu: 1500,
  isUp: true,
  hasCarrier: true,
  isLoopback: false,
  isBond: false,
}

/** A table with one interface, which has `addresses`. Listeners are told of each change. */
const simulate = (simulated: NetworkInterface, addresses: Uint8Array[] = []) => {
  const listeners: InterfaceListener[] = []
  const links = new Map([[INDEX, simulated]])
  const interfaces: Interfaces = {
    links: () => links,
    addresses: () => addresses,
    withAddress: () => undefined,
    neighbourOf: () => undefined,
    listen: added => void listeners.push(added),
    close() {},
  }
  return {
    interfaces,
    listeners,
    addAddress(address: Uint8Array): void {
      addresses.push(address)
      for (const listener of listeners) listener.address(INDEX, address, true)
    },
    removeAddress(address: Uint8Array): void {
      addresses.splice(addresses.indexOf(address), 1)
      for (const listener of listeners) listener.address(INDEX, address, false)
    },
    setInterface(now: NetworkInterface): void {
      links.set(now.index, now)
      for (const listener of listeners) listener.link(now.index, now)
    },
    removeInterface(): void {
      links.delete(INDEX)
      for (const listener of listeners) listener.link(INDEX, undefined)
    },
  }
}

/** Creates devices on one memory link. */
const deviceMaker = () => {
  const memoryLink = createMemorySwitch({ arena: plainArena(memorySwitchBytes()) })
  const core = createCore()
  return (name: string, address: Uint8Array, interfaceName = link.name) =>
    createRxeDevice(core, {
      name,
      identity: identify(address, { mac: mac(1), name: interfaceName, index: INDEX }),
      port: withFaults(memoryLink.attach(), name, []),
      now: () => 0,
    })
}

const fail = (_device: object, error: unknown): void => {
  throw error
}
const noMacs = { ownMac: () => {}, neighbourMac: () => {} }

/** The last bytes of a device's GIDs, without the default GID. */
const lastBytes = ({ device: { ports } }: ReturnType<ReturnType<typeof deviceMaker>>): number[] =>
  ports[0]!.gids.entries.slice(1).flatMap(entry => (entry === undefined ? [] : [entry.gid[15]!]))

it('a device that joins an interface takes its address from the first device, and later returns it', () => {
  const [first, second, third, fourth] = [1, 2, 3, 4].map(last => ipv4(10, 0, 0, last)) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ]
  const { interfaces, addAddress, removeAddress } = simulate(link, [first, second, third])
  const create = deviceMaker()
  const a = create('rxe0', first)
  const devices = [a]
  const follower = new InterfaceFollower(interfaces, { linked: devices }, () => {}, fail, noMacs)
  assert.deepEqual(lastBytes(a), [1, 2, 3])
  // Over UDP, the new device's socket takes the address.
  a.device.state.port.removeAddress(second)
  const b = create('rxe1', second)
  devices.push(b)
  follower.follow(b)
  assert.deepEqual([lastBytes(a), lastBytes(b)], [[1, 3], [2]])
  addAddress(fourth)
  removeAddress(third)
  assert.deepEqual(
    [lastBytes(a), lastBytes(b)],
    [[1], [2]],
    'no device gets an added address while two share the interface',
  )
  devices.pop()
  b.device.state.port.close()
  follower.unfollow(b)
  assert.deepEqual(lastBytes(a), [1, 2, 4])
})

it('a device takes the addresses of VLAN interfaces over its own, but no link-local ones', () => {
  const rxe = deviceMaker()('rxe0', ipv4(10, 0, 0, 1))
  const { interfaces, listeners, setInterface } = simulate(link)
  new InterfaceFollower(interfaces, { linked: [rxe] }, () => {}, fail, noMacs)
  const VLAN = INDEX + 1
  setInterface({ ...link, index: VLAN, name: 'eth7.100', vlan: { id: 100, lower: INDEX } })
  setInterface({ ...link, index: VLAN + 1, name: 'eth8.100', vlan: { id: 100, lower: INDEX + 9 } })
  const [listener] = listeners
  const linkLocal = Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9)
  for (const address of [ipv4(10, 0, 100, 2), linkLocal]) listener!.address(VLAN, address, true)
  listener!.address(VLAN + 1, ipv4(10, 0, 100, 3), true)
  assert.deepEqual(lastBytes(rxe), [1, 2])
  const { entries } = rxe.device.ports[0].gids
  assert.deepEqual([entries[2]?.ifindex, entries[2]?.vlan], [VLAN, { id: 100, name: 'eth7.100', index: VLAN }])
  listener!.address(VLAN, ipv4(10, 0, 100, 2), false)
  assert.deepEqual(lastBytes(rxe), [1])
})

it('a device whose interface is deleted moves to a new interface of the same name', () => {
  const rxe = deviceMaker()('rxe0', ipv4(10, 0, 0, 1))
  const { interfaces, setInterface, removeInterface } = simulate(link)
  /** Indices of the device's earlier interfaces. */
  const previous: (number | undefined)[] = []
  new InterfaceFollower(
    interfaces,
    { linked: [rxe] },
    (_device, before) => previous.push(before?.interfaceIndex),
    fail,
    noMacs,
  )
  removeInterface()
  setInterface({ ...link, index: INDEX + 1, name: 'eth8' })
  assert.equal(rxe.device.state.identity.interfaceIndex, INDEX, 'the new interface has another name')
  previous.length = 0
  setInterface({ ...link, index: INDEX + 2 })
  assert.equal(rxe.device.state.identity.interfaceIndex, INDEX + 2)
  assert.equal(rxe.device.ports[0].gids.entries[1]?.ifindex, INDEX + 2)
  assert.equal(previous[0], INDEX)
})

it('a device whose interface is deleted moves to the interface that gets its own address', () => {
  const own = ipv4(10, 0, 0, 1)
  const rxe = deviceMaker()('rxe0', own)
  const { interfaces, listeners, setInterface, removeInterface } = simulate(link)
  new InterfaceFollower(interfaces, { linked: [rxe] }, () => {}, fail, noMacs)
  removeInterface()
  setInterface({ ...link, index: INDEX + 1, name: 'eth8' })
  const [listener] = listeners
  listener!.address(INDEX + 1, ipv4(10, 0, 0, 2), true)
  assert.equal(rxe.device.state.identity.interfaceIndex, INDEX, 'another address')
  listener!.address(INDEX + 1, own, true)
  assert.deepEqual(
    [rxe.device.state.identity.interfaceIndex, rxe.device.state.identity.interfaceName],
    [INDEX + 1, 'eth8'],
  )
})

it('a change of a port raises its event once; a change without an event only updates the device', t => {
  const create = deviceMaker()
  const rxe = create('rxe0', ipv4(10, 0, 0, 1))
  const events: number[] = []
  addFailureHandler(rxe.device.core, failure => {
    if (failure.event !== undefined) events.push(failure.event)
  })
  let updates = 0
  const { interfaces, addAddress, removeAddress, setInterface } = simulate(link)
  new InterfaceFollower(interfaces, { linked: [rxe] }, () => updates++, fail, noMacs)
  const changesOf = (body: () => void): [events: number[], updates: number] => {
    events.length = updates = 0
    body()
    return [[...events], updates]
  }
  const { PORT_ACTIVE, PORT_ERR, GID_CHANGE } = AsyncEventType.values
  const setState = (isUp: boolean, hasCarrier: boolean) => () => setInterface({ ...link, isUp, hasCarrier })
  assert.deepEqual(changesOf(setState(true, false)), [[PORT_ERR], 1])
  assert.deepEqual(changesOf(setState(true, false)), [[], 0])
  assert.deepEqual(changesOf(setState(false, false)), [[], 1], 'another physical state')
  assert.deepEqual(changesOf(setState(true, true)), [[PORT_ACTIVE], 1])
  const added = ipv4(10, 0, 0, 2)
  assert.deepEqual(
    changesOf(() => addAddress(added)),
    [[GID_CHANGE], 1],
  )
  t.mock.method(console, 'error', () => {})
  rxe.device.state.port.addAddress = () => {
    throw new SystemError('bind', EADDRINUSE)
  }
  assert.deepEqual(
    changesOf(() => addAddress(ipv4(10, 0, 0, 3))),
    [[], 0],
    'another program uses the address',
  )
  assert.deepEqual(lastBytes(rxe), [1, 2])
  // The interface has lost it again, of which the next news tells.
  rxe.device.state.port.addAddress = () => {
    throw new SystemError('bind', EADDRNOTAVAIL)
  }
  const brief = ipv4(10, 0, 0, 4)
  assert.deepEqual(
    changesOf(() => {
      addAddress(brief)
      removeAddress(brief)
    }),
    [[GID_CHANGE, GID_CHANGE], 2],
  )
})

it('another MAC of the interface is an event of each GID, and its link-local address is no default GID any more', () => {
  const rxe = deviceMaker()('rxe0', ipv4(10, 0, 0, 1))
  const defaultBefore = rxe.device.state.identity.gids[0]!
  const { interfaces, setInterface } = simulate(link, [ipv4(10, 0, 0, 1), defaultBefore])
  const events: (number | undefined)[] = []
  new InterfaceFollower(interfaces, { linked: [rxe] }, () => {}, fail, noMacs)
  addFailureHandler(rxe.device.core, ({ event }) => events.push(event))
  setInterface({ ...link, mac: mac(9) })
  const { GID_CHANGE } = AsyncEventType.values
  assert.deepEqual(
    events,
    new Array(4).fill(GID_CHANGE),
    'all leave; the default, the address, the link-local one come',
  )
  const { entries } = rxe.device.ports[0].gids
  assert.deepEqual(
    entries.slice(0, 3).map(entry => entry?.gid),
    [rxe.device.state.identity.gids[0], ipv4(10, 0, 0, 1), defaultBefore],
  )
})

it('a change of the speed of a port raises an event of devices whose driver has it, before that of the port', () => {
  const rxe = deviceMaker()('rxe0', ipv4(10, 0, 0, 1))
  const { device } = rxe
  Object.assign(device, { driver: { ...device.driver, hasSpeedEvents: true } })
  const events: (number | undefined)[] = []
  const { interfaces, setInterface } = simulate(link)
  new InterfaceFollower(interfaces, { linked: [rxe] }, () => {}, fail, noMacs)
  addFailureHandler(device.core, ({ event }) => events.push(event))
  const { PORT_ACTIVE, PORT_ERR, DEVICE_SPEED_CHANGE } = AsyncEventType.values
  const speeds: number[] = []
  for (const hasCarrier of [false, true]) {
    setInterface({ ...link, hasCarrier })
    speeds.push(portSpeed(device.ports[0]!))
  }
  assert.deepEqual(speeds, [0, 25])
  // Another MTU is not another speed.
  setInterface({ ...link, mtu: 4200 })
  assert.deepEqual(events, [DEVICE_SPEED_CHANGE, PORT_ERR, DEVICE_SPEED_CHANGE, PORT_ACTIVE, PORT_ACTIVE])
})

it('if the update of a device throws, the other devices are updated', () => {
  const create = deviceMaker()
  const devices = [create('rxe0', ipv4(10, 0, 0, 1)), create('rxe1', ipv4(10, 0, 0, 2))]
  const { interfaces, setInterface } = simulate(link)
  const failed: unknown[] = []
  let isBroken = false
  const onChanged = ({ device }: { device: { name: string } }): void => {
    if (isBroken && device.name === 'rxe0') throw new Error('a bug')
  }
  new InterfaceFollower(
    interfaces,
    { linked: devices },
    onChanged,
    ({ device }, error) => failed.push(device.name, error),
    noMacs,
  )
  isBroken = true
  setInterface({ ...link, isUp: false })
  assert.deepEqual(failed, ['rxe0', new Error('a bug')])
  assert.equal(devices[1]!.device.ports[0].attributes.state, PortState.values.DOWN)
})

it('the state of an interface is in the files of its device', () => {
  const rxe = deviceMaker()('rxe0', ipv4(10, 0, 0, 1))
  const { interfaces, setInterface } = simulate(link)
  const known: DaemonDevice = {
    spec: { name: 'rxe0', address: '10.0.0.1' },
    device: rxe.device as Device,
    network: rxe,
  }
  const root = join(folder, 'files')
  const devices = { all: [known], linked: [rxe], listeners: new Set() } as unknown as Devices
  const namespaces = new DeviceNamespaces(devices, job => {
    for (const _ of job);
  })
  new HotPlug({ root, devices, namespaces, netlink: { multicast() {} } } as unknown as HotPlugParts).start(interfaces)
  const state = (): string => readFileSync(join(root, 'sys/class/infiniband/rxe0/ports/1/state'), 'latin1')
  const parent = (): string => readFileSync(join(root, 'sys/class/infiniband/rxe0/parent'), 'latin1')
  assert.deepEqual([state(), parent()], ['4: ACTIVE\n', 'eth7\n'])
  setInterface({ ...link, isUp: false, hasCarrier: false })
  assert.equal(state(), '1: DOWN\n')
  setInterface({ ...link, name: 'eth9' })
  assert.deepEqual([state(), parent()], ['4: ACTIVE\n', 'eth9\n'])
})

it('the MAC of a bond, and MACs of neighbours on the interface, are reported', () => {
  const rxe = deviceMaker()('rxe0', ipv4(10, 0, 0, 1), 'bond0')
  const bond = { ...link, name: 'bond0', isBond: true }
  const { interfaces, listeners } = simulate(bond)
  /** Last bytes of reported MACs of the device. */
  const reported: number[] = []
  const neighbours: string[] = []
  new InterfaceFollower(interfaces, { linked: [rxe] }, () => {}, fail, {
    ownMac: (_device, { 5: last }) => reported.push(last!),
    neighbourMac: ({ device: { name } }, { 15: last }, mac) => neighbours.push(`${name} ${last} ${mac}`),
  })
  assert.deepEqual(reported, [1])
  const [listener] = listeners
  listener!.link(INDEX, { ...bond, mac: mac(2) })
  listener!.link(INDEX, { ...bond, mac: mac(3), isBond: false })
  assert.deepEqual(reported, [1, 2])
  listener!.neighbour(INDEX, ipv4(10, 0, 0, 9), 'aa')
  listener!.neighbour(INDEX + 1, ipv4(10, 0, 0, 9), 'bb')
  assert.deepEqual(neighbours, ['rxe0 9 aa'])
})
