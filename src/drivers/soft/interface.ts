/*
 * A soft device follows its network interface, as Linux's rxe does: link state and MTU become the port's state and
 * active MTU, addresses become GIDs, and programs get port events (IBA 11.6.3).
 *
 * As in ib_core (roce_gid_mgmt), an address has an entry for each type that the device has (`gidTypes`), RoCE v1 before
 * v2. The first entries are the link-local default's and stay. Another address gets the first free indices. When an
 * address is removed, its entry is empty, and the other indices do not change; the index is free when no queue pair or
 * address handle uses it (`holdGid`). A change of the MTU raises PORT_ACTIVE, so that programs query the port; Linux
 * has no event for it. After a change of the MAC all GIDs leave and return, the default with another address, as on
 * Linux (roce_gid_mgmt, NETDEV_CHANGEADDR).
 *
 * `deviceLink` joins these functions with the port.
 */
import { findGid, type GidTableEntry, isFreeIndex, setGid, type VlanInterface } from '../../core/devices/gids.ts'
import { defaultGid } from '../../core/devices/identity.ts'
import { type DeviceLink, type LinkState, NO_EVENT, type PortEvent } from '../../core/driver-contract.ts'
import type { Device } from '../../core/model.ts'
import { EADDRNOTAVAIL, SystemError } from '../../host/errno.ts'
import { AsyncEventType, GidType, QpState } from '../../spec/enums.ts'
import { mtuBytes, mtuEnum } from '../../spec/mtu.ts'
import { isMappedIpv4, isSameAddress } from '../../transport/wire/address.ts'
import { setPortState, withCarrier } from './port-state.ts'
import type { SoftState } from './state.ts'

const { PORT_ACTIVE, GID_CHANGE } = AsyncEventType.values
const { RESET, ERR } = QpState.values

/**
 * Queue pairs for datagrams have no path MTU of their own (qp-class.ts). In RESET and ERR the next `modify` sets it.
 */
const setDatagramMtu = ({ datagramRows, engine }: SoftState, pathMtu: number): void => {
  for (const rows of datagramRows.values())
    for (const row of rows) {
      const state = engine().stateOf(row)
      if (state !== RESET && state !== ERR) engine().modify(row, undefined, { pathMtu })
    }
}

/** Sets the port's state, active MTU, width and speed from those of the interface, and counts `linkDowned`. */
export const setLink = (device: Device<SoftState>, link: LinkState): PortEvent | undefined => {
  const { attributes } = device.ports[0]
  const { isActive, wentDown, event } = setPortState(attributes, link)
  if (wentDown) device.state.linkDowned++
  const activeMtu = link.pathMtu === undefined ? attributes.activeMtu : mtuEnum(link.pathMtu)
  const isOtherMtu = attributes.activeMtu !== activeMtu
  const rate = device.state.ethernetLink(link.speed)
  const isOtherRate = attributes.activeWidth !== rate.activeWidth || attributes.activeSpeed !== rate.activeSpeed
  Object.assign(attributes, { activeMtu, ...rate })
  if (isOtherMtu) setDatagramMtu(device.state, mtuBytes(activeMtu))
  if (event !== undefined && event !== NO_EVENT) return event
  if (isActive && isOtherMtu) return PORT_ACTIVE
  return event ?? (isOtherMtu || isOtherRate ? NO_EVENT : undefined)
}

/**
 * The device has a new interface, or the name of its interface has changed. GUID and default GID stay. Throws
 * SystemError if the port cannot join a group on it.
 */
export const replaceInterface = (device: Device<SoftState>, interfaceName: string, interfaceIndex: number): void => {
  const { state } = device
  const isOtherInterface = state.identity.interfaceIndex !== interfaceIndex
  state.identity = { ...state.identity, interfaceName, interfaceIndex }
  if (!isOtherInterface) return
  const { gids } = device.ports[0]
  gids.entries.forEach((entry, i) => {
    if (entry !== undefined && entry.vlan === undefined) setGid(gids, i, { ...entry, ifindex: interfaceIndex })
  })
  state.port.setInterface?.(interfaceIndex)
}

const entryOf = ({ state }: Device<SoftState>, gid: Uint8Array, type: number, vlan?: VlanInterface): GidTableEntry => ({
  gid,
  type,
  ifindex: vlan?.index ?? state.identity.interfaceIndex,
  ...(vlan && { vlan }),
})

/** Sets the entries of the default GID, except those whose index is in use. Returns whether there are any. */
export const setDefaultGid = (device: Device<SoftState>, gid: Uint8Array): boolean => {
  const { gids } = device.ports[0]
  let isSet = false
  device.state.gidTypes.forEach((type, i) => {
    if (!isFreeIndex(gids, i)) return
    setGid(gids, i, entryOf(device, gid, type))
    isSet = true
  })
  return isSet
}

/** The interface has a new address: adds the GID of each type, unless the table has it or is full. */
export const addGid = (device: Device<SoftState>, address: Uint8Array, vlan?: VlanInterface): PortEvent | undefined => {
  const { gids } = device.ports[0]
  const { gidTypes } = device.state
  if (findGid(gids, address) >= 0) return undefined
  let event: PortEvent | undefined
  for (const type of gidTypes) {
    const index = gids.entries.findIndex((_, i) => i >= gidTypes.length && isFreeIndex(gids, i))
    if (index < 0) break
    setGid(gids, index, entryOf(device, address, type, vlan))
    event = GID_CHANGE
  }
  return event
}

/** The interface has lost an address: removes its GIDs, unless it is the default one. */
export const removeGid = (device: Device<SoftState>, address: Uint8Array): PortEvent | undefined => {
  const { gids } = device.ports[0]
  let event: PortEvent | undefined
  for (let i = device.state.gidTypes.length; i < gids.end; i++) {
    const entry = gids.entries[i]
    if (entry === undefined || !isSameAddress(entry.gid, address)) continue
    setGid(gids, i, undefined)
    event = GID_CHANGE
  }
  return event
}

/**
 * The interface has another MAC: all GIDs leave, then the new default GID comes, unless its index is in use, and each
 * other address, those of IPv4 first. Each step is an event.
 */
export const replaceMac = (device: Device<SoftState>, mac: Uint8Array): readonly PortEvent[] => {
  const { state } = device
  const { gids } = device.ports[0]
  const [before, ...own] = state.identity.gids
  const gid = defaultGid(mac)
  if (before === undefined || isSameAddress(before, gid)) return []
  const others = gids.entries
    .slice(state.gidTypes.length)
    .flatMap(entry => (entry?.type === GidType.values.ROCE_V2 ? [entry] : []))
  gids.entries.forEach((entry, i) => {
    if (entry !== undefined) setGid(gids, i, undefined)
  })
  const events = [GID_CHANGE]
  state.port.removeAddress(before)
  state.port.addAddress(gid)
  state.identity = { ...state.identity, gids: [gid, ...own] }
  if (setDefaultGid(device, gid)) events.push(GID_CHANGE)
  const [ofIpv4, ofIpv6] = [true, false].map(is => others.filter(other => isMappedIpv4(other.gid) === is))
  for (const entry of [...ofIpv4!, ...ofIpv6!])
    if (addGid(device, entry.gid, entry.vlan) !== undefined) events.push(GID_CHANGE)
  return events
}

/** The interface of a soft device, for its owner. */
export const deviceLink = (device: Device<SoftState>): DeviceLink => {
  const { state } = device
  const { port } = state
  return {
    get identity() {
      return state.identity
    },
    get pathMtu() {
      return port.pathMtu
    },
    ...withCarrier(link => setLink(device, link)),
    addAddress(address, claim, vlan) {
      try {
        port.addAddress(address, claim, vlan)
      } catch (error) {
        // The interface has lost it again: that news follows. Linux has an event for both.
        if (!(error instanceof SystemError && error.errno === EADDRNOTAVAIL)) throw error
      }
      return addGid(device, address, vlan)
    },
    removeAddress(address) {
      port.removeAddress(address)
      return removeGid(device, address)
    },
    setMac: mac => replaceMac(device, mac),
    moveTo: (name, index) => replaceInterface(device, name, index),
  }
}
