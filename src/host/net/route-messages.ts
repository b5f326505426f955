/*
 * Messages of rtnetlink: network interfaces, their addresses and their neighbours, and the route to an address
 * (rtnetlink(7), netlink(7); numbers of linux/rtnetlink.h, if_link.h, if_addr.h and neighbour.h). Only what a device
 * needs is parsed. Any bytes can be parsed: lengths are checked.
 */
import { isIpv4Mapped } from './addresses.ts'
import { AF_INET, AF_INET6 } from './socket-constants.ts'

export interface LinkMessage {
  readonly kind: 'link'
  /** False: the interface was removed. */
  readonly isPresent: boolean
  readonly index: number
  readonly name: string
  readonly mac: Uint8Array
  /** Largest IP packet, bytes. */
  readonly mtu: number
  /** IFF_UP: administratively up. */
  readonly isUp: boolean
  /** IFF_LOWER_UP. */
  readonly hasCarrier: boolean
  readonly isLoopback: boolean
  /** IFF_MASTER: the master of several interfaces. Its MAC may change. */
  readonly isBond: boolean
  /** Of a VLAN interface: its number, and the index of the interface below. */
  readonly vlan?: { readonly id: number; readonly lower: number }
}

export interface AddressMessage {
  readonly kind: 'address'
  /**
   * False: the address was removed, or is unusable because duplicate address detection is running or has found a
   * duplicate.
   */
  readonly isPresent: boolean
  readonly index: number
  /** 16 bytes, IPv4 as ::ffff:a.b.c.d. */
  readonly address: Uint8Array
  /**
   * IPv4: IFA_ADDRESS and the prefix length, in hexadecimal. An interface may have an IPv4 address several times, with
   * different prefixes. Empty for IPv6.
   */
  readonly prefix: string
}

/** The MAC of an address on the link. */
export interface NeighbourMessage {
  readonly kind: 'neighbour'
  /** False: the system has removed the entry. */
  readonly isPresent: boolean
  readonly index: number
  /** 16 bytes, IPv4 as ::ffff:a.b.c.d. */
  readonly address: Uint8Array
  /** Empty: not known. */
  readonly mac: Uint8Array
}

/** `done`: a dump has ended. `errno`: 0 if the dump is complete. */
type RouteMessage = LinkMessage | AddressMessage | NeighbourMessage | { readonly kind: 'done'; readonly errno: number }

/** Size of struct nlmsghdr {length u32, type u16, flags u16, sequence u32, port u32}. */
const HEADER = 16
const NLMSG_ERROR = 2
const NLMSG_DONE = 3
const RTM_NEWLINK = 16
const RTM_DELLINK = 17
const RTM_NEWADDR = 20
const RTM_DELADDR = 21
export const RTM_GETLINK = 18
export const RTM_GETADDR = 22
const RTM_NEWNEIGH = 28
const RTM_DELNEIGH = 29
export const RTM_GETNEIGH = 30
const RTM_NEWROUTE = 24
const RTM_GETROUTE = 26
const NLM_F_REQUEST = 1
const NLM_F_REQUEST_DUMP = 0x301
const NLM_F_DUMP_INTR = 0x10

const AF_UNSPEC = 0

/** Size of struct ifinfomsg: family u8 at 0, index i32 at 4, flags u32 at 8. */
const LINK_BODY = 16
const IFF_UP = 1
const IFF_LOOPBACK = 8
const IFF_MASTER = 0x400
const IFF_LOWER_UP = 0x1_0000
const IFLA_ADDRESS = 1
const IFLA_IFNAME = 3
const IFLA_MTU = 4
const IFLA_LINK = 5
const IFLA_WIRELESS = 11
const IFLA_LINKINFO = 18
const IFLA_INFO_KIND = 1
const IFLA_INFO_DATA = 2
const IFLA_VLAN_ID = 1

/** Size of struct ifaddrmsg: family u8 at 0, prefix length u8 at 1, flags u8 at 2, index u32 at 4. */
const ADDRESS_BODY = 8
const IFA_ADDRESS = 1
const IFA_LOCAL = 2
const IFA_FLAGS = 8
const IFA_F_OPTIMISTIC = 4
const IFA_F_DADFAILED = 8
const IFA_F_TENTATIVE = 0x40

/** Size of struct ndmsg: family u8 at 0, index i32 at 4. */
const NEIGHBOUR_BODY = 12
const NDA_DST = 1
const NDA_LLADDR = 2

/**
 * Size of struct rtmsg: family u8 at 0, lengths in bits of the destination and the source u8 at 1 and 2, type u8 at 7.
 */
const ROUTE_BODY = 12
const RTA_DST = 1
const RTA_SRC = 2
const RTA_OIF = 4
const RTA_GATEWAY = 5
const RTA_METRICS = 8
const RTAX_HOPLIMIT = 10
const RTN_UNICAST = 1

const isIp = (family: number): boolean => family === AF_INET || family === AF_INET6

const align4 = (length: number): number => (length + 3) & ~3

/** The payloads, by type, of the attributes in [from, end). struct rtattr: length u16 with its header, type u16. */
const attributesOf = (bytes: Uint8Array, from: number, end: number): Map<number, Uint8Array> => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const found = new Map<number, Uint8Array>()
  for (let at = from; at + 4 <= end; ) {
    const length = view.getUint16(at, true)
    if (length < 4 || at + length > end) break
    found.set(view.getUint16(at + 2, true), bytes.slice(at + 4, at + length))
    at += align4(length)
  }
  return found
}

const u32Of = (attribute: Uint8Array | undefined): number | undefined =>
  attribute === undefined || attribute.length < 4
    ? undefined
    : new DataView(attribute.buffer, attribute.byteOffset).getUint32(0, true)

/** A text that ends with NUL; empty: absent. */
const textOf = (bytes: Uint8Array = new Uint8Array()): string => {
  const terminator = bytes.indexOf(0)
  return Buffer.from(terminator < 0 ? bytes : bytes.subarray(0, terminator)).toString()
}

/** `IFLA_LINKINFO` of a VLAN interface, and the interface below. */
const vlanOf = (attributes: ReadonlyMap<number, Uint8Array>): LinkMessage['vlan'] => {
  const [lower, info] = [u32Of(attributes.get(IFLA_LINK)), attributes.get(IFLA_LINKINFO)]
  if (lower === undefined || info === undefined) return undefined
  const parts = attributesOf(info, 0, info.length)
  const data = parts.get(IFLA_INFO_DATA)
  if (textOf(parts.get(IFLA_INFO_KIND)) !== 'vlan' || data === undefined) return undefined
  const id = attributesOf(data, 0, data.length).get(IFLA_VLAN_ID)
  return id === undefined || id.length < 2 ? undefined : { id: viewOf(id).getUint16(0, true), lower }
}

const linkOf = (
  bytes: Uint8Array,
  view: DataView,
  at: number,
  end: number,
  isPresent: boolean,
): LinkMessage | undefined => {
  const flags = view.getUint32(at + 8, true)
  const attributes = attributesOf(bytes, at + LINK_BODY, end)
  // An event of the wireless extensions, for example the end of a scan: without MAC and MTU.
  if (attributes.has(IFLA_WIRELESS)) return undefined
  const vlan = vlanOf(attributes)
  return {
    kind: 'link',
    isPresent,
    index: view.getInt32(at + 4, true),
    name: textOf(attributes.get(IFLA_IFNAME)),
    mac: attributes.get(IFLA_ADDRESS) ?? new Uint8Array(),
    mtu: u32Of(attributes.get(IFLA_MTU)) ?? 0,
    isUp: (flags & IFF_UP) !== 0,
    hasCarrier: (flags & IFF_LOWER_UP) !== 0,
    isLoopback: (flags & IFF_LOOPBACK) !== 0,
    isBond: (flags & IFF_MASTER) !== 0,
    ...(vlan && { vlan }),
  }
}

/** An address as 16 bytes, IPv4 as ::ffff:a.b.c.d; undefined if absent or of a wrong length. */
const ipOf = (family: number, bytes: Uint8Array | undefined): Uint8Array | undefined => {
  if (bytes === undefined || bytes.length !== (family === AF_INET ? 4 : 16)) return undefined
  const address = new Uint8Array(16)
  if (family === AF_INET) address.set([0xff, 0xff, ...bytes], 10)
  else address.set(bytes)
  return address
}

const addressOf = (
  bytes: Uint8Array,
  view: DataView,
  at: number,
  end: number,
  isPresent: boolean,
): AddressMessage | undefined => {
  const attributes = attributesOf(bytes, at + ADDRESS_BODY, end)
  // On a point-to-point interface IFA_ADDRESS is the other end.
  const local = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS)
  const family = view.getUint8(at)
  const address = ipOf(family, local)
  if (address === undefined) return undefined
  const prefix =
    family === AF_INET
      ? Buffer.from([...(attributes.get(IFA_ADDRESS) ?? []), view.getUint8(at + 1)]).toString('hex')
      : ''
  const flags = u32Of(attributes.get(IFA_FLAGS)) ?? view.getUint8(at + 2)
  const isUsable =
    (flags & IFA_F_DADFAILED) === 0 && ((flags & IFA_F_TENTATIVE) === 0 || (flags & IFA_F_OPTIMISTIC) !== 0)
  return { kind: 'address', isPresent: isPresent && isUsable, index: view.getUint32(at + 4, true), address, prefix }
}

const neighbourOf = (
  bytes: Uint8Array,
  view: DataView,
  at: number,
  end: number,
  isPresent: boolean,
): NeighbourMessage | undefined => {
  const attributes = attributesOf(bytes, at + NEIGHBOUR_BODY, end)
  const address = ipOf(view.getUint8(at), attributes.get(NDA_DST))
  if (address === undefined) return undefined
  const mac = attributes.get(NDA_LLADDR) ?? new Uint8Array()
  return { kind: 'neighbour', isPresent, index: view.getInt32(at + 4, true), address, mac }
}

const messageOf = (bytes: Uint8Array, view: DataView, at: number, end: number): RouteMessage | undefined => {
  const type = view.getUint16(at + 4, true)
  const body = at + HEADER
  if (type === NLMSG_DONE || type === NLMSG_ERROR)
    return { kind: 'done', errno: body + 4 <= end ? Math.abs(view.getInt32(body, true)) : 0 }
  if (type === RTM_NEWLINK || type === RTM_DELLINK) {
    // AF_BRIDGE: membership in a bridge.
    if (body + LINK_BODY > end || view.getUint8(body) !== AF_UNSPEC) return undefined
    return linkOf(bytes, view, body, end, type === RTM_NEWLINK)
  }
  if (type === RTM_NEWADDR || type === RTM_DELADDR) {
    if (body + ADDRESS_BODY > end || !isIp(view.getUint8(body))) return undefined
    return addressOf(bytes, view, body, end, type === RTM_NEWADDR)
  }
  if (type === RTM_NEWNEIGH || type === RTM_DELNEIGH) {
    // AF_BRIDGE: an entry of a bridge's forwarding table.
    if (body + NEIGHBOUR_BODY > end || !isIp(view.getUint8(body))) return undefined
    return neighbourOf(bytes, view, body, end, type === RTM_NEWNEIGH)
  }
  return undefined
}

/** The offsets of the messages in a datagram and of their ends, up to the first truncated or malformed message. */
function* spansOf(view: DataView): Generator<readonly [at: number, end: number]> {
  for (let at = 0; at + HEADER <= view.byteLength; ) {
    const length = view.getUint32(at, true)
    if (length < HEADER || at + length > view.byteLength) return
    yield [at, at + length]
    at += align4(length)
  }
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

export const parseRouteMessages = (bytes: Uint8Array): RouteMessage[] => {
  const view = viewOf(bytes)
  const found: RouteMessage[] = []
  for (const [at, end] of spansOf(view)) {
    const message = messageOf(bytes, view, at, end)
    if (message !== undefined) found.push(message)
  }
  return found
}

/** Whether the list has changed during the dump, so that the dump may lack entries. */
export const hasInterruptedDump = (bytes: Uint8Array): boolean => {
  const view = viewOf(bytes)
  for (const [at] of spansOf(view)) if ((view.getUint16(at + 6, true) & NLM_F_DUMP_INTR) !== 0) return true
  return false
}

export type Dump = typeof RTM_GETLINK | typeof RTM_GETADDR | typeof RTM_GETNEIGH

/** A request for a list: struct nlmsghdr, and struct rtgenmsg {family u8} padded to 4. */
export const dumpRequest = (type: Dump): Uint8Array => {
  const bytes = new Uint8Array(HEADER + 4)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, bytes.length, true)
  view.setUint16(4, type, true)
  view.setUint16(6, NLM_F_REQUEST_DUMP, true)
  bytes[HEADER] = AF_UNSPEC
  return bytes
}

/** Addresses: 16 bytes, IPv4 as ::ffff:a.b.c.d. */
export const routeRequest = (source: Uint8Array, destination: Uint8Array): Uint8Array => {
  const isIpv4 = isIpv4Mapped(destination)
  const size = isIpv4 ? 4 : 16
  const bytes = new Uint8Array(HEADER + ROUTE_BODY + 2 * (4 + size))
  const view = viewOf(bytes)
  view.setUint32(0, bytes.length, true)
  view.setUint16(4, RTM_GETROUTE, true)
  view.setUint16(6, NLM_F_REQUEST, true)
  bytes.set([isIpv4 ? AF_INET : AF_INET6, 8 * size, 8 * size], HEADER)
  for (const [i, [type, address]] of [[RTA_DST, destination] as const, [RTA_SRC, source] as const].entries()) {
    const at = HEADER + ROUTE_BODY + i * (4 + size)
    view.setUint16(at, 4 + size, true)
    view.setUint16(at + 2, type, true)
    bytes.set(address.subarray(16 - size), at + 4)
  }
  return bytes
}

/** A route that leaves this machine. */
export interface Route {
  /** The index of the interface. */
  readonly interfaceIndex: number | undefined
  /** The next router, 16 bytes; undefined: the destination is on the link. */
  readonly gateway: Uint8Array | undefined
  /** `hoplimit` of the route; undefined: it has none. */
  readonly hopLimit: number | undefined
}

/** Undefined: the route does not leave this machine, or the message has none. */
export const routeIn = (bytes: Uint8Array): Route | undefined => {
  const view = viewOf(bytes)
  for (const [at, end] of spansOf(view)) {
    const body = at + HEADER
    if (view.getUint16(at + 4, true) !== RTM_NEWROUTE || body + ROUTE_BODY > end) continue
    if (view.getUint8(body + 7) !== RTN_UNICAST) return undefined
    const attributes = attributesOf(bytes, body + ROUTE_BODY, end)
    const metrics = attributes.get(RTA_METRICS)
    return {
      interfaceIndex: u32Of(attributes.get(RTA_OIF)),
      gateway: ipOf(view.getUint8(body), attributes.get(RTA_GATEWAY)),
      // 0: none
      hopLimit: (metrics && u32Of(attributesOf(metrics, 0, metrics.length).get(RTAX_HOPLIMIT))) || undefined,
    }
  }
  return undefined
}
