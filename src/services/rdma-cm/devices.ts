/*
 * The devices of rdma_cm, and the choice of device and GIDs for an address (rdma_resolve_addr). In RoCE a pair of GIDs
 * is a complete path: the device's port routes the packets.
 */
import { findGid, type GidTableEntry } from '../../core/devices/gids.ts'
import type { ConnectionProtocol } from '../../core/driver-contract.ts'
import type { Device } from '../../core/model.ts'
import type { SocketAddress } from '../../spec/classes/connections/cm_parameters.ts'
import { GidType } from '../../spec/enums.ts'
import { CallError, callError, Errno, errnoName, knownErrno } from '../../spec/errno.ts'
import { because, the } from '../../spec/reason.ts'
import {
  hasLinkScope,
  isLinkLocal,
  isLoopbackIpv4,
  isMappedIpv4,
  isMulticastGid,
} from '../../transport/wire/address.ts'
import { Family, isAny, isLoopback } from '../socket-address.ts'
import type { CmDevice, Neighbour } from './identifier.ts'

interface Route {
  readonly device: CmDevice
  readonly localGid: Uint8Array
  readonly remoteGid: Uint8Array
}

type LocalEnd = Omit<Route, 'remoteGid'>

/** What the system knows about the network. Addresses have 16 bytes. */
export interface Routing {
  /**
   * The local address from which the system reaches `destination`; −errno if there is none. `destination` is not
   * link-local. `scope`: as in `SocketAddress`.
   */
  sourceOf?(destination: Uint8Array, scope: number): Uint8Array | number
  /** The MAC, as text, of a neighbour; undefined if the system does not know it. */
  neighbourOf?(interfaceIndex: number, address: Uint8Array): string | undefined
  /** Whether only devices of this process are reachable (memory link). */
  readonly isClosed?: boolean
}

/** The error for a destination without a device. `source`: the result of `Routing.sourceOf`. */
const noLocalEnd = (source: Uint8Array | number): CallError => {
  if (typeof source === 'object')
    return callError.ENODEV`${the.method('cm_id.resolveAddress')}: no device has the address from which the destination is reached`
  const code = errnoName(-source)
  return new CallError(
    knownErrno(code, 'ENETUNREACH'),
    because`${the.method('cm_id.resolveAddress')}: the system does not reach the destination (${code})`,
  )
}

export class CmDevices {
  readonly #devices = new Map<Device, CmDevice>()
  readonly #routing: Routing

  constructor(routing: Routing) {
    this.#routing = routing
  }

  add(device: Device, protocol: ConnectionProtocol): CmDevice {
    const added = { device, protocol }
    this.#devices.set(device, added)
    return added
  }

  /** Those devices for which `isWanted` is true, as they are now. */
  only(isWanted: (device: Device) => boolean): CmDevices {
    const wanted = [...this.#devices].filter(([device]) => isWanted(device))
    if (wanted.length === this.#devices.size) return this
    const devices = new CmDevices(this.#routing)
    for (const [device, added] of wanted) devices.#devices.set(device, added)
    return devices
  }

  all(): Iterable<CmDevice> {
    return this.#devices.values()
  }

  remove(device: Device): CmDevice | undefined {
    const removed = this.#devices.get(device)
    this.#devices.delete(device)
    return removed
  }

  forDevice(device: Device): CmDevice | undefined {
    return this.#devices.get(device)
  }

  /** The device with this address. `scope`: interface index; 0: any interface. */
  withAddress(address: Uint8Array, scope = 0): CmDevice | undefined {
    for (const device of this.#devices.values()) {
      const { gids } = device.device.ports[0]!
      const index = findGid(gids, address, GidType.values.ROCE_V2)
      if (index >= 0 && (scope === 0 || gids.entries[index]?.ifindex === scope)) return device
    }
    return undefined
  }

  /** Whether a GID is an address of this host: of one of its devices, or in 127.0.0.0/8. */
  isOfHost(gid: Uint8Array): boolean {
    return isLoopbackIpv4(gid) || this.withAddress(gid) !== undefined
  }

  /** The next hop of a path; undefined if the system does not report neighbours. */
  neighbourOf({ device }: CmDevice, localGid: Uint8Array, remoteGid: Uint8Array): Neighbour | undefined {
    if (this.#routing.neighbourOf === undefined) return undefined
    const { gids } = device.ports[0]!
    const entry = gids.entries[findGid(gids, localGid, GidType.values.ROCE_V2)]
    return { mac: entry && this.#routing.neighbourOf(entry.ifindex, remoteGid) }
  }

  /**
   * The path to `destination`. `source` may be a wildcard. `onlyDevice`: the device that must be used. Throws CallError
   * ENODEV, EHOSTUNREACH, ENETUNREACH, or the errno of `Routing.sourceOf`.
   */
  route(destination: SocketAddress, source: SocketAddress | undefined, onlyDevice?: CmDevice): Route {
    // As in Linux, no route leads to ::ffff:a.b.c.d as an address of AF_INET6.
    if (destination.family === Family.INET6 && isMappedIpv4(destination.address)) throw noLocalEnd(-Errno.ENETUNREACH)
    const remoteGid = this.#remoteGidOf(destination)
    const isOfThisProcess = this.withAddress(remoteGid) !== undefined
    let local: LocalEnd
    if (source !== undefined && !this.#isWildcard(source, isOfThisProcess)) local = this.#localOf(source)
    else if (onlyDevice !== undefined) local = this.#localOn(onlyDevice, remoteGid)
    else local = this.#localFor(remoteGid, destination.scope)
    if (onlyDevice !== undefined && local.device !== onlyDevice)
      throw callError.ENODEV`cm_id: the local address belongs to another device than the identifier`
    if (this.#routing.isClosed && !isOfThisProcess && !isMulticastGid(remoteGid))
      throw callError.EHOSTUNREACH`${the.method('cm_id.resolveAddress')}: no device of this network has the address`
    return { remoteGid, ...local }
  }

  /**
   * The remote GID for a destination. A loopback or wildcard address that no device has means the first device address
   * of the family. Exception: if the network is not closed and a device has an address in 127.0.0.0/8, other loopback
   * addresses belong to devices of other processes.
   */
  #remoteGidOf(destination: SocketAddress): Uint8Array {
    const { address, family } = destination
    if (this.withAddress(address) !== undefined) return address
    if (!isLoopback(destination) && !isAny(destination)) return address
    const isOfOtherProcess = isLoopback(destination) && !this.#routing.isClosed && this.#loopbackAddress() !== undefined
    if (isOfOtherProcess) return address
    return this.#firstAddress(family === Family.INET).localGid
  }

  /**
   * Whether any device address may be the source: for a wildcard and, if the destination is of this process, for a
   * loopback address that no device has.
   */
  #isWildcard(source: SocketAddress, isLocalDestination: boolean): boolean {
    if (isAny(source)) return true
    return isLocalDestination && isLoopback(source) && this.withAddress(source.address) === undefined
  }

  #localOf(source: SocketAddress): LocalEnd {
    const device = this.withAddress(source.address, source.scope)
    if (device === undefined) throw callError.ENODEV`cm_id: no device has the local address`
    return { device, localGid: source.address }
  }

  /** The device and GID from which the system reaches a remote GID. */
  #localFor(remoteGid: Uint8Array, scope: number): LocalEnd {
    const owner = this.withAddress(remoteGid, scope)
    if (owner !== undefined) return { device: owner, localGid: remoteGid }
    if (isLinkLocal(remoteGid)) return this.#linkLocalAddress(scope)
    if (isLoopbackIpv4(remoteGid)) return this.#loopbackAddress() ?? this.#firstAddress(true)
    const localGid = this.#routing.sourceOf?.(remoteGid, scope)
    const device = typeof localGid === 'object' ? this.withAddress(localGid) : undefined
    if (typeof localGid === 'object' && device !== undefined) return { device, localGid }
    if (localGid !== undefined && !isMulticastGid(remoteGid)) throw noLocalEnd(localGid)
    return this.#firstAddress(isMappedIpv4(remoteGid))
  }

  /** The first device address that satisfies `isWanted`. */
  #findAddress(isWanted: (entry: GidTableEntry) => boolean): LocalEnd | undefined {
    for (const device of this.#devices.values())
      for (const entry of device.device.ports[0]!.gids.entries)
        if (entry !== undefined && isWanted(entry)) return { device, localGid: entry.gid }
    return undefined
  }

  /** The first GID of a device of the remote GID's kind: IPv4, link-local, other IPv6. */
  #localOn(device: CmDevice, remoteGid: Uint8Array): LocalEnd {
    const { entries } = device.device.ports[0]!.gids
    const isSameKind = (gid: Uint8Array): boolean =>
      isMappedIpv4(gid) === isMappedIpv4(remoteGid) && isLinkLocal(gid) === isLinkLocal(remoteGid)
    const entry = entries.find(candidate => candidate !== undefined && isSameKind(candidate.gid))
    if (entry === undefined)
      throw callError.ENETUNREACH`${the.method('cm_id.resolveAddress')}: the device has no address of that family`
    return { device, localGid: entry.gid }
  }

  /** The first address of a family. Other addresses have precedence over link-local addresses. */
  #firstAddress(isIpv4: boolean): LocalEnd {
    const isFamily = ({ gid }: GidTableEntry): boolean => isMappedIpv4(gid) === isIpv4
    const found = this.#findAddress(entry => isFamily(entry) && !isLinkLocal(entry.gid)) ?? this.#findAddress(isFamily)
    if (found === undefined) throw callError.ENODEV`cm_id: no device has an address of ${isIpv4 ? 'IPv4' : 'IPv6'}`
    return found
  }

  /** The first link-local address on interface `scope`; 0: on any interface. */
  #linkLocalAddress(scope: number): LocalEnd {
    const found = this.#findAddress(({ gid, ifindex }) => isLinkLocal(gid) && (scope === 0 || ifindex === scope))
    if (found === undefined)
      throw callError.ENODEV`cm_id: no device has a link-local address${scope === 0 ? '' : ` on interface ${scope}`}`
    return found
  }

  /** The first address in 127.0.0.0/8. */
  #loopbackAddress(): LocalEnd | undefined {
    return this.#findAddress(({ gid }) => isLoopbackIpv4(gid))
  }

  /**
   * The device with a local address; undefined for a wildcard. A loopback address that no device has means the first
   * device. Throws CallError EADDRNOTAVAIL if no device, or another than `onlyDevice`, has the address, for a link-local
   * address or a GID (AF_IB) ENODEV; EINVAL for a link-local address without scope.
   */
  deviceToBind(source: SocketAddress, onlyDevice?: CmDevice): CmDevice | undefined {
    if (isAny(source)) return undefined
    const isLocalToLink = source.family === Family.INET6 && hasLinkScope(source.address)
    if (isLocalToLink && source.scope === 0)
      throw callError.EINVAL`${the.method('cm_id.bind')}: a link-local address needs its scope, the index of an interface`
    // As in Linux, no interface has ::ffff:a.b.c.d as an address of AF_INET6.
    const isForeignFamily = source.family === Family.INET6 && isMappedIpv4(source.address)
    const device =
      this.withAddress(source.address, source.scope) ?? (isLoopback(source) ? this.#firstDevice() : undefined)
    const isOfOtherDevice = device !== undefined && onlyDevice !== undefined && device !== onlyDevice
    if (device !== undefined && !isForeignFamily && !isOfOtherDevice) return device
    const why = isForeignFamily
      ? 'an IPv4 address needs the family AF_INET'
      : isOfOtherDevice
        ? 'the address belongs to another device than the identifier'
        : 'no device has the address; bind to one that a device has'
    // As in Linux, which looks for a link-local address or a GID only among the devices.
    const code = isLocalToLink || source.family === Family.IB ? 'ENODEV' : 'EADDRNOTAVAIL'
    throw new CallError(code, because`${the.method('cm_id.bind')}: ${why}`)
  }

  #firstDevice(): CmDevice | undefined {
    const [first] = this.#devices.values()
    return first
  }
}
