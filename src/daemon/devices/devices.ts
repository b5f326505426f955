/*
 * The devices of a daemon, which may be added and removed while it runs (R23, R29). Only soft devices have a port of
 * the network.
 */

import type { Assembly } from '../../assembly/assembly.ts'
import { identityOf } from '../../assembly/host-identity.ts'
import { noDeviceText } from '../../base/suggest.ts'
import { findGid } from '../../core/devices/gids.ts'
import { renameDevice, unregister } from '../../core/devices/registry.ts'
import {
  type AdapterFacts,
  isLinked,
  type LinkedDevice,
  type NetworkDevice,
  type RegisteredDriver,
} from '../../core/driver-contract.ts'
import type { Core, Device } from '../../core/model.ts'
import type { Interfaces } from '../../host/net/interfaces.ts'
import { hasPciFunction, numaNodes } from '../../host/processors.ts'
import type { Clients } from '../../services/clients.ts'
import { guidBytes } from '../../settings/fabric.ts'
import { CallError } from '../../spec/errno.ts'
import { functionsOf, type Machine, type MachineFunction } from '../../tools/topology/machine-file.ts'
import { lidOf, parseAddress } from '../../transport/wire/address.ts'
import type { DeviceSpec, ListedDevice } from '../../uapi/tool.ts'
import type { Loop } from '../loop.ts'
import {
  checkDevices,
  deviceNameError,
  driverOf,
  fabricOf,
  hasAddress,
  NO_NODE,
  withPciFunction,
} from './device-spec.ts'
import type { Network } from './network.ts'

export interface DaemonDevice {
  spec: DeviceSpec
  readonly device: Device
  /** Undefined for a device that only answers calls. */
  readonly network: NetworkDevice | undefined
}

/** Those with a port that has the address: a GID, or a LID as `lidAddress`. */
export const devicesWith = ({ all }: Pick<Devices, 'all'>, address: Uint8Array): DaemonDevice[] => {
  const lid = lidOf(address)
  return all.filter(({ device: { ports } }) =>
    ports.some(({ gids, attributes }) => (lid > 0 ? attributes.lid === lid : findGid(gids, address) >= 0)),
  )
}

/** What follows changes of the devices. */
export interface DeviceListener {
  added?(device: DaemonDevice): void
  /** `previous`: the name before. */
  renamed?(device: DaemonDevice, previous: string): void
  /** The state of its port. */
  changed?(device: DaemonDevice): void
  /** The device is not in the list any more; its objects may still exist. */
  removed?(device: DaemonDevice): void
  /** The objects of a removed device are destroyed, and its port is closed. */
  ended?(device: DaemonDevice): void
}

/** The only list of the daemon's devices: all others ask it, or listen. */
export interface Devices {
  /** In the order of their creation. Always the same array. */
  readonly all: readonly DaemonDevice[]
  /** Those with a network interface. */
  readonly linked: readonly LinkedDevice[]
  /** As tools list them. */
  readonly listed: readonly ListedDevice[]
  /** Called in their order. */
  readonly listeners: Set<DeviceListener>
  readonly drivers: readonly RegisteredDriver[]
  find(name: string): DaemonDevice | undefined
  /** The device of uverbsN, N being `node`. */
  atNode(node: number): DaemonDevice | undefined
  /** Undefined for a device that was removed. */
  of(device: Device): DaemonDevice | undefined
  /** Whether `address` (16 bytes) is a GID of a device of `among` that has not been removed. */
  hasAddress(address: Uint8Array, among: ReadonlySet<LinkedDevice>): boolean
  /**
   * Adds a device. Throws an Error with a message for people: the name, address or PCI function is in use, this machine
   * does not have the address or the NUMA node, or a removed device still has objects (`removing`).
   */
  add(spec: DeviceSpec): DaemonDevice
  /**
   * Ends when the objects of removed devices are destroyed, which may still have the address of a new one. Yields while
   * that goes on in jobs of its own.
   */
  removing(): Generator<undefined, void>
  /**
   * Removes a device, even if it has clients. Throws an Error with a message for people if no device has this name.
   */
  remove(name: string): void
  /** Renames a device; open contexts continue. Throws CallError EINVAL, EEXIST. */
  rename(device: DaemonDevice, name: string): void
  /** Call this when the state of a device's port has changed. */
  changed(device: Device): void
  removeAll(): void
}

/** Loads what such devices need. Call before `Devices.add`. */
export const loadFor = async (specs: readonly DeviceSpec[], clients: Pick<Clients, 'loadSubnet'>): Promise<void> => {
  if (specs.some(({ layer }) => layer === 'infiniband')) await clients.loadSubnet()
}

/** The adapter of a machine file that the device is; undefined: it is none. */
const adapterIn = (machine: Machine | undefined, { pci }: DeviceSpec): MachineFunction | undefined =>
  machine && pci && functionsOf(machine).find(({ address }) => address === pci.address)

/** What the port and the adapter tell, by the machine file. */
const factsOf = (found: MachineFunction | undefined): AdapterFacts | undefined =>
  found && { rate: found.rdma?.rate, partId: found.ids[1] }

/**
 * Throws an Error if the machine has the device's PCI function itself, or lacks the NUMA node. `shown`: the machine
 * that programs are shown.
 */
const checkPciFunction = (spec: DeviceSpec, shown: Machine | undefined): void => {
  const { name, pci } = spec
  if (pci === undefined) return
  if (shown !== undefined) {
    const found = adapterIn(shown, spec)
    if (found !== undefined && found.rdma === undefined)
      throw new Error(
        `device ${name}: pci=${pci.address} is a function of the machine file that has no rdma=; give it one, or choose another address`,
      )
    return
  }
  if (hasPciFunction(pci.address))
    throw new Error(
      `device ${name}: pci=${pci.address} is a function of this machine; choose an address that is not in /sys/bus/pci/devices`,
    )
  const nodes = numaNodes()
  if (pci.node !== NO_NODE && !nodes.includes(pci.node))
    throw new Error(
      `device ${name}: numa=${pci.node} is no NUMA node of this machine, which has ${nodes.join(', ')}; ${NO_NODE} is none`,
    )
}

/**
 * `interfaces`: undefined with `--link memory`, and on systems without netlink. `polled`: polls
 * the devices. `drivers`: as for `driverOf`. `machine`: the one that programs are shown; absent: this one.
 */
/** Gives a new device the addresses of `vlan=`. Throws an Error with a message for people. */
const addVlans = ({ vlans = [] }: DeviceSpec, device: NetworkDevice | undefined): void => {
  const { link } = isLinked(device) ? device : {}
  for (const { id, addresses } of vlans)
    for (const address of addresses)
      link?.addAddress(parseAddress(address) as Uint8Array, 'own', {
        id,
        name: `${link.identity.interfaceName}.${id}`,
        index: 0,
      })
}

export const createDevices = (
  core: Core,
  network: Network,
  interfaces: Interfaces | undefined,
  polled: Pick<Loop, 'add' | 'remove'>,
  addDevice: Assembly['addDevice'],
  drivers: readonly RegisteredDriver[],
  machine?: Machine,
): Devices => {
  const all: DaemonDevice[] = []
  const listeners = new Set<DeviceListener>()
  const notify = (tell: (listener: DeviceListener) => void): void => {
    for (const listener of listeners) tell(listener)
  }

  const create = (spec: DeviceSpec): DaemonDevice => {
    const { name } = spec
    const driver = driverOf(spec, drivers)
    const refuse = (): Error =>
      new Error(`device "${name}": driver ${driver.name} returned no device of this name and core`)
    const identity = hasAddress(spec) ? identityOf(spec, interfaces) : undefined
    if (spec.vlans !== undefined && !network.hasVlans)
      throw new Error(
        `device "${name}": vlan= is for --link memory; on another link make the interface (ip link add link eth0 name eth0.100 type vlan id 100), whose addresses the device takes`,
      )
    let made: Device | undefined
    try {
      // The driver may be JavaScript, without types.
      const created: Device | NetworkDevice | undefined = addDevice(
        driver,
        name,
        identity && {
          identity,
          dcqcn: spec.dcqcn,
          limits: spec.limits,
          fabric: fabricOf(spec),
          adapter: factsOf(adapterIn(machine, spec)),
          attach: own => network.attach(spec, identity, own),
        },
      )
      if (created === undefined) throw refuse()
      const polledDevice = 'poll' in created ? created : undefined
      const device = polledDevice?.device ?? (created as Device)
      if (device.core !== core || device.name !== name) throw refuse()
      made = device
      addVlans(spec, polledDevice)
      if (spec.nodeGuid !== undefined) Object.assign(device.attributes, { nodeGuid: guidBytes(spec.nodeGuid) })
      return { spec, device, network: polledDevice }
    } catch (error) {
      network.detach(name)
      if (made !== undefined) unregister(made, () => {})
      throw error
    }
  }

  const devices: Devices = {
    all,
    get linked() {
      return all.flatMap(({ network: found }) => (isLinked(found) ? [found] : []))
    },
    listeners,
    get listed() {
      return all.map(({ spec, device }) => ({ ...spec, node: device.index }))
    },
    drivers,
    find: name => all.find(({ spec }) => spec.name === name),
    atNode: node => all.find(({ device }) => device.index === node),
    of: device => all.find(found => found.device === device),
    hasAddress: (address, among) =>
      all.some(
        ({ device: { ports }, network: found }) =>
          isLinked(found) && among.has(found) && ports.some(({ gids }) => findGid(gids, address) >= 0),
      ),
    *removing() {
      while (core.endingDevices.size > 0) yield
    },
    add(given) {
      if (core.endingDevices.size > 0)
        throw new Error(`device ${given.name}: a device that was removed still has objects; try again`)
      const spec = withPciFunction(
        given,
        all.flatMap(({ spec: { pci } }) => pci?.address ?? []),
      )
      if (devices.find(spec.name) !== undefined) throw new Error(`there is a device ${spec.name} already`)
      checkDevices([...all.map(device => device.spec), spec])
      checkPciFunction(spec, machine)
      const created = create(spec)
      all.push(created)
      const { subnetPort } = created.network ?? {}
      if (subnetPort !== undefined) subnetPort.changed = () => notify(listener => listener.changed?.(created))
      if (created.network !== undefined) polled.add(created.network)
      notify(listener => listener.added?.(created))
      return created
    },
    remove(name) {
      const found = devices.find(name)
      if (found === undefined)
        throw new Error(
          noDeviceText(
            name,
            all.map(({ spec }) => spec.name),
          ),
        )
      all.splice(all.indexOf(found), 1)
      if (found.network !== undefined) polled.remove(found.network)
      network.detach(name)
      unregister(found.device, () => notify(listener => listener.ended?.(found)))
      notify(listener => listener.removed?.(found))
    },
    rename(found, name) {
      const previous = found.spec.name
      if (name === previous) return
      const nameError = deviceNameError(name)
      if (nameError !== undefined) throw new CallError('EINVAL', nameError)
      renameDevice(found.device, name)
      network.rename(previous, name)
      found.spec = { ...found.spec, name }
      notify(listener => listener.renamed?.(found, previous))
    },
    changed(device) {
      const found = devices.of(device)
      if (found !== undefined) notify(listener => listener.changed?.(found))
    },
    removeAll() {
      for (const { spec } of [...all].reverse()) devices.remove(spec.name)
    },
  }
  return devices
}
