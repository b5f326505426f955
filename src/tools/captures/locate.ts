/*
 * Finds the transport packets (BTH to ICRC) in a captured packet: through Ethernet with tags, Linux cooked capture, raw
 * IP and InfiniBand's headers, and through tunnels of networks and of mirrors (VXLAN, GENEVE, GRE, IP in IP, MPLS,
 * ERSPAN I to III). A frame that a host joined has several (joined.ts). Reads only bytes that were captured. What is no
 * RoCE packet has a kind, for counts.
 *
 * Layouts: IEEE 802.3, 802.1Q; draft-ietf-opsawg-pcaplinktype; RFC 791, 8200, 768, 7348, 8926, 2890, 2003, 2473, 3032,
 * 4448, 7510; draft-foschiano-erspan; InfiniBand Architecture Specification, clauses 7.7 (LRH) and 8.3 (GRH), annexes
 * A16 and A17.
 */
import { LinkType } from '../../spec/wire/captures.ts'
import { EtherType, IpProtocol, Ipv6Extension, TunnelPort } from '../../spec/wire/ethernet.ts'
import { headers, ROCE_UDP_PORT } from '../../spec/wire/headers.ts'
import { GRH_BYTES } from '../../transport/wire/ip.ts'
import { checkPacket } from '../../transport/wire/packet.ts'
import type { AddressTable } from './addresses.ts'
import { erfPayload, type RawPacket } from './file.ts'
import { JoinedFrames } from './joined.ts'
import type { Located } from './located.ts'
import { OtherPackets } from './others.ts'

/** What a captured packet is. */
export const packetKinds = [
  'RoCEv2',
  'RoCEv1',
  'InfiniBand',
  'ARP',
  'another EtherType',
  'TCP',
  'UDP at other ports',
  'ICMP',
  'another IP protocol',
  'IP fragments after the first',
  'malformed IP',
  'cut off before the transport header',
  'tunnels within tunnels',
  'an unknown link type',
] as const
export const Kind = {
  ROCE_V2: 0,
  ROCE_V1: 1,
  INFINIBAND: 2,
  ARP: 3,
  OTHER_ETHERTYPE: 4,
  TCP: 5,
  OTHER_UDP: 6,
  ICMP: 7,
  OTHER_IP: 8,
  FRAGMENT: 9,
  MALFORMED: 10,
  CUT: 11,
  TOO_DEEP: 12,
  UNKNOWN_LINK: 13,
} as const

/** An ICMP error about a RoCEv2 packet, whose first bytes it quotes. One object for all packets. */
export interface IcmpError {
  isIpv6: boolean
  type: number
  code: number
  /** Who sent it, and of the quoted packet: numbers of addresses. */
  reporter: number
  source: number
  destination: number
  /** -1: the quoted bytes end before it. */
  qpn: number
  /** The MTU of the next link, if the error is about it; 0: not said. */
  mtu: number
}

/** A part of a UDP datagram. One object for all packets. */
export interface IpFragment {
  /** Numbers of addresses. */
  source: number
  destination: number
  identification: number
  /** Bytes of the IP payload: where the part begins, and how many it has. */
  offset: number
  bytes: number
  isLast: boolean
}

const ARP = 0x0806
/** EtherTypes of tags. */
const isTag = (type: number): boolean => type === EtherType.VLAN || type === 0x88a8 || type === 0x9100
const ERSPAN_I_II = 0x88be
const ERSPAN_III = 0x22eb
const MPLS_MULTICAST = 0x8848
const MPLS_BOTTOM = 0x100
/** Length fields of IEEE 802.3 are smaller, EtherTypes are not. */
const FIRST_ETHERTYPE = 0x600
/** Flags of a VXLAN header with a network identifier, and of no extension. */
const VXLAN_FLAGS = 0x08
/** A mirror of a mirror of a tunnel is rare; a hostile packet nests until its bytes end. */
const MAX_TUNNELS = 4
const LRH_BYTES = 8
const ICMP = 1
const ICMPV6 = 58
/** LRH.LNH: what follows. */
const LNH_BTH = 2
const LNH_GRH = 3
const NEXT_HEADER_BTH = 0x1b

/** Packets at other ports that may be candidates: others cost nothing. */
const MAX_CANDIDATES = 1024

const checkPacketAt = (view: DataView, at: number, length: number, end: number): boolean =>
  at + length <= end && checkPacket(view, at, length) === 0

const extensions: readonly number[] = Object.values(Ipv6Extension)

export class Locator {
  readonly located: Located = {
    at: 0,
    captured: 0,
    length: 0,
    source: 0,
    destination: 0,
    sourcePort: 0,
    destinationPort: 0,
    ipVersion: 0,
    isRoceV1: false,
    identification: 0,
    dontFragment: false,
    isFragment: false,
    hopLimit: 0,
    ecn: 0,
    dscp: 0,
    point: 0,
    part: 0,
    parts: 1,
    hasChecksum: false,
    joined: 0,
    joinedCaptured: 0,
    isInferred: false,
    hasMore: false,
  }
  /** What is no RoCE packet, by EtherType, IP protocol and UDP port. */
  readonly others = new OtherPackets()
  readonly joined: JoinedFrames
  /** After `Kind.ICMP`: the error; undefined: another ICMP message, or not about a RoCEv2 packet. */
  icmp: IcmpError | undefined
  /** After any packet: the part of a datagram that it is; undefined: it is whole. */
  fragment: IpFragment | undefined
  readonly #part: IpFragment = { source: 0, destination: 0, identification: 0, offset: 0, bytes: 0, isLast: false }
  /** After `Kind.OTHER_UDP`: a transport packet could begin here, and `located` is right for it. */
  isCandidate = false
  readonly #error: IcmpError = {
    isIpv6: false,
    type: 0,
    code: 0,
    reporter: 0,
    source: 0,
    destination: 0,
    qpn: -1,
    mtu: 0,
  }
  #candidates = MAX_CANDIDATES
  readonly #addresses: AddressTable
  readonly #port: number
  // IPv4 addresses of an earlier packet, and their numbers.
  #first = -1
  #second = -1
  #firstNumber = 0
  #secondNumber = 0
  #view: DataView = new DataView(new ArrayBuffer(0))
  /** End of the captured bytes. */
  #end = 0
  #tunnels = 0

  /** `port`: the UDP port of RoCEv2, if it is not 4791. */
  constructor(addresses: AddressTable, port: number = ROCE_UDP_PORT) {
    this.#addresses = addresses
    this.#port = port
    this.joined = new JoinedFrames(addresses)
  }

  /**
   * Returns a number of `packetKinds`. For the first three, `located` says where the packet is, and `located.parts` how
   * many there are: then `select` chooses each.
   */
  locate(packet: RawPacket): number {
    const kind = this.#locate(packet)
    if (kind <= Kind.INFINIBAND) this.joined.split(packet, this.located)
    return kind
  }

  /**
   * Makes `located`, and the packet's arena, those of a packet of the frame, from 0. Before the next frame, select 0.
   */
  select(packet: RawPacket, part: number): void {
    if (part !== this.located.part) this.joined.select(packet, this.located, part)
  }

  #locate(packet: RawPacket): number {
    this.#view = packet.arena.view
    this.#end = packet.at + packet.captured
    this.#tunnels = 0
    this.icmp = undefined
    this.isCandidate = false
    this.fragment = undefined
    const { located } = this
    located.point = packet.interface * 3 + (packet.direction === undefined ? 0 : packet.direction === 'sent' ? 1 : 2)
    located.isFragment = false
    if (packet.linkType !== LinkType.ERF) return this.#link(packet.linkType, packet.at)
    const inner = erfPayload(this.#view, packet.at, this.#end)
    if (inner === undefined) return Kind.OTHER_ETHERTYPE
    this.#end = Math.min(this.#end, inner.at + inner.length)
    return this.#link(inner.linkType, inner.at)
  }

  #link(linkType: number, at: number): number {
    switch (linkType) {
      case LinkType.ETHERNET:
        return this.#ethernet(at)
      case LinkType.LINUX_COOKED:
        return at + 16 > this.#end ? Kind.CUT : this.#typed(this.#view.getUint16(at + 14), at + 16)
      case LinkType.LINUX_COOKED_V2:
        if (at + 20 > this.#end) return Kind.CUT
        // The interface index: a bond and its members see the same packet.
        this.#addPoint(this.#view.getUint32(at + 4))
        return this.#typed(this.#view.getUint16(at), at + 20)
      case LinkType.RAW:
      case LinkType.RAW_BSD:
      case LinkType.IPV4:
      case LinkType.IPV6:
        return this.#ip(at)
      case LinkType.INFINIBAND:
        return this.#infiniband(at)
      default:
        return Kind.UNKNOWN_LINK
    }
  }

  #addPoint(value: number): void {
    this.located.point = (Math.imul(this.located.point, 31) + value + 1) | 0
  }

  #ethernet(at: number): number {
    return at + 14 > this.#end ? Kind.CUT : this.#typed(this.#view.getUint16(at + 12), at + 14)
  }

  /** What follows an EtherType. */
  #typed(type: number, from: number): number {
    let at = from
    let inner = type
    while (isTag(inner)) {
      if (at + 4 > this.#end) return Kind.CUT
      this.#addPoint(this.#view.getUint16(at) & 0xfff)
      inner = this.#view.getUint16(at + 2)
      at += 4
    }
    switch (inner) {
      case EtherType.IPV4:
      case EtherType.IPV6:
        return this.#ip(at)
      case EtherType.ROCE_V1:
        return this.#grh(at, Kind.ROCE_V1)
      case EtherType.BRIDGED:
        return this.#isTunnel(inner) ? this.#ethernet(at) : Kind.TOO_DEEP
      case EtherType.MPLS:
      case MPLS_MULTICAST:
        return this.#mpls(at)
      case ARP:
        return Kind.ARP
      default:
        return this.others.count('etherTypes', inner < FIRST_ETHERTYPE ? 0 : inner, Kind.OTHER_ETHERTYPE)
    }
  }

  /** Labels, and what is behind the last one: IP, or an Ethernet frame, which may have a control word (RFC 4448). */
  #mpls(from: number): number {
    const view = this.#view
    let at = from
    for (;;) {
      if (at + 4 > this.#end) return Kind.CUT
      const label = view.getUint32(at)
      at += 4
      if ((label & MPLS_BOTTOM) === 0) continue
      this.#addPoint(label >>> 12)
      break
    }
    if (++this.#tunnels > MAX_TUNNELS) return Kind.TOO_DEEP
    if (at >= this.#end) return Kind.CUT
    const version = view.getUint8(at) >> 4
    if (version === 4 || version === 6) return this.#ip(at)
    return this.#ethernet(version === 0 ? at + 4 : at)
  }

  #ip(at: number): number {
    if (at >= this.#end) return Kind.CUT
    const version = this.#view.getUint8(at) >> 4
    return version === 4 ? this.#ipv4(at) : version === 6 ? this.#ipv6(at) : Kind.MALFORMED
  }

  #ipv4(at: number): number {
    const view = this.#view
    if (at + 20 > this.#end) return Kind.CUT
    const headerBytes = (view.getUint8(at) & 15) * 4
    const total = view.getUint16(at + 2)
    // Total length 0: segmentation offload leaves it to the adapter.
    if (headerBytes < 20 || (total !== 0 && total < headerBytes)) return Kind.MALFORMED
    const fragment = view.getUint16(at + 6)
    if ((fragment & 0x3fff) !== 0 && view.getUint8(at + 9) === IpProtocol.UDP) {
      const addresses = this.#addresses
      const [source, destination] = [addresses.ofIpv4(view, at + 12), addresses.ofIpv4(view, at + 16)]
      this.#setPart(source, destination, view.getUint16(at + 4), fragment & 0x1fff, total - headerBytes)
      this.#part.isLast = (fragment & 0x2000) === 0
    }
    if ((fragment & 0x1fff) !== 0) return Kind.FRAGMENT
    const { located } = this
    located.ipVersion = 4
    located.isFragment = (fragment & 0x2000) !== 0
    located.dontFragment = (fragment & 0x4000) !== 0
    located.identification = view.getUint16(at + 4)
    located.ecn = view.getUint8(at + 1) & 3
    located.dscp = view.getUint8(at + 1) >> 2
    located.hopLimit = view.getUint8(at + 8)
    return this.#protocol(view.getUint8(at + 9), at + headerBytes, at, total === 0 ? -1 : total - headerBytes)
  }

  /** `units`: of 8 bytes. */
  #setPart(source: number, destination: number, identification: number, units: number, bytes: number): void {
    const part = this.#part
    part.source = source
    part.destination = destination
    part.identification = identification
    part.offset = 8 * units
    part.bytes = Math.max(0, bytes)
    this.fragment = part
  }

  #ipv6(at: number): number {
    const view = this.#view
    if (at + 40 > this.#end) return Kind.CUT
    const { located } = this
    located.ipVersion = 6
    located.identification = 0
    located.dontFragment = true
    located.ecn = (view.getUint8(at + 1) >> 4) & 3
    located.dscp = (view.getUint16(at) >> 6) & 0x3f
    located.hopLimit = view.getUint8(at + 7)
    const payload = view.getUint16(at + 4)
    let next = view.getUint8(at + 6)
    let from = at + 40
    while (extensions.includes(next)) {
      if (from + 8 > this.#end) return Kind.CUT
      if (next === Ipv6Extension.FRAGMENT) {
        const fragment = view.getUint16(from + 2)
        if (view.getUint8(from) === IpProtocol.UDP) {
          const addresses = this.#addresses
          const [source, destination] = [addresses.ofGid(view, at + 8), addresses.ofGid(view, at + 24)]
          this.#setPart(source, destination, view.getUint32(from + 4), fragment >> 3, payload - (from + 8 - at - 40))
          this.#part.isLast = (fragment & 1) === 0
        }
        if (fragment >> 3 !== 0) return Kind.FRAGMENT
        located.isFragment = (fragment & 1) !== 0
      }
      const bytes = next === Ipv6Extension.FRAGMENT ? 8 : 8 + 8 * view.getUint8(from + 1)
      next = view.getUint8(from)
      from += bytes
    }
    return this.#protocol(next, from, at, payload === 0 ? -1 : payload - (from - at - 40))
  }

  /** `ip`: offset of the IP header; `length`: bytes of the IP payload, -1 if unknown. */
  #protocol(protocol: number, at: number, ip: number, length: number): number {
    switch (protocol) {
      case IpProtocol.UDP:
        return this.#udp(at, ip, length)
      case IpProtocol.GRE:
        return this.#gre(at)
      case IpProtocol.IPIP:
      case IpProtocol.IPV6:
        return this.#isTunnel(protocol) ? this.#ip(at) : Kind.TOO_DEEP
      case IpProtocol.MPLS:
        return this.#mpls(at)
      case IpProtocol.TCP:
        return Kind.TCP
      case ICMP:
      case ICMPV6:
        this.#icmp(at, ip, protocol === ICMPV6)
        return Kind.ICMP
      default:
        return this.others.count('protocols', protocol, Kind.OTHER_IP)
    }
  }

  /** RFC 792 and 4443: type, code, check sum, a word (MTU), and the packet that could not be delivered. */
  #icmp(at: number, ip: number, isIpv6: boolean): void {
    const view = this.#view
    const quoted = at + 8
    if (quoted + 20 > this.#end) return
    const type = view.getUint8(at)
    const isError = isIpv6 ? type >= 1 && type <= 4 : type === 3 || type === 11 || type === 12
    const version = view.getUint8(quoted) >> 4
    if (!isError || version !== (isIpv6 ? 6 : 4)) return
    const udp = isIpv6 ? quoted + 40 : quoted + 4 * (view.getUint8(quoted) & 15)
    if (udp + 8 > this.#end || view.getUint8(quoted + (isIpv6 ? 6 : 9)) !== IpProtocol.UDP) return
    if (view.getUint16(udp + 2) !== this.#port) return
    const addresses = this.#addresses
    const error = this.#error
    const from = isIpv6 ? 8 : 12
    const size = isIpv6 ? 16 : 4
    const numberAt = (offset: number): number =>
      isIpv6 ? addresses.ofGid(view, offset) : addresses.ofIpv4(view, offset)
    error.isIpv6 = isIpv6
    error.type = type
    error.code = view.getUint8(at + 1)
    error.reporter = numberAt(ip + from)
    error.source = numberAt(quoted + from)
    error.destination = numberAt(quoted + from + size)
    error.qpn = udp + 16 <= this.#end ? view.getUint32(udp + 12) & 0xff_ffff : -1
    error.mtu = isIpv6 ? (type === 2 ? view.getUint32(at + 4) : 0) : error.code === 4 ? view.getUint16(at + 6) : 0
    this.icmp = error
  }

  #udp(at: number, ip: number, length: number): number {
    const view = this.#view
    if (at + 8 > this.#end) return Kind.CUT
    const { located } = this
    const destinationPort = view.getUint16(at + 2)
    if (destinationPort !== this.#port) {
      const kind = this.#tunnel(destinationPort, at + 8)
      if (kind >= 0) return kind
    }
    const sourcePort = view.getUint16(at)
    const udpLength = view.getUint16(at + 4)
    const bytes = (udpLength === 0 ? length : udpLength) - 8
    if (destinationPort !== this.#port) {
      located.sourcePort = sourcePort
      located.destinationPort = destinationPort
      if (this.#candidates > 0 && checkPacketAt(view, at + 8, bytes, this.#end)) {
        this.#candidates--
        this.isCandidate = this.#found(at + 8, bytes, ip, Kind.ROCE_V2) === Kind.ROCE_V2
      }
      return this.others.count('ports', Math.min(sourcePort, destinationPort), Kind.OTHER_UDP)
    }
    // Datagrams that were joined by the receiving host have no UDP length of their own.
    if (bytes < headers.BTH.bytes) return Kind.MALFORMED
    if (length >= 0 && bytes + 8 > length && !located.isFragment) return Kind.MALFORMED
    located.sourcePort = sourcePort
    located.destinationPort = destinationPort
    located.hasChecksum = view.getUint16(at + 6) !== 0
    return this.#found(at + 8, bytes, ip, Kind.ROCE_V2)
  }

  /** What follows the UDP header at a tunnel's port; -1: none. */
  #tunnel(port: number, at: number): number {
    const view = this.#view
    switch (port) {
      case TunnelPort.VXLAN:
      case TunnelPort.VXLAN_LINUX:
        if (at + 8 > this.#end) return Kind.CUT
        if (port === TunnelPort.VXLAN_LINUX && view.getUint8(at) !== VXLAN_FLAGS) return -1
        return this.#isTunnel(view.getUint32(at + 4) >>> 8) ? this.#ethernet(at + 8) : Kind.TOO_DEEP
      case TunnelPort.GENEVE: {
        if (at + 8 > this.#end) return Kind.CUT
        const version = view.getUint8(at) >> 6
        if (version !== 0) return -1
        if (!this.#isTunnel(view.getUint32(at + 4) >>> 8)) return Kind.TOO_DEEP
        return this.#typed(view.getUint16(at + 2), at + 8 + 4 * (view.getUint8(at) & 0x3f))
      }
      case TunnelPort.MPLS:
        return this.#mpls(at)
      default:
        return -1
    }
  }

  #isTunnel(number: number): boolean {
    this.#addPoint(number)
    return ++this.#tunnels <= MAX_TUNNELS
  }

  #gre(at: number): number {
    const view = this.#view
    if (at + 4 > this.#end) return Kind.CUT
    const flags = view.getUint16(at)
    const type = view.getUint16(at + 2)
    const hasSequence = (flags & 0x1000) !== 0
    const from = at + 4 + ((flags & 0x8000) !== 0 ? 4 : 0) + ((flags & 0x2000) !== 0 ? 4 : 0) + (hasSequence ? 4 : 0)
    if ((flags & 7) !== 0) return this.others.count('protocols', IpProtocol.GRE, Kind.OTHER_IP)
    if (!this.#isTunnel(type)) return Kind.TOO_DEEP
    if (type === ERSPAN_I_II) {
      // Type I has no sequence number and no header of its own.
      if (!hasSequence) return this.#ethernet(from)
      if (from + 8 > this.#end) return Kind.CUT
      this.#addPoint(view.getUint32(from) & 0x3ff)
      return this.#ethernet(from + 8)
    }
    if (type === ERSPAN_III) {
      if (from + 12 > this.#end) return Kind.CUT
      this.#addPoint(view.getUint32(from) & 0x3ff)
      const bits = view.getUint16(from + 10)
      const payload = from + 12 + (bits & 1) * 8
      // FT: the payload is an Ethernet frame (0) or an IP packet (2).
      return ((bits >> 10) & 31) === 2 ? this.#ip(payload) : this.#ethernet(payload)
    }
    return this.#typed(type, from)
  }

  #infiniband(at: number): number {
    const view = this.#view
    if (at + LRH_BYTES > this.#end) return Kind.CUT
    const next = view.getUint8(at + 1) & 3
    const bytes = (view.getUint16(at + 4) & 0x7ff) * 4
    if (next === LNH_GRH) return this.#grh(at + LRH_BYTES, Kind.INFINIBAND)
    if (next !== LNH_BTH) return Kind.OTHER_ETHERTYPE
    const { located } = this
    located.ipVersion = 0
    located.isRoceV1 = false
    located.ecn = 0
    located.dscp = 0
    located.hopLimit = 0
    located.sourcePort = 0
    located.destinationPort = 0
    // LRH.pktLen counts from the LRH to the ICRC, whose words it includes.
    const length = bytes - LRH_BYTES
    if (length < headers.BTH.bytes) return Kind.MALFORMED
    if (at + LRH_BYTES + headers.BTH.bytes > this.#end) return Kind.CUT
    located.source = this.#addresses.ofLid(view.getUint16(at + 6))
    located.destination = this.#addresses.ofLid(view.getUint16(at + 2))
    return this.#place(at + LRH_BYTES, length, Kind.INFINIBAND)
  }

  /** A packet that begins with a global route header. */
  #grh(at: number, kind: number): number {
    const view = this.#view
    if (at + GRH_BYTES + headers.BTH.bytes > this.#end) return Kind.CUT
    if (view.getUint8(at) >> 4 !== 6 || view.getUint8(at + 6) !== NEXT_HEADER_BTH) return Kind.MALFORMED
    const { located } = this
    located.ipVersion = 0
    located.isRoceV1 = kind === Kind.ROCE_V1
    located.ecn = 0
    located.dscp = (view.getUint16(at) >> 6) & 0x3f
    located.sourcePort = 0
    located.destinationPort = 0
    located.hopLimit = view.getUint8(at + 7)
    const length = view.getUint16(at + 4)
    if (length < headers.BTH.bytes) return Kind.MALFORMED
    return this.#found(at + GRH_BYTES, length, at, kind)
  }

  /** `ip`: an IP header or GRH with the addresses. */
  #found(at: number, length: number, ip: number, kind: number): number {
    if (at + headers.BTH.bytes > this.#end) return Kind.CUT
    const { located } = this
    this.#addPoint(located.hopLimit)
    if (located.ipVersion === 4) {
      this.#ipv4Addresses(ip)
    } else {
      located.source = this.#addresses.ofGid(this.#view, ip + 8)
      located.destination = this.#addresses.ofGid(this.#view, ip + 24)
    }
    return this.#place(at, length, kind)
  }

  /** Most packets have the addresses of the one before, or the same the other way round. */
  #ipv4Addresses(ip: number): void {
    const { located } = this
    const source = this.#view.getUint32(ip + 12)
    const destination = this.#view.getUint32(ip + 16)
    if (source === this.#first && destination === this.#second) {
      located.source = this.#firstNumber
      located.destination = this.#secondNumber
    } else if (source === this.#second && destination === this.#first) {
      located.source = this.#secondNumber
      located.destination = this.#firstNumber
    } else {
      this.#first = source
      this.#second = destination
      located.source = this.#firstNumber = this.#addresses.ofIpv4(this.#view, ip + 12)
      located.destination = this.#secondNumber = this.#addresses.ofIpv4(this.#view, ip + 16)
    }
  }

  #place(at: number, length: number, kind: number): number {
    const { located } = this
    located.at = at
    located.length = length
    located.joined = length
    located.part = 0
    located.parts = 1
    located.isInferred = false
    located.hasMore = false
    located.captured = Math.min(length, this.#end - at)
    located.joinedCaptured = located.captured
    return kind
  }
}
