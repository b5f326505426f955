/*
 * Adds, renames and removes devices while the daemon runs, also in the files that programs read
 * (daemon/files/device-files.ts), and sends the events of NETLINK_RDMA. Makes devices follow their interfaces.
 */
import type { Identity } from '../../core/devices/identity.ts'
import { isLinked, type LinkedDevice, type NetworkDevice } from '../../core/driver-contract.ts'
import type { Slices } from '../../host/event-loop/slices.ts'
import type { Interfaces } from '../../host/net/interfaces.ts'
import type { DeviceSpec } from '../../uapi/tool.ts'
import { createDeviceFiles, type DeviceFiles } from '../files/device-files.ts'
import { notifyAdded, notifyMoved, notifyRemoved, notifyRenamed } from '../netlink/monitor.ts'
import type { DaemonState } from '../state.ts'
import type { Devices } from './devices.ts'
import { InterfaceFollower } from './follow-interfaces.ts'

/** `objectJobs`: the slices in which objects are destroyed. `daemon` returns the state, which is created later. */
export class HotPlug {
  readonly #devices: Devices
  readonly #objectJobs: Slices
  readonly #daemon: () => DaemonState
  #files: DeviceFiles | undefined
  #follower: InterfaceFollower | undefined

  constructor(devices: Devices, objectJobs: Slices, daemon: () => DaemonState) {
    this.#devices = devices
    this.#objectJobs = objectJobs
    this.#daemon = daemon
  }

  /** Writes the files of all devices. `interfaces`: as for `createDevices`. Throws the system's error. */
  start(interfaces: Interfaces | undefined): void {
    const { root, cm } = this.#daemon()
    const files = createDeviceFiles(root, this.#devices.all)
    this.#files = files
    const onChanged = (device: LinkedDevice, previous?: Identity): void => {
      files.update(device)
      if (previous !== undefined) notifyMoved(this.#daemon().netlink, device, previous)
    }
    const onFailure = (device: NetworkDevice, error: unknown): void => this.removeFaulty(device, error)
    if (interfaces)
      this.#follower = new InterfaceFollower(interfaces, this.#devices.linked, onChanged, onFailure, {
        ownMac: ({ device }, mac) => cm.hardwareAddressChanged(device, mac),
        neighbourMac: ({ device }, address, mac) => cm.neighbourChanged(device, address, mac),
      })
  }

  /** Throws as `Devices.add`. */
  plug(spec: DeviceSpec): void {
    const { loop, netlink } = this.#daemon()
    // Finish removals: a removed device may still have the address.
    this.#objectJobs.finish()
    const added = this.#devices.add(spec)
    this.#files?.add(added)
    if (isLinked(added.network)) this.#follower?.follow(added.network)
    loop.kick()
    notifyAdded(netlink, added)
  }

  /** Does nothing if there is no device `name`. Throws as `Devices.rename`. */
  rename(name: string, newName: string): void {
    const found = this.#devices.find(name)
    if (found === undefined || name === newName) return
    this.#devices.rename(found, newName)
    this.#files?.rename(found, name)
    notifyRenamed(this.#daemon().netlink, found)
  }

  /** Throws as `Devices.remove`. */
  unplug(name: string): void {
    const { contexts, netlink } = this.#daemon()
    const removed = this.#devices.find(name)
    const onPortClosed = (): void => {
      if (isLinked(removed?.network)) this.#follower?.unfollow(removed.network)
    }
    this.#devices.remove(name, onPortClosed)
    // Only for the compiler: `remove` throws then.
    if (removed === undefined) return
    contexts.hangUp(removed.device)
    this.#files?.remove(removed)
    notifyRemoved(netlink, removed)
  }

  /** Removes a device that threw, since its state is unknown. */
  removeFaulty({ device }: NetworkDevice, error: unknown): void {
    this.#daemon().containment.report(`device ${device.name}, which is removed`, error)
    if (this.#devices.find(device.name)?.device === device) this.unplug(device.name)
  }

  /** Removes the files of all devices. To be called once, last. */
  close(): void {
    this.#files?.close()
  }

  /** Returns as `DeviceFiles.refreshCounters`. */
  refreshCounters(): number {
    return this.#files?.refreshCounters() ?? 0
  }
}
