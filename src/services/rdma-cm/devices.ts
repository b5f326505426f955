/*
 * The devices of rdma_cm, and the choice of device and GIDs for an address (rdma_resolve_addr). In RoCE a GID is an
 * address, and a pair of GIDs a complete path: the device's port routes the packets. An InfiniBand port has addresses
 * beside its GIDs (`Port.ipAddresses`), and the GID that belongs to them is its first.
 */
import { findGid, hasLids } from '../../core/devices/gids.ts'
import type { ConnectionProtocol, PeerRequest } from '../../core/driver-contract.ts'
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
  isSameAddress,
} from '../../transport/wire/address.ts'
import { Family, isAny, isLoopback } from '../socket-address.ts'
import type { CmDevice, Neighbour } from './identifier.ts'

interface LocalEnd {
  readonly device: CmDevice
  /** 16 bytes each. On RoCE they are the same. */
  readonly localAddress: Uint8Array
  readonly localGid: Uint8Array
}

interface Route extends LocalEnd {
  readonly remoteGid: Uint8Array
}

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
  /** The GID of an InfiniBand port of another process with this IP address. Absent: there are none. */
  readonly gidOf?: (address: Uint8Array) => Uint8Array | undefined
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

/** An address of a port, with its GID and the index of its interface. */
interface PortAddress {
  readonly address: Uint8Array
  readonly gid: Uint8Array
  readonly ifindex: number
}

/** The addresses of port 1: those of IP, and the GIDs (AF_IB). */
function* addressesOf({ ports }: Device): Iterable<PortAddress> {
  const { gids, ipAddresses } = ports[0]!
  const gid = gids.entries[0]?.gid
  if (gid !== undefined) for (const address of ipAddresses ?? []) yield { address, gid, ifindex: 0 }
  for (const entry of gids.entries)
    if (entry !== undefined) yield { address: entry.gid, gid: entry.gid, ifindex: entry.ifindex }
}

/**
 * The GID of an address of the device; undefined: it is no address of it. `scope`: interface index; 0: any interface.
 */
const gidOf = ({ ports }: Device, address: Uint8Array, scope = 0): Uint8Array | undefined => {
  const { gids, ipAddresses } = ports[0]!
  const isIp = ipAddresses?.some(own => isSameAddress(own, address)) === true
  const entry = gids.entries[isIp ? 0 : findGid(gids, address, ipAddresses === undefined ? ROCE_V2 : IB)]
  return entry !== undefined && (isIp || scope === 0 || entry.ifindex === scope) ? entry.gid : undefined
}

export const hasAddress = (device: Device, address: Uint8Array): boolean => gidOf(device, address) !== undefined

const { ROCE_V2, IB } = GidType.values

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
    return this.#endWithAddress(address, scope)?.device
  }

  #endWithAddress(address: Uint8Array, scope = 0): LocalEnd | undefined {
    for (const device of this.#devices.values()) {
      const localGid = gidOf(device.device, address, scope)
      if (localGid !== undefined) return { device, localAddress: address, localGid }
    }
    return undefined
  }

  /** Whether a path leads to this host: its GID is of a device, or in 127.0.0.0/8, or its LID is of a device. */
  isToHost({ remoteGid, lids }: PeerRequest['path']): boolean {
    if (isLoopbackIpv4(remoteGid) || this.withAddress(remoteGid) !== undefined) return true
    if (lids === undefined) return false
    for (const { device } of this.#devices.values()) if (device.ports[0]!.attributes.lid === lids.remote) return true
    return false
  }

  /** The next hop of a path; undefined if the system does not report neighbours. */
  neighbourOf({ device }: CmDevice, localGid: Uint8Array, remoteGid: Uint8Array): Neighbour | undefined {
    if (this.#routing.neighbourOf === undefined) return undefined
    const { gids } = device.ports[0]!
    const entry = gids.entries[findGid(gids, localGid, ROCE_V2)]
    return { mac: entry && this.#routing.neighbourOf(entry.ifindex, remoteGid) }
  }

  /**
   * The path to `destination`. `source` may be a wildcard. `onlyDevice`: the device that must be used. Throws CallError
   * ENODEV, EHOSTUNREACH, ENETUNREACH, or the errno of `Routing.sourceOf`.
   */
  route(destination: SocketAddress, source: SocketAddress | undefined, onlyDevice?: CmDevice): Route {
    // As in Linux, no route leads to ::ffff:a.b.c.d as an address of AF_INET6.
    if (destination.family === Family.INET6 && isMappedIpv4(destination.address)) throw noLocalEnd(-Errno.ENETUNREACH)
    const remoteAddress = this.#remoteAddressOf(destination)
    const peer = this.#endWithAddress(remoteAddress)
    const isOfThisProcess = peer !== undefined
    let local: LocalEnd
    if (source !== undefined && !this.#isWildcard(source, isOfThisProcess)) local = this.#localOf(source)
    else if (onlyDevice !== undefined) local = this.#localOn(onlyDevice, remoteAddress)
    else local = this.#localFor(remoteAddress, destination.scope)
    if (onlyDevice !== undefined && local.device !== onlyDevice)
      throw callError.ENODEV`cm_id: the local address belongs to another device than the identifier`
    const gid = peer?.localGid ?? this.#routing.gidOf?.(remoteAddress)
    if (this.#routing.isClosed && gid === undefined && !isMulticastGid(remoteAddress))
      throw callError.EHOSTUNREACH`${the.method('cm_id.resolveAddress')}: no device of this network has the address`
    if (peer !== undefined && hasLids(peer.device.device) !== hasLids(local.device.device))
      throw callError.EHOSTUNREACH`${the.method('cm_id.resolveAddress')}: ${peer.device.device.name} and ${local.device.device.name} are on different links, InfiniBand and Ethernet`
    return { remoteGid: gid ?? remoteAddress, ...local }
  }

  /**
   * The remote address for a destination. A loopback or wildcard address that no device has means the first device
   * address of the family. Exception: if the network is not closed and a device has an address in 127.0.0.0/8, other
   * loopback addresses belong to devices of other processes.
   */
  #remoteAddressOf(destination: SocketAddress): Uint8Array {
    const { address, family } = destination
    if (this.withAddress(address) !== undefined) return address
    if (!isLoopback(destination) && !isAny(destination)) return address
    const isOfOtherProcess = isLoopback(destination) && !this.#routing.isClosed && this.#loopbackAddress() !== undefined
    if (isOfOtherProcess) return address
    return this.#firstAddress(family === Family.INET).localAddress
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
    const end = this.#endWithAddress(source.address, source.scope)
    if (end === undefined) throw callError.ENODEV`cm_id: no device has the local address`
    return end
  }

  /** The end from which the system reaches a remote address. */
  #localFor(remote: Uint8Array, scope: number): LocalEnd {
    const owner = this.#endWithAddress(remote, scope)
    if (owner !== undefined) return owner
    if (isLinkLocal(remote)) return this.#linkLocalAddress(scope)
    if (isLoopbackIpv4(remote)) return this.#loopbackAddress() ?? this.#firstAddress(true)
    const source = this.#routing.sourceOf?.(remote, scope)
    const end = typeof source === 'object' ? this.#endWithAddress(source) : undefined
    if (end !== undefined) return end
    if (source !== undefined && !isMulticastGid(remote)) throw noLocalEnd(source)
    return this.#firstAddress(isMappedIpv4(remote))
  }

  /** The first device address that satisfies `isWanted`. */
  #findAddress(
    isWanted: (entry: PortAddress) => boolean,
    devices: Iterable<CmDevice> = this.#devices.values(),
  ): LocalEnd | undefined {
    for (const device of devices)
      for (const entry of addressesOf(device.device))
        if (isWanted(entry)) return { device, localAddress: entry.address, localGid: entry.gid }
    return undefined
  }

  /** The first address of a device of the remote address' kind: IPv4, link-local, other IPv6. */
  #localOn(device: CmDevice, remote: Uint8Array): LocalEnd {
    const isSameKind = ({ address }: PortAddress): boolean =>
      isMappedIpv4(address) === isMappedIpv4(remote) && isLinkLocal(address) === isLinkLocal(remote)
    const found = this.#findAddress(isSameKind, [device])
    if (found === undefined)
      throw callError.ENETUNREACH`${the.method('cm_id.resolveAddress')}: the device has no address of that family`
    return found
  }

  /** The first address of a family. Other addresses have precedence over link-local addresses. */
  #firstAddress(isIpv4: boolean): LocalEnd {
    const isFamily = ({ address }: PortAddress): boolean => isMappedIpv4(address) === isIpv4
    const found =
      this.#findAddress(entry => isFamily(entry) && !isLinkLocal(entry.address)) ?? this.#findAddress(isFamily)
    if (found === undefined) throw callError.ENODEV`cm_id: no device has an address of ${isIpv4 ? 'IPv4' : 'IPv6'}`
    return found
  }

  /** The first link-local address on interface `scope`; 0: on any interface. */
  #linkLocalAddress(scope: number): LocalEnd {
    const found = this.#findAddress(
      ({ address, ifindex }) => isLinkLocal(address) && (scope === 0 || ifindex === scope),
    )
    if (found === undefined)
      throw callError.ENODEV`cm_id: no device has a link-local address${scope === 0 ? '' : ` on interface ${scope}`}`
    return found
  }

  /** The first address in 127.0.0.0/8. */
  #loopbackAddress(): LocalEnd | undefined {
    return this.#findAddress(({ address }) => isLoopbackIpv4(address))
  }

  /**
   * The end with a local address; undefined for a wildcard. A loopback address that no device has means the first
   * device. Throws CallError EADDRNOTAVAIL if no device, or another than `onlyDevice`, has the address, for a
   * link-local address or a GID (AF_IB) ENODEV; EINVAL for a link-local address without scope.
   */
  endToBind(source: SocketAddress, onlyDevice?: CmDevice): LocalEnd | undefined {
    if (isAny(source)) return undefined
    const isLocalToLink = source.family === Family.INET6 && hasLinkScope(source.address)
    if (isLocalToLink && source.scope === 0)
      throw callError.EINVAL`${the.method('cm_id.bind')}: a link-local address needs its scope, the index of an interface`
    // As in Linux, no interface has ::ffff:a.b.c.d as an address of AF_INET6.
    const isForeignFamily = source.family === Family.INET6 && isMappedIpv4(source.address)
    const end =
      this.#endWithAddress(source.address, source.scope) ??
      (isLoopback(source) ? this.#firstDeviceAs(source.address) : undefined)
    const isOfOtherDevice = end !== undefined && onlyDevice !== undefined && end.device !== onlyDevice
    if (end !== undefined && !isForeignFamily && !isOfOtherDevice) return end
    const why = isForeignFamily
      ? 'an IPv4 address needs the family AF_INET'
      : isOfOtherDevice
        ? 'the address belongs to another device than the identifier'
        : 'no device has the address; bind to one that a device has'
    // As in Linux, which looks for a link-local address or a GID only among the devices.
    const code = isLocalToLink || source.family === Family.IB ? 'ENODEV' : 'EADDRNOTAVAIL'
    throw new CallError(code, because`${the.method('cm_id.bind')}: ${why}`)
  }

  /** The first device, by a loopback address that no device has. */
  #firstDeviceAs(address: Uint8Array): LocalEnd | undefined {
    const [device] = this.#devices.values()
    if (device === undefined) return undefined
    const { ipAddresses, gids } = device.device.ports[0]!
    return { device, localAddress: address, localGid: (ipAddresses && gids.entries[0]?.gid) ?? address }
  }
}
