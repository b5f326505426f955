/*
 * Devices follow their network interfaces: addresses, link state, MTU (drivers/rxe/interface.ts applies them).
 *
 * As in Linux's rxe, all addresses of an interface are GIDs of its device, which was created with one of them. On the
 * loopback interface, and where several devices of the daemon share an interface, each uses only its own address. Other
 * daemons may share the interface too: an address in use is omitted, with a line in the log, and an additional address
 * is released to a daemon that is started for it (`spare` in host/net/udp.ts).
 *
 * Deleting an interface leaves its device without link and GIDs, until an interface with its name or with the device's
 * own address appears. (Linux deletes an rxe device with its interface.)
 */

import { raisePort } from '../../core/events/events.ts'
import type { Identity } from '../../drivers/rxe/address/identity.ts'
import type { RxeDevice } from '../../drivers/rxe/device.ts'
import { addGid, NO_EVENT, type PortEvent, removeGid, replaceInterface, setLink } from '../../drivers/rxe/interface.ts'
import { EADDRINUSE, SystemError } from '../../host/errno.ts'
import type { Interfaces, NetworkInterface } from '../../host/net/interfaces.ts'
import { pathMtuOf } from '../../phy/udp/window.ts'
import { addressText } from '../../wire/address.ts'

/** A device that follows its interface. */
type Followed = Pick<RxeDevice, 'device' | 'state'>

/** Index of the device's own address among its GIDs. */
const OWN_GID = 1

/** The link state of a device whose interface was deleted. */
const DELETED = { up: false, carrier: false }

const same = (a: Uint8Array, b: Uint8Array): boolean => a.every((byte, i) => byte === b[i])

/** Notified of MACs that connections depend on. */
export interface MacListener {
  /** The MAC of a device on a bond: at the start and when it changes. */
  own(device: Followed, mac: Uint8Array): void
  /** The MAC of an address on the link of a device: when it becomes known or changes. */
  neighbour(device: Followed, address: Uint8Array, mac: string): void
}

/**
 * Starts following the interfaces of `devices`. The list may change; the returned function must be called for each
 * device that is added. `changed` is called when a device's port or GIDs have changed, before programs are notified;
 * with the previous identity if the interface was replaced or renamed. `failed` is called when updating a device
 * throws, which is a bug.
 */
export const followInterfaces = (
  interfaces: Interfaces,
  devices: readonly Followed[],
  changed: (device: Followed, before?: Identity) => void,
  failed: (device: Followed, error: unknown) => void,
  macs: MacListener,
): ((added: Followed) => void) => {
  const indexOf = ({ state }: Followed): number => state.identity.interfaceIndex
  const on = (index: number): readonly Followed[] => devices.filter(device => indexOf(device) === index)

  const each = (some: readonly Followed[], body: (followed: Followed) => void): void => {
    for (const followed of some)
      try {
        body(followed)
      } catch (error) {
        failed(followed, error)
      }
  }

  /** The use of this address by a device: its own, an additional one ('spare'), or none (undefined). */
  const claimOf = ({ state }: Followed, index: number, address: Uint8Array): 'own' | 'spare' | undefined => {
    if (state.identity.gids.some(gid => same(gid, address))) return 'own'
    return on(index).length > 1 || interfaces.links().get(index)?.loopback ? undefined : 'spare'
  }

  const notify = (followed: Followed, event: PortEvent | undefined): void => {
    if (event === undefined) return
    changed(followed)
    if (event !== NO_EVENT) raisePort(followed.device, 1, event)
  }

  const appeared = (
    { device, state }: Followed,
    address: Uint8Array,
    claim: 'own' | 'spare',
  ): PortEvent | undefined => {
    try {
      state.port.addAddress(address, claim)
    } catch (error) {
      if (!(error instanceof SystemError)) throw error
      const why = error.errno === EADDRINUSE ? 'another program uses its RoCE port' : error.message
      console.error(`userdma daemon: ${device.name} does not use the address ${addressText(address)}: ${why}`)
      return undefined
    }
    return addGid(device, address)
  }

  const move = (followed: Followed, { name, index }: NetworkInterface): void => {
    const before = followed.state.identity
    try {
      replaceInterface(followed.device, name, index)
    } catch (error) {
      if (!(error instanceof SystemError)) throw error
      console.error(`userdma daemon: ${followed.device.name} receives no multicast on ${name}: ${error.message}`)
    }
    changed(followed, before)
  }
  /** Moves devices whose interface was deleted to this one, if it has their interface's name or their own address. */
  const adoptDevices = ({ name, index }: NetworkInterface, address?: Uint8Array): void => {
    const orphaned = devices.filter(followed => {
      const { interfaceName, interfaceIndex, gids } = followed.state.identity
      const isMatch = address === undefined ? name === interfaceName : same(gids[OWN_GID]!, address)
      return isMatch && !interfaces.links().has(interfaceIndex)
    })
    const link = interfaces.links().get(index)
    if (orphaned.length === 0 || link === undefined) return
    each(orphaned, followed => move(followed, link))
    applyInterface(index)
  }

  const onAddress = (index: number, address: Uint8Array, present: boolean): void => {
    const link = interfaces.links().get(index)
    if (present && link !== undefined) adoptDevices(link, address)
    each(on(index), followed => {
      const claim = claimOf(followed, index, address)
      if (claim === undefined) return
      if (!present) followed.state.port.removeAddress(address)
      notify(followed, present ? appeared(followed, address, claim) : removeGid(followed.device, address))
    })
  }

  const onLink = (index: number, now: NetworkInterface | undefined): void => {
    if (now !== undefined) adoptDevices(now)
    each(on(index), followed => {
      if (now !== undefined && now.name !== followed.state.identity.interfaceName) move(followed, now)
      const link = now ? { up: now.up, carrier: now.carrier, pathMtu: pathMtuOf(now.mtu) } : DELETED
      notify(followed, setLink(followed.device, link))
      if (now?.bond) macs.own(followed, now.mac)
    })
  }

  const onNeighbour = (index: number, address: Uint8Array, mac: string): void =>
    each(on(index), followed => macs.neighbour(followed, address, mac))

  const applyInterface = (index: number): void => {
    onLink(index, interfaces.links().get(index))
    for (const address of interfaces.addresses(index)) onAddress(index, address, true)
  }
  for (const index of new Set(devices.map(indexOf))) applyInterface(index)
  interfaces.listen({ link: onLink, address: onAddress, neighbour: onNeighbour })
  return device => applyInterface(indexOf(device))
}
