/*
 * Devices follow their network interfaces: addresses, link state, speed, MTU, MAC (`DeviceLink` in
 * core/driver-contract.ts).
 *
 * A device is created with one address of an interface, its own. As in Linux's rxe, all other addresses of the
 * interface become GIDs of the device too. There are exceptions:
 * - The loopback interface gives no additional addresses.
 * - While several devices of the daemon share an interface, the interface gives no additional addresses. A device keeps
 *   the additional addresses that it has.
 * - If a device is created with an additional address of another device, the other device loses the address, also in
 *   another daemon (`spare` in host/net/udp.ts).
 * - If the RoCE port of an address is in use, by another program or by Linux's rxe, the device does not get the
 *   address. The log has a line.
 *
 * - A VLAN interface over that of a device gives its addresses too, but no link-local ones, which are the same: their
 *   GIDs name the VLAN interface (roce_gid_mgmt), and the system tags their packets.
 *
 * If an interface is deleted, the device has no link, and only its default GID, until an interface with the same name
 * or with the device's own address appears. (Linux deletes an rxe device with its interface.)
 */

import { portSpeed } from '../../core/base/device.ts'
import type { VlanInterface } from '../../core/devices/gids.ts'
import type { Identity } from '../../core/devices/identity.ts'
import { type LinkedDevice, NO_EVENT, type PortEvent } from '../../core/driver-contract.ts'
import { DEVICE_SPEED_CHANGE, raiseDevice, raisePort } from '../../core/events/events.ts'
import { EADDRINUSE, SystemError } from '../../host/errno.ts'
import type { Interfaces, NetworkInterface } from '../../host/net/interfaces.ts'
import { linkSpeed } from '../../host/net/link-speed.ts'
import { ROCE_UDP_PORT } from '../../spec/wire/headers.ts'
import { pathMtuOf } from '../../transport/phy/udp/window.ts'
import { addressText, isLinkLocal, isSameAddress } from '../../transport/wire/address.ts'
import type { Devices } from './devices.ts'

type Followed = LinkedDevice

/** Index of the device's own address in `Identity.gids`. */
const OWN_GID = 1

const DELETED_LINK = { isUp: false, hasCarrier: false }

/** Receives the MACs that connections depend on. */
interface MacListener {
  /** The MAC of a device whose interface is a bond. Called at the start, and when the interface changes. */
  ownMac(device: Followed, mac: Uint8Array): void
  /** The MAC of a neighbour of the device. Called when the MAC becomes known or changes. */
  neighbourMac(device: Followed, address: Uint8Array, mac: string): void
}

const indexOf = ({ link }: Followed): number => link.identity.interfaceIndex

/** Whether the address is the device's own or its default GID. */
const hasOwn = ({ link: { identity } }: Followed, address: Uint8Array): boolean =>
  identity.gids.some(gid => isSameAddress(gid, address))

/**
 * Adds the address to the port and the GIDs. If the port cannot use the address, logs a line. Undefined if the GIDs do
 * not change.
 */
const addAddress = (
  { device, link }: Followed,
  address: Uint8Array,
  claim: 'own' | 'spare',
  vlan: VlanInterface | undefined,
): PortEvent | undefined => {
  try {
    return link.addAddress(address, claim, vlan)
  } catch (error) {
    if (!(error instanceof SystemError)) throw error
    const reason = error.errno === EADDRINUSE ? `its UDP port ${ROCE_UDP_PORT} is in use` : error.message
    console.error(`userdma daemon: ${device.name} does not use the address ${addressText(address)}: ${reason}`)
    return undefined
  }
}

/**
 * Follows the interfaces of devices. Call `follow` for each added device. `onChanged` is called
 * when a device's port or GIDs have changed, before programs are notified. `previous`: the device's identity before its
 * interface was replaced or renamed. `onFailure` is called if updating a device throws, which is a bug.
 */
export class InterfaceFollower {
  readonly #interfaces: Interfaces
  readonly #devices: Pick<Devices, 'linked'>
  readonly #onChanged: (device: Followed, previous?: Identity) => void
  readonly #onFailure: (device: Followed, error: unknown) => void
  readonly #macs: MacListener
  /** The last MAC of each interface with a device, by index. */
  readonly #lastMacs = new Map<number, Uint8Array>()

  constructor(
    interfaces: Interfaces,
    devices: Pick<Devices, 'linked'>,
    onChanged: (device: Followed, previous?: Identity) => void,
    onFailure: (device: Followed, error: unknown) => void,
    macs: MacListener,
  ) {
    this.#interfaces = interfaces
    this.#devices = devices
    this.#onChanged = onChanged
    this.#onFailure = onFailure
    this.#macs = macs
    for (const index of new Set(devices.linked.map(indexOf))) this.#applyInterface(index)
    interfaces.listen({
      link: (index, now) => this.#onLink(index, now),
      address: (index, address, isPresent) => this.#onAddress(index, address, isPresent),
      neighbour: (index, address, mac) => this.#onNeighbour(index, address, mac),
    })
  }

  follow(added: Followed): void {
    this.#applyInterface(indexOf(added))
  }

  /** Call after the removed device's port is closed. A device that is now alone on the interface gets all addresses. */
  unfollow(removed: Followed): void {
    this.#applyInterface(indexOf(removed))
  }

  #devicesOn(index: number): readonly Followed[] {
    return this.#devices.linked.filter(device => indexOf(device) === index)
  }

  #forEachDevice(devicesToUpdate: readonly Followed[], body: (followed: Followed) => void): void {
    for (const followed of devicesToUpdate)
      try {
        body(followed)
      } catch (error) {
        this.#onFailure(followed, error)
      }
  }

  /** The VLAN interface of this index, and its devices; undefined: it is none, or a device has it as its own. */
  #vlanOf(index: number): { readonly vlan: VlanInterface; readonly devices: readonly Followed[] } | undefined {
    const { name, vlan } = this.#interfaces.links().get(index) ?? {}
    if (name === undefined || vlan === undefined || this.#devicesOn(index).length > 0) return undefined
    return { vlan: { id: vlan.id, name, index }, devices: this.#devicesOn(vlan.lower) }
  }

  /** How the device may use an address of interface `index`; 'spare': as an additional address; undefined: not. */
  #claimOf(followed: Followed, index: number, address: Uint8Array): 'own' | 'spare' | undefined {
    if (hasOwn(followed, address)) return 'own'
    if (index !== indexOf(followed) && isLinkLocal(address)) return undefined
    const isShared = this.#devicesOn(indexOf(followed)).length > 1
    const isLoopback = this.#interfaces.links().get(index)?.isLoopback === true
    return isShared || isLoopback ? undefined : 'spare'
  }

  #notify(followed: Followed, event: PortEvent | undefined): void {
    if (event === undefined) return
    this.#onChanged(followed)
    if (event !== NO_EVENT) raisePort(followed.device, 1, event)
  }

  /** Changes the device's interface. */
  #moveTo(followed: Followed, { name, index }: NetworkInterface): void {
    const previous = followed.link.identity
    try {
      followed.link.moveTo(name, index)
    } catch (error) {
      if (!(error instanceof SystemError)) throw error
      console.error(
        `userdma daemon: ${followed.device.name} could not join all its multicast groups on ${name}: ${error.message}`,
      )
    }
    this.#onChanged(followed, previous)
  }

  /**
   * Moves devices without an interface to this interface: the devices with own address `address`, or, if that is
   * undefined, the devices whose deleted interface had the same name.
   */
  #adoptDevices({ name, index }: NetworkInterface, address?: Uint8Array): void {
    const orphaned = this.#devices.linked.filter(followed => {
      const { interfaceName, interfaceIndex, gids } = followed.link.identity
      const isMatch = address === undefined ? name === interfaceName : isSameAddress(gids[OWN_GID]!, address)
      return isMatch && !this.#interfaces.links().has(interfaceIndex)
    })
    const link = this.#interfaces.links().get(index)
    if (orphaned.length === 0 || link === undefined) return
    this.#forEachDevice(orphaned, followed => this.#moveTo(followed, link))
    this.#applyInterface(index)
  }

  #onAddress(index: number, address: Uint8Array, isPresent: boolean): void {
    const link = this.#interfaces.links().get(index)
    if (isPresent && link !== undefined) this.#adoptDevices(link, address)
    const { vlan, devices } = this.#vlanOf(index) ?? { vlan: undefined, devices: this.#devicesOn(index) }
    const isOwned = devices.some(followed => hasOwn(followed, address))
    this.#forEachDevice(devices, followed => {
      const claim = this.#claimOf(followed, index, address)
      // The device may have got the address when it was alone on the interface.
      const isOfOtherDevice = isOwned && claim !== 'own'
      if (!isPresent || isOfOtherDevice) {
        this.#notify(followed, followed.link.removeAddress(address))
      } else if (claim !== undefined) this.#notify(followed, addAddress(followed, address, claim, vlan))
    })
  }

  #onLink(index: number, now: NetworkInterface | undefined): void {
    if (now !== undefined) this.#adoptDevices(now)
    const lastMac = this.#lastMacs.get(index)
    const isOtherMac = now !== undefined && lastMac !== undefined && String(lastMac) !== String(now.mac)
    if (now === undefined) this.#lastMacs.delete(index)
    else this.#lastMacs.set(index, now.mac)
    this.#forEachDevice(this.#devicesOn(index), followed => {
      if (now !== undefined && now.name !== followed.link.identity.interfaceName) this.#moveTo(followed, now)
      const link = now
        ? { isUp: now.isUp, hasCarrier: now.hasCarrier, pathMtu: pathMtuOf(now.mtu), speed: linkSpeed(now.name) }
        : DELETED_LINK
      const { device } = followed
      const port = device.ports[0]!
      const speed = portSpeed(port)
      const event = followed.link.setState(link)
      if (device.driver.hasSpeedEvents && portSpeed(port) !== speed) raiseDevice(device, DEVICE_SPEED_CHANGE)
      this.#notify(followed, event)
      if (now !== undefined && isOtherMac) this.#setMac(followed, now)
      if (now?.isBond) this.#macs.ownMac(followed, now.mac)
    })
  }

  /** The interface of a device has another MAC. Its link-local address may not be the default GID any more. */
  #setMac(followed: Followed, { index, mac }: NetworkInterface): void {
    const events = followed.link.setMac(mac)
    if (events.length > 0) this.#onChanged(followed)
    for (const event of events) raisePort(followed.device, 1, event)
    for (const address of this.#interfaces.addresses(index)) this.#onAddress(index, address, true)
  }

  #onNeighbour(index: number, address: Uint8Array, mac: string): void {
    this.#forEachDevice(this.#devicesOn(index), followed => this.#macs.neighbourMac(followed, address, mac))
  }

  /** Brings the devices of an interface up to date with the interface's present state. */
  #applyInterface(index: number): void {
    this.#onLink(index, this.#interfaces.links().get(index))
    const links = [...this.#interfaces.links().values()]
    const over = links.filter(({ vlan }) => vlan?.lower === index).map(link => link.index)
    for (const one of [index, ...over])
      for (const address of this.#interfaces.addresses(one)) this.#onAddress(one, address, true)
  }
}
