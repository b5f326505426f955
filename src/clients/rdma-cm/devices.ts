/*
 * The devices for connections, and the choice of the device that routes to an address (rdma_resolve_addr). A path of
 * RoCE is a pair of GIDs; the port routes packets between them.
 */
import { findGid, type GidTableEntry } from '../../core/devices/gids.ts'
import type { Device } from '../../core/model.ts'
import { GidType } from '../../spec/enums.ts'
import { CallError } from '../../spec/errno.ts'
import { isLinkLocal, isLoopbackIpv4, isMappedIpv4, isMulticastGid } from '../../wire/address.ts'
import type { CmDevice, Neighbour } from './identifier.ts'
import { Family, isAny, isLoopback, type SocketAddress } from './socket-address.ts'

export interface Route {
  readonly device: CmDevice
  readonly localGid: Uint8Array
  readonly remoteGid: Uint8Array
}

/** Facts of the network that the devices do not know. */
export interface Routing {
  /** The local address (16 bytes) from which the system reaches `destination`; undefined: unreachable. */
  sourceOf?(destination: Uint8Array, scope: number): Uint8Array | undefined
  /** The MAC, as text, of an address (16 bytes) on the link of an interface; undefined if the system has none. */
  neighbourOf?(interfaceIndex: number, address: Uint8Array): string | undefined
  /** Only the devices of this network are reachable (memory link). */
  readonly closed?: boolean
}

export class CmDevices {
  readonly #devices = new Map<Device, CmDevice>()
  readonly #routing: Routing
  #next = 1

  constructor(routing: Routing) {
    this.#routing = routing
  }

  add(device: Device): CmDevice {
    const caGuid = new DataView(device.attributes.nodeGuid.slice().buffer).getBigUint64(0)
    const known = { number: this.#next++, device, caGuid }
    this.#devices.set(device, known)
    return known
  }

  /** Returns the CmDevice of `device`. */
  remove(device: Device): CmDevice | undefined {
    const found = this.#devices.get(device)
    this.#devices.delete(device)
    return found
  }

  forDevice(device: Device): CmDevice | undefined {
    return this.#devices.get(device)
  }

  byNumber(number: number): CmDevice | undefined {
    for (const device of this.#devices.values()) if (device.number === number) return device
    return undefined
  }

  /** The device with this address. A link-local address with a scope must be on that interface. */
  withAddress(address: Uint8Array, scope = 0): CmDevice | undefined {
    for (const device of this.#devices.values()) {
      const { gids } = device.device.ports[0]!
      const index = findGid(gids, address, GidType.values.ROCE_V2)
      if (index >= 0 && (scope === 0 || gids.entries[index]?.ifindex === scope)) return device
    }
    return undefined
  }

  /** The neighbour at the far end of a path's first hop; undefined where the system does not report neighbours. */
  neighbourOf({ device }: CmDevice, localGid: Uint8Array, remoteGid: Uint8Array): Neighbour | undefined {
    if (this.#routing.neighbourOf === undefined) return undefined
    const { gids } = device.ports[0]!
    const entry = gids.entries[findGid(gids, localGid, GidType.values.ROCE_V2)]
    return { mac: entry && this.#routing.neighbourOf(entry.ifindex, remoteGid) }
  }

  hasGid(number: number, gid: Uint8Array): boolean {
    const found = this.byNumber(number)
    return found !== undefined && findGid(found.device.ports[0]!.gids, gid) >= 0
  }

  /** The path to `destination`, from `source` unless that is a wildcard. Throws CallError. */
  route(destination: SocketAddress, source: SocketAddress | undefined, only?: CmDevice): Route {
    const target = this.#hostOf(destination)
    const from = source === undefined || isAny(source) ? undefined : source
    const chosen =
      from !== undefined
        ? this.#from(from)
        : only === undefined
          ? this.#leadingTo(target, destination.scope)
          : this.#through(only, target)
    if (only !== undefined && chosen.device !== only)
      throw new CallError('ENODEV', 'cm_id: the local address belongs to another device than the identifier')
    const isHere = this.withAddress(target) !== undefined || isMulticastGid(target)
    if (this.#routing.closed && !isHere)
      throw new CallError('EHOSTUNREACH', 'cm_id.resolveAddress: no device of this network has the address')
    return { ...chosen, remoteGid: target }
  }

  /**
   * A loopback address means any device of this host, unless devices have addresses in 127.0.0.0/8: then each of these
   * addresses is a host of its own.
   */
  #hostOf(destination: SocketAddress): Uint8Array {
    const { address, family } = destination
    if (this.withAddress(address) !== undefined) return address
    const isOtherHost = isLoopback(destination) && !this.#routing.closed && this.#onLoopback() !== undefined
    if (isOtherHost || !(isLoopback(destination) || isAny(destination))) return address
    return this.#first(family === Family.INET).localGid
  }

  #from(source: SocketAddress): Omit<Route, 'remoteGid'> {
    const device = this.withAddress(source.address, source.scope)
    if (device === undefined) throw new CallError('ENODEV', 'cm_id: no device has the local address')
    return { device, localGid: source.address }
  }

  #leadingTo(target: Uint8Array, scope: number): Omit<Route, 'remoteGid'> {
    const own = this.withAddress(target, scope)
    if (own !== undefined) return { device: own, localGid: target }
    if (isLinkLocal(target)) return this.#onLink(scope)
    if (isLoopbackIpv4(target)) return this.#onLoopback() ?? this.#first(true)
    const local = this.#routing.sourceOf?.(target, scope)
    const device = local && this.withAddress(local)
    if (local !== undefined && device !== undefined) return { device, localGid: local }
    if (this.#routing.sourceOf !== undefined && !isMulticastGid(target))
      throw new CallError(
        local === undefined ? 'ENETUNREACH' : 'ENODEV',
        'cm_id.resolveAddress: no device has the address from which the destination is reached',
      )
    return this.#first(isMappedIpv4(target))
  }

  /** The first device address that satisfies `isWanted`, and its device. */
  #find(isWanted: (entry: GidTableEntry) => boolean): Omit<Route, 'remoteGid'> | undefined {
    for (const device of this.#devices.values())
      for (const entry of device.device.ports[0]!.gids.entries)
        if (entry !== undefined && isWanted(entry)) return { device, localGid: entry.gid }
    return undefined
  }

  /** An address of `device` of the same family as `target`. */
  #through(device: CmDevice, target: Uint8Array): Omit<Route, 'remoteGid'> {
    const { entries } = device.device.ports[0]!.gids
    const isSameKind = (own: Uint8Array): boolean =>
      isMappedIpv4(own) === isMappedIpv4(target) && isLinkLocal(own) === isLinkLocal(target)
    const entry = entries.find(candidate => candidate !== undefined && isSameKind(candidate.gid))
    if (entry === undefined)
      throw new CallError('ENETUNREACH', 'cm_id.resolveAddress: the device has no address of that family')
    return { device, localGid: entry.gid }
  }

  /** The first address of a family; a link-local address only if there is no other. */
  #first(ipv4: boolean): Omit<Route, 'remoteGid'> {
    const isFamily = ({ gid }: GidTableEntry): boolean => isMappedIpv4(gid) === ipv4
    const found = this.#find(entry => isFamily(entry) && !isLinkLocal(entry.gid)) ?? this.#find(isFamily)
    if (found === undefined)
      throw new CallError('ENODEV', `cm_id: no device has an address of ${ipv4 ? 'IPv4' : 'IPv6'}`)
    return found
  }

  #onLink(scope: number): Omit<Route, 'remoteGid'> {
    const found = this.#find(({ gid, ifindex }) => isLinkLocal(gid) && (scope === 0 || ifindex === scope))
    if (found === undefined) throw new CallError('ENODEV', `cm_id: no device is on interface ${scope}`)
    return found
  }

  #onLoopback(): Omit<Route, 'remoteGid'> | undefined {
    return this.#find(({ gid }) => isLoopbackIpv4(gid))
  }

  /** The device to which a local address binds; undefined for a wildcard. Throws CallError EADDRNOTAVAIL. */
  bound(source: SocketAddress, only?: CmDevice): CmDevice | undefined {
    if (isAny(source)) return undefined
    const device = this.withAddress(source.address, source.scope) ?? (isLoopback(source) ? this.#any() : undefined)
    if (device === undefined || (only !== undefined && device !== only))
      throw new CallError('EADDRNOTAVAIL', 'cm_id.bind: no device has the address; bind to one that a device has')
    return device
  }

  #any(): CmDevice | undefined {
    const [first] = this.#devices.values()
    return first
  }
}
