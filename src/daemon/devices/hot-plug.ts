/*
 * What follows when devices are added, renamed and removed while the daemon runs: the files that programs read
 * (daemon/files/device-files.ts), the events of NETLINK_RDMA, and the interfaces of devices.
 */

import { isLinked, type NetworkDevice } from '../../core/driver-contract.ts'
import type { Interfaces } from '../../host/net/interfaces.ts'
import type { RdmaCm } from '../../services/rdma-cm/rdma-cm.ts'
import type { Machine } from '../../tools/topology/machine-file.ts'
import type { Contexts } from '../context/contexts.ts'
import type { ShownMachine } from '../files/machine-tree.ts'
import { createNamespaceFiles, type NamespaceFiles } from '../files/namespace-files.ts'
import type { Loop } from '../loop.ts'
import { type Notified, notifyAdded, notifyMoved, notifyRemoved, notifyRenamed } from '../netlink/monitor.ts'
import type { Netlink } from '../netlink/netlink.ts'
import type { DaemonDevice, DeviceListener, Devices } from './devices.ts'
import { InterfaceFollower } from './follow-interfaces.ts'
import type { DeviceNamespaces } from './namespaces.ts'

export interface HotPlugParts {
  readonly devices: Devices
  /** Folder of the files. */
  readonly root: string
  readonly cm: RdmaCm
  readonly contexts: Contexts
  readonly netlink: Netlink
  readonly namespaces: DeviceNamespaces
  readonly loop: Loop
  /** The machine that programs are shown; undefined: this one. */
  readonly machine: Machine | undefined
  /** Removes a device that threw. */
  readonly removeFaulty: (device: NetworkDevice, error: unknown) => void
}

const shownMachine = (machine: Machine, devices: readonly DaemonDevice[]): ShownMachine => ({
  machine,
  drivers: new Map(
    devices.flatMap(({ spec: { pci }, device }) =>
      pci === undefined ? [] : [[pci.address, device.driver.name] as const],
    ),
  ),
})

export class HotPlug implements DeviceListener {
  readonly #parts: HotPlugParts
  readonly #notified: Notified
  #files: NamespaceFiles | undefined
  #follower: InterfaceFollower | undefined

  constructor(parts: HotPlugParts) {
    this.#parts = parts
    const { netlink, namespaces } = parts
    this.#notified = { multicast: netlink.multicast, sees: (namespace, device) => namespaces.sees(namespace, device) }
  }

  /** Writes the files of all devices. `interfaces`: as for `createDevices`. Throws the system's error. */
  start(interfaces: Interfaces | undefined): void {
    const { devices, root, cm, namespaces, removeFaulty, machine } = this.#parts
    const files = createNamespaceFiles(root, devices.all, namespaces, machine && shownMachine(machine, devices.all))
    this.#files = files
    // The follower may find a device that throws, and is removed.
    devices.listeners.add(this)
    if (interfaces)
      this.#follower = new InterfaceFollower(
        interfaces,
        devices,
        (device, previous) => {
          files.update(device)
          if (previous !== undefined) notifyMoved(this.#notified, device, previous)
        },
        removeFaulty,
        {
          ownMac: ({ device }, mac) => cm.hardwareAddressChanged(device, mac),
          neighbourMac: ({ device }, address, mac) => cm.neighbourChanged(device, address, mac),
        },
      )
  }

  added(added: DaemonDevice): void {
    this.#files?.add(added)
    if (isLinked(added.network)) this.#follower?.follow(added.network)
    this.#parts.loop.kick()
    notifyAdded(this.#notified, added)
  }

  renamed(renamed: DaemonDevice, previous: string): void {
    this.#files?.rename(renamed, previous)
    notifyRenamed(this.#notified, renamed)
  }

  changed({ network }: DaemonDevice): void {
    if (isLinked(network)) this.#files?.update(network)
    this.#parts.loop.kick()
  }

  removed(removed: DaemonDevice): void {
    this.#parts.contexts.hangUp(removed.device)
    this.#files?.remove(removed)
    notifyRemoved(this.#notified, removed)
  }

  ended({ network }: DaemonDevice): void {
    if (isLinked(network)) this.#follower?.unfollow(network)
  }

  /** The folder of the files for programs in a network namespace. */
  rootOf(namespace: string | undefined): string {
    return this.#files?.rootOf(namespace) ?? this.#parts.root
  }

  /** Returns as `DeviceFiles.refreshCounters`. */
  refreshCounters(): number {
    return this.#files?.refreshCounters() ?? 0
  }

  /** At the end of the daemon: what follows is the removal of all devices, of which nobody is told. */
  stop(): void {
    this.#parts.devices.listeners.delete(this)
  }

  /** Removes the files of all devices. To be called once, last. */
  close(): void {
    this.#files?.close()
  }
}
