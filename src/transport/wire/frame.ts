/*
 * Ethernet II frames with UDP over IPv4 or IPv6 as plain records, for captures and tests. `parseFrame` and `emitFrame`
 * are exact inverses. Any other frame (ARP, VLAN tags, IP options, fragments, wrong lengths or header checksum) becomes
 * an opaque record with its bytes and the reason. Layouts: IEEE 802.3, RFC 791, RFC 8200, RFC 768. RoCEv2 senders may
 * leave the UDP checksum 0, over IPv6 too.
 */

import { isMappedIpv4 } from './address.ts'
import {
  DONT_FRAGMENT,
  IPV4_BYTES,
  IPV6_BYTES,
  internetChecksum,
  PROTOCOL_UDP,
  putIpv4,
  putIpv6,
  UDP_BYTES,
} from './ip.ts'

interface FrameFields {
  /** 6 bytes. */
  readonly destinationMac: Uint8Array
  readonly sourceMac: Uint8Array
  /** IPv4: 4 bytes (`emitFrame` also accepts ::ffff:a.b.c.d); IPv6: 16 bytes. */
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly sourcePort: number
  readonly destinationPort: number
  /** 8 bits; in IPv4 the TOS. */
  readonly trafficClass: number
  /** 8 bits; in IPv4 the TTL. */
  readonly hopLimit: number
  /** The value on the wire; `emitFrame` does not compute it. Absent: 0, no checksum. */
  readonly udpChecksum?: number
  /** The UDP payload. */
  readonly payload: Uint8Array
  /** Bytes after the IP datagram: Ethernet padding; absent if there are none. */
  readonly trailer?: Uint8Array
}

export interface Ipv4Frame extends FrameFields {
  readonly kind: 'ipv4'
  readonly identification: number
  readonly dontFragment: boolean
}

export interface Ipv6Frame extends FrameFields {
  readonly kind: 'ipv6'
  /** 20 bits. */
  readonly flowLabel: number
}

export interface OpaqueFrame {
  readonly kind: 'opaque'
  readonly reason: string
  readonly bytes: Uint8Array
}

export type Frame = Ipv4Frame | Ipv6Frame | OpaqueFrame

const ETHERNET_BYTES = 14
/** EtherTypes. */
const TYPE_IPV4 = 0x0800
const TYPE_IPV6 = 0x86dd

/** A copy as a plain Uint8Array. (The slice of a Buffer would share memory.) */
const copy = (bytes: Uint8Array, from: number, to?: number): Uint8Array => new Uint8Array(bytes.subarray(from, to))

/** Parses a frame without frame check sequence; payload and addresses are copies. */
export const parseFrame = (bytes: Uint8Array): Frame => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const opaque = (reason: string): OpaqueFrame => ({ kind: 'opaque', reason, bytes: new Uint8Array(bytes) })
  if (bytes.length < ETHERNET_BYTES) return opaque('shorter than an Ethernet header')
  const type = view.getUint16(12)
  if (type !== TYPE_IPV4 && type !== TYPE_IPV6) return opaque(`Ethernet type 0x${type.toString(16).padStart(4, '0')}`)
  const isIpv4 = type === TYPE_IPV4
  const ip = ETHERNET_BYTES
  const udp = ip + (isIpv4 ? IPV4_BYTES : IPV6_BYTES)
  if (bytes.length < udp) return opaque('shorter than its IP header')
  if (view.getUint8(ip) >> 4 !== (isIpv4 ? 4 : 6)) return opaque(`IP version ${view.getUint8(ip) >> 4}`)
  if (isIpv4) {
    if ((view.getUint8(ip) & 15) * 4 !== IPV4_BYTES) return opaque('IPv4 options')
    // 0xffff is right too, but `emitFrame` writes 0 instead.
    if (internetChecksum(view, ip, IPV4_BYTES) !== 0 || view.getUint16(ip + 10) === 0xffff)
      return opaque('IPv4 header checksum')
    if ((view.getUint16(ip + 6) & ~DONT_FRAGMENT) !== 0) return opaque('IPv4 fragment')
  }
  const protocol = view.getUint8(ip + (isIpv4 ? 9 : 6))
  if (protocol !== PROTOCOL_UDP) return opaque(`IP protocol ${protocol}`)
  const end = isIpv4 ? ip + view.getUint16(ip + 2) : udp + view.getUint16(ip + 4)
  if (end > bytes.length) return opaque('shorter than its IP length')
  if (end < udp + UDP_BYTES || view.getUint16(udp + 4) !== end - udp) return opaque('UDP length')
  const [sourceAt, destinationAt, size] = isIpv4 ? [ip + 12, ip + 16, 4] : [ip + 8, ip + 24, 16]
  const fields: FrameFields = {
    destinationMac: copy(bytes, 0, 6),
    sourceMac: copy(bytes, 6, 12),
    source: copy(bytes, sourceAt, sourceAt + size),
    destination: copy(bytes, destinationAt, destinationAt + size),
    sourcePort: view.getUint16(udp),
    destinationPort: view.getUint16(udp + 2),
    trafficClass: isIpv4 ? view.getUint8(ip + 1) : (view.getUint16(ip) >> 4) & 0xff,
    hopLimit: view.getUint8(ip + (isIpv4 ? 8 : 7)),
    udpChecksum: view.getUint16(udp + 6),
    payload: copy(bytes, udp + UDP_BYTES, end),
    ...(end < bytes.length && { trailer: copy(bytes, end) }),
  }
  return isIpv4
    ? { kind: 'ipv4', ...fields, identification: view.getUint16(ip + 4), dontFragment: view.getUint16(ip + 6) !== 0 }
    : { kind: 'ipv6', ...fields, flowLabel: view.getUint32(ip) & 0xf_ffff }
}

const checkBytes = (field: string, bytes: Uint8Array, length: number): void => {
  if (bytes.length !== length) throw new RangeError(`${field} has ${bytes.length} bytes, allowed is ${length}`)
}

const checkNumber = (field: string, value: number, limit: number): void => {
  if (!Number.isInteger(value) || value < 0 || value > limit) {
    throw new RangeError(`${field} is ${value}, allowed is an integer from 0 to ${limit}`)
  }
}

/**
 * The bytes of a frame without frame check sequence. Computes the IPv4 header checksum. Throws a RangeError that names
 * the field if a value does not fit.
 */
export const emitFrame = (frame: Frame): Uint8Array => {
  if (frame.kind === 'opaque') return new Uint8Array(frame.bytes)
  const { destinationMac, sourceMac, sourcePort, destinationPort, trafficClass, hopLimit, payload, trailer } = frame
  const { udpChecksum = 0 } = frame
  const isIpv4 = frame.kind === 'ipv4'
  const shorten = (address: Uint8Array): Uint8Array =>
    isIpv4 && isMappedIpv4(address) ? address.subarray(12) : address
  const source = shorten(frame.source)
  const destination = shorten(frame.destination)
  checkBytes('destinationMac', destinationMac, 6)
  checkBytes('sourceMac', sourceMac, 6)
  checkBytes('source', source, isIpv4 ? 4 : 16)
  checkBytes('destination', destination, isIpv4 ? 4 : 16)
  checkNumber('sourcePort', sourcePort, 0xffff)
  checkNumber('destinationPort', destinationPort, 0xffff)
  checkNumber('trafficClass', trafficClass, 0xff)
  checkNumber('hopLimit', hopLimit, 0xff)
  checkNumber('udpChecksum', udpChecksum, 0xffff)
  const ip = ETHERNET_BYTES
  const udp = ip + (isIpv4 ? IPV4_BYTES : IPV6_BYTES)
  const end = udp + UDP_BYTES + payload.length
  const ipLength = end - (isIpv4 ? ip : udp)
  checkNumber("the IP header's length field", ipLength, 0xffff)
  const bytes = new Uint8Array(end + (trailer?.length ?? 0))
  const view = new DataView(bytes.buffer)
  bytes.set(destinationMac, 0)
  bytes.set(sourceMac, 6)
  view.setUint16(12, isIpv4 ? TYPE_IPV4 : TYPE_IPV6)
  if (frame.kind === 'ipv4') {
    checkNumber('identification', frame.identification, 0xffff)
    const { identification, dontFragment } = frame
    putIpv4(view, ip, ipLength, identification, dontFragment, trafficClass, hopLimit, source, destination)
  } else {
    checkNumber('flowLabel', frame.flowLabel, 0xf_ffff)
    putIpv6(view, ip, ipLength, frame.flowLabel, trafficClass, hopLimit, source, destination)
  }
  view.setUint16(udp, sourcePort)
  view.setUint16(udp + 2, destinationPort)
  view.setUint16(udp + 4, end - udp)
  view.setUint16(udp + 6, udpChecksum)
  bytes.set(payload, udp + UDP_BYTES)
  if (trailer !== undefined) bytes.set(trailer, end)
  return bytes
}
