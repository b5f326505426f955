/*
 * The soft devices of a network in this process.
 */
import type { Assembly } from '../../assembly/assembly.ts'
import { countersOf } from '../../assembly/counters.ts'
import type { NetworkFaults } from '../../assembly/faults.ts'
import { identityOf } from '../../assembly/host-identity.ts'
import { identify } from '../../core/devices/identity.ts'
import { unregister } from '../../core/devices/registry.ts'
import { libraryDriver, type SoftDevice } from '../../drivers/registered.ts'
import type { Clock } from '../../host/event-loop/clock.ts'
import { LineRate } from '../../spec/congestion.ts'
import { CallError } from '../../spec/errno.ts'
import type { PacketCarrier } from '../../transport/phy/links/packet-carrier.ts'
import { isSameAddress, parseAddress, reasonUnusable } from '../../transport/wire/address.ts'
import type { DeviceCounters } from '../verbs/carrier.ts'
import { formatValue, invalidArgument, rdmaError, refused } from '../verbs/error.ts'
import { closeAtThreadEnd, forgetThreadEnd } from '../verbs/thread-end.ts'
import type { AttachedDevice, DevicePlace, NetworkOptions } from './contract.ts'
import type { DriveLoop } from './drive-loop.ts'
import { fabricOptions } from './infiniband.ts'
import { limitsOf } from './limits.ts'
import { lineRateOf } from './links.ts'
import type { DeviceMarks } from './marks.ts'
import type { observe } from './observe.ts'
import type { createHosts } from './virtual/hosts.ts'

/** Maximum simultaneous devices of a network. */
export const MAX_DEVICES = 1024

interface NetworkParts {
  readonly assembly: Assembly
  readonly clock: Clock
  /** Of the soft devices, in the order of their addition. */
  readonly devices: SoftDevice[]
  readonly marks: DeviceMarks
  /** By name. */
  readonly attached: Map<string, AttachedDevice>
  readonly rules: NetworkFaults
  readonly loop: DriveLoop
  readonly hosts: ReturnType<typeof createHosts>
  readonly carrier: PacketCarrier | undefined
  readonly observation: ReturnType<typeof observe>
  /** Of devices without an own. */
  readonly dcqcn: NetworkOptions['dcqcn']
  /** Why devices have no InfiniBand port; undefined: they may. */
  readonly noFabric: string | undefined
  /** Makes new InfiniBand ports ACTIVE. */
  readonly configurePorts: () => void
}

export class NetworkDevices {
  readonly #parts: NetworkParts
  /** Number of devices that were added, including removed ones. */
  added = 0

  constructor(parts: NetworkParts) {
    this.#parts = parts
  }

  // A new device asks all the others: without a function for each.
  ownerOf(gid: Uint8Array): SoftDevice | undefined {
    for (const device of this.#parts.devices)
      for (const own of device.link.identity.gids) if (isSameAddress(own, gid)) return device
    return undefined
  }

  /** As `LocalNetwork.add`. */
  add(name: string, address: string, place: DevicePlace): AttachedDevice {
    const { assembly, clock, devices, marks, attached, rules, hosts, carrier, observation, ...parts } = this.#parts
    const { isMemory } = assembly.link
    const fabric = fabricOptions(place, parts.noFabric)
    const limits = limitsOf(place.limits)
    const { host: wantedHost, dcqcn = fabric === undefined ? parts.dcqcn : undefined } = place
    const host = hosts.find(wantedHost)
    const ownRate = host === undefined ? LineRate.DEFAULT : carrier!.rateOf(host)
    const lineRate = lineRateOf('open', dcqcn, ownRate)
    const { port: barePort, identity } = this.#attach(name, address, host)
    // A recording taps the port while the device is added.
    const port = rules.wrap(barePort, name)
    const timerDelay = clock.isVirtual ? 0 : undefined
    const site = { identity, dcqcn: lineRate, fabric, limits, timerDelay, attach: () => port }
    const device = this.#create(name, site)
    hosts.set(host, name)
    const closePort = (): void => port.close()
    if (!isMemory) closeAtThreadEnd(closePort)
    this.added++
    devices.push(device)
    marks.added(device)
    if (isMemory) port.wake = () => marks.mark(device)
    const soft: AttachedDevice = {
      network: device,
      port,
      counters: () => ({ ...countersOf(device), faults: { ...port.faults } }) as object as DeviceCounters,
      remove: async () => {
        await this.#remove(device, name)
        forgetThreadEnd(closePort)
        hosts.set(host, undefined)
        parts.loop.rearm()
      },
    }
    attached.set(name, soft)
    observation.deviceAdded(name, soft)
    if (fabric !== undefined) parts.configurePorts()
    return soft
  }

  #create(name: string, site: Parameters<Assembly['addDevice']>[2]): SoftDevice {
    try {
      return this.#parts.assembly.addDevice(libraryDriver, name, site)
    } catch (error) {
      this.#parts.rules.forget(name)
      throw error
    }
  }

  /** Resolves when the device's objects are destroyed. */
  async #remove(device: SoftDevice, name: string): Promise<void> {
    const { devices, marks, attached, rules, loop, observation } = this.#parts
    // A function of the program, `onFinding` for example, may close the device in the middle of a drive.
    if (loop.isDriving) await undefined
    // Sends outstanding packets: peers learn that their connections end.
    loop.touch(device)
    loop.drive()
    const at = devices.indexOf(device)
    devices.splice(at, 1)
    marks.removed(device, at)
    attached.delete(name)
    rules.forget(name)
    observation.deviceRemoved(name)
    await new Promise<void>(resolve => unregister(device.device, resolve))
  }

  /** The port and the identity of a new device. Throws RdmaError. */
  #attach(name: string, address: string, host: number | undefined) {
    const { link } = this.#parts.assembly
    const bytes = parseAddress(address)
    if (bytes !== undefined && host !== undefined) this.#parts.hosts.checkAddress(host, bytes)
    if (bytes === undefined) throw invalidArgument('open', `address "${address}" is not an IPv4 or IPv6 address`)
    const reason = reasonUnusable(bytes)
    if (reason !== undefined) throw invalidArgument('open', `address ${formatValue(address)} ${reason}`)
    const owner = this.ownerOf(bytes)
    if (owner !== undefined)
      throw refused(
        'EADDRINUSE',
        'open',
        `address: ${formatValue(address)} is the address of ${owner.device.name} on this network`,
      )
    if (link.portCount() === MAX_DEVICES)
      throw refused('ENOSPC', 'open', `the network has ${MAX_DEVICES} devices, which is its maximum`, 'close one first')
    const identity = link.isMemory ? identify(bytes, { name: 'local', index: 0 }) : identityOf({ address })
    try {
      return { port: link.attach({ name, address }, identity, host), identity }
    } catch (error) {
      throw error instanceof CallError ? rdmaError(error, 'open') : invalidArgument('open', (error as Error).message)
    }
  }
}
