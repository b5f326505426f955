/*
 * IP packets as plain records, for IP over the device: IPv4 (RFC 791; options are skipped), IPv6 without extension
 * headers (RFC 8200), UDP (RFC 768), and ICMP (RFC 792, RFC 4443). Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d.
 * Parsing verifies checksums, and returns an `IpFault` if it refuses a packet. Emitting computes checksums.
 */
import { isMappedIpv4, mappedIpv4 } from './address.ts'
import { DONT_FRAGMENT, IPV4_BYTES, IPV6_BYTES, internetChecksum, PROTOCOL_UDP, UDP_BYTES } from './ip.ts'

export const IpProtocolNumber = { ICMP: 1, UDP: PROTOCOL_UDP, ICMPV6: 58 } as const

export interface IpPacket {
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly protocol: number
  readonly hopLimit: number
  /** The bytes after the header; in a parsed packet a view of the packet's bytes. */
  readonly payload: Uint8Array
}

/** Why a packet is refused. */
export type IpFault = 'malformed' | 'checksum' | 'fragment'

export const isFault = <T extends object>(parsed: T | IpFault): parsed is IpFault => typeof parsed === 'string'

const viewOf = ({ buffer, byteOffset, byteLength }: Uint8Array): DataView =>
  new DataView(buffer, byteOffset, byteLength)

const MORE_FRAGMENTS = 0x2000
const FRAGMENT_OFFSET = 0x1fff

const parseIpv4 = (bytes: Uint8Array): IpPacket | IpFault => {
  const view = viewOf(bytes)
  const headerBytes = (bytes[0]! & 15) * 4
  if (bytes.length < IPV4_BYTES || headerBytes < IPV4_BYTES || headerBytes > bytes.length) return 'malformed'
  const length = view.getUint16(2)
  if (length < headerBytes || length > bytes.length) return 'malformed'
  if (internetChecksum(view, 0, headerBytes) !== 0) return 'checksum'
  if ((view.getUint16(6) & (MORE_FRAGMENTS | FRAGMENT_OFFSET)) !== 0) return 'fragment'
  return {
    source: mappedIpv4(bytes, 12),
    destination: mappedIpv4(bytes, 16),
    protocol: bytes[9]!,
    hopLimit: bytes[8]!,
    payload: bytes.subarray(headerBytes, length),
  }
}

/** IPv6 next header. */
const FRAGMENT_HEADER = 44

const parseIpv6 = (bytes: Uint8Array): IpPacket | IpFault => {
  if (bytes.length < IPV6_BYTES) return 'malformed'
  const end = IPV6_BYTES + viewOf(bytes).getUint16(4)
  if (end > bytes.length) return 'malformed'
  const protocol = bytes[6]!
  if (protocol === FRAGMENT_HEADER) return 'fragment'
  const [source, destination] = [bytes.slice(8, 24), bytes.slice(24, 40)]
  // RFC 4942, 2.2: an IPv4-mapped address must not appear in an IPv6 packet.
  if (isMappedIpv4(source) || isMappedIpv4(destination)) return 'malformed'
  return { source, destination, protocol, hopLimit: bytes[7]!, payload: bytes.subarray(IPV6_BYTES, end) }
}

export const parseIp = (bytes: Uint8Array): IpPacket | IpFault => {
  const version = (bytes[0] ?? 0) >> 4
  if (version === 4) return parseIpv4(bytes)
  return version === 6 ? parseIpv6(bytes) : 'malformed'
}

/** Bytes of the IP header, without options, of a packet to an address. */
export const ipHeaderBytes = (address: Uint8Array): number => (isMappedIpv4(address) ? IPV4_BYTES : IPV6_BYTES)

/** The bytes of a packet, after `at` zero bytes for the caller's headers. IPv4: DF is set, the identification is 0. */
export const emitIp = (
  { source, destination, protocol, hopLimit, payload }: IpPacket,
  at: number,
): Uint8Array<ArrayBuffer> => {
  const headerBytes = ipHeaderBytes(destination)
  const bytes = new Uint8Array(at + headerBytes + payload.length)
  const view = new DataView(bytes.buffer, at)
  if (headerBytes === IPV4_BYTES) {
    view.setUint16(0, 0x4500)
    view.setUint16(2, headerBytes + payload.length)
    view.setUint16(6, DONT_FRAGMENT)
    view.setUint8(8, hopLimit)
    view.setUint8(9, protocol)
    bytes.set(source.subarray(12), at + 12)
    bytes.set(destination.subarray(12), at + 16)
    view.setUint16(10, internetChecksum(view, 0, IPV4_BYTES))
  } else {
    view.setUint8(0, 0x60)
    view.setUint16(4, payload.length)
    view.setUint8(6, protocol)
    view.setUint8(7, hopLimit)
    bytes.set(source, at + 8)
    bytes.set(destination, at + 24)
  }
  bytes.set(payload, at + headerBytes)
  return bytes
}

/** The sum of the words of the pseudo-header (RFC 768; RFC 8200, 8.1). */
const pseudoHeaderSum = ({ source, destination, protocol }: IpPacket, length: number): number => {
  let sum = protocol + length
  const first = isMappedIpv4(destination) ? 12 : 0
  for (const address of [source, destination])
    for (let i = first; i < 16; i += 2) sum += (address[i]! << 8) | address[i + 1]!
  return sum
}

// ---- UDP ----

interface UdpDatagram {
  readonly sourcePort: number
  readonly destinationPort: number
  readonly payload: Uint8Array
}

export const parseUdp = (packet: IpPacket): UdpDatagram | IpFault => {
  const { payload: bytes } = packet
  if (bytes.length < UDP_BYTES) return 'malformed'
  const view = viewOf(bytes)
  const length = view.getUint16(4)
  if (length < UDP_BYTES || length > bytes.length) return 'malformed'
  // A checksum of 0 means that the sender computed none, which only IPv4 allows.
  const hasChecksum = view.getUint16(6) !== 0
  if (!hasChecksum && !isMappedIpv4(packet.destination)) return 'checksum'
  if (hasChecksum && internetChecksum(view, 0, length, pseudoHeaderSum(packet, length)) !== 0) return 'checksum'
  return {
    sourcePort: view.getUint16(0),
    destinationPort: view.getUint16(2),
    payload: bytes.subarray(UDP_BYTES, length),
  }
}

/** The IP packet with the datagram as its payload. */
export const udpPacket = (
  addresses: Omit<IpPacket, 'protocol' | 'payload'>,
  { sourcePort, destinationPort, payload }: UdpDatagram,
): IpPacket => {
  const bytes = new Uint8Array(UDP_BYTES + payload.length)
  const view = new DataView(bytes.buffer)
  const packet = { ...addresses, protocol: IpProtocolNumber.UDP, payload: bytes }
  view.setUint16(0, sourcePort)
  view.setUint16(2, destinationPort)
  view.setUint16(4, bytes.length)
  bytes.set(payload, UDP_BYTES)
  view.setUint16(6, internetChecksum(view, 0, bytes.length, pseudoHeaderSum(packet, bytes.length)) || 0xffff)
  return packet
}

// ---- ICMP ----

const ICMP_HEADER_BYTES = 4

interface IcmpMessage {
  readonly type: number
  readonly code: number
  /** The bytes after the checksum. */
  readonly body: Uint8Array
}

/** The checksum of ICMPv6 covers the pseudo-header; that of ICMP does not. */
const icmpSum = (packet: IpPacket): number =>
  packet.protocol === IpProtocolNumber.ICMPV6 ? pseudoHeaderSum(packet, packet.payload.length) : 0

export const parseIcmp = (packet: IpPacket): IcmpMessage | IpFault => {
  const { payload: bytes } = packet
  if (bytes.length < ICMP_HEADER_BYTES) return 'malformed'
  if (internetChecksum(viewOf(bytes), 0, bytes.length, icmpSum(packet)) !== 0) return 'checksum'
  return { type: bytes[0]!, code: bytes[1]!, body: bytes.subarray(ICMP_HEADER_BYTES) }
}

/** The IP packet with the message as its payload: ICMP or ICMPv6, depending on the destination. */
export const icmpPacket = (
  addresses: Omit<IpPacket, 'protocol' | 'payload'>,
  { type, code, body }: IcmpMessage,
): IpPacket => {
  const bytes = new Uint8Array(ICMP_HEADER_BYTES + body.length)
  const view = new DataView(bytes.buffer)
  const protocol = isMappedIpv4(addresses.destination) ? IpProtocolNumber.ICMP : IpProtocolNumber.ICMPV6
  const packet = { ...addresses, protocol, payload: bytes }
  bytes[0] = type
  bytes[1] = code
  bytes.set(body, ICMP_HEADER_BYTES)
  view.setUint16(2, internetChecksum(view, 0, bytes.length, icmpSum(packet)))
  return packet
}
