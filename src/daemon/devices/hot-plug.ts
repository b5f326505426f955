/*
 * What follows when devices are added, renamed and removed while the daemon runs: the files that programs read
 * (daemon/files/device-files.ts), the events of NETLINK_RDMA, and the interfaces of devices.
 */
import type { RdmaCm } from '../../clients/rdma-cm/rdma-cm.ts'
import { isLinked, type NetworkDevice } from '../../core/driver-contract.ts'
import type { Interfaces } from '../../host/net/interfaces.ts'
import type { Contexts } from '../context/contexts.ts'
import { createDeviceFiles, type DeviceFiles } from '../files/device-files.ts'
import type { Loop } from '../loop.ts'
import { notifyAdded, notifyMoved, notifyRemoved, notifyRenamed } from '../netlink/monitor.ts'
import type { Netlink } from '../netlink/netlink.ts'
import type { DaemonDevice, DeviceListener, Devices } from './devices.ts'
import { InterfaceFollower } from './follow-interfaces.ts'

export interface HotPlugParts {
  readonly devices: Devices
  /** Folder of the files. */
  readonly root: string
  readonly cm: RdmaCm
  readonly contexts: Contexts
  readonly netlink: Netlink
  readonly loop: Loop
  /** Removes a device that threw. */
  readonly removeFaulty: (device: NetworkDevice, error: unknown) => void
}

export class HotPlug implements DeviceListener {
  readonly #parts: HotPlugParts
  #files: DeviceFiles | undefined
  #follower: InterfaceFollower | undefined

  constructor(parts: HotPlugParts) {
    this.#parts = parts
  }

  /** Writes the files of all devices. `interfaces`: as for `createDevices`. Throws the system's error. */
  start(interfaces: Interfaces | undefined): void {
    const { devices, root, cm, netlink, removeFaulty } = this.#parts
    const files = createDeviceFiles(root, devices.all)
    this.#files = files
    // The follower may find a device that throws, and is removed.
    devices.listeners.add(this)
    if (interfaces)
      this.#follower = new InterfaceFollower(
        interfaces,
        devices,
        (device, previous) => {
          files.update(device)
          if (previous !== undefined) notifyMoved(netlink, device, previous)
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
    notifyAdded(this.#parts.netlink, added)
  }

  renamed(renamed: DaemonDevice, previous: string): void {
    this.#files?.rename(renamed, previous)
    notifyRenamed(this.#parts.netlink, renamed)
  }

  removed(removed: DaemonDevice): void {
    this.#parts.contexts.hangUp(removed.device)
    this.#files?.remove(removed)
    notifyRemoved(this.#parts.netlink, removed)
  }

  ended({ network }: DaemonDevice): void {
    if (isLinked(network)) this.#follower?.unfollow(network)
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
