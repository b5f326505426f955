/*
 * IPv4 and IPv6 headers of UDP datagrams (RFC 791, RFC 8200), written at an offset of a DataView without allocation or
 * checks, and the Internet checksum.
 */

/** Bytes of the headers; IPv4 without options. */
export const IPV4_BYTES = 20
export const IPV6_BYTES = 40
/** Bytes before the payload in a UD queue pair's receive buffer: a GRH has the layout of an IPv6 header. */
export const GRH_BYTES = IPV6_BYTES
export const UDP_BYTES = 8
export const PROTOCOL_UDP = 17
/** DF in IPv4's word of flags and fragment offset. */
export const DONT_FRAGMENT = 0x4000

/**
 * The Internet checksum (RFC 1071). The result is 0 for bytes that contain the right checksum. `sum`: the sum of
 * preceding words.
 */
export const internetChecksum = (view: DataView, at: number, length: number, sum = 0): number => {
  const even = length & ~1
  for (let i = 0; i < even; i += 2) sum += view.getUint16(at + i)
  if (even < length) sum += view.getUint8(at + even) << 8
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}

/** Writes the last `size` bytes of an address. */
const putAddress = (view: DataView, at: number, address: Uint8Array, size: number): void => {
  const from = address.length - size
  for (let i = 0; i < size; i++) view.setUint8(at + i, address[from + i])
}

/** `length`: bytes of the whole IP datagram; addresses have 4 bytes, or 16 as ::ffff:a.b.c.d. */
export const putIpv4 = (
  view: DataView,
  at: number,
  length: number,
  identification: number,
  dontFragment: boolean,
  trafficClass: number,
  hopLimit: number,
  source: Uint8Array,
  destination: Uint8Array,
): void => {
  view.setUint8(at, 0x45)
  view.setUint8(at + 1, trafficClass)
  view.setUint16(at + 2, length)
  view.setUint16(at + 4, identification)
  view.setUint16(at + 6, dontFragment ? DONT_FRAGMENT : 0)
  view.setUint8(at + 8, hopLimit)
  view.setUint8(at + 9, PROTOCOL_UDP)
  view.setUint16(at + 10, 0)
  putAddress(view, at + 12, source, 4)
  putAddress(view, at + 16, destination, 4)
  view.setUint16(at + 10, internetChecksum(view, at, IPV4_BYTES))
}

/** `length`: bytes after the header; addresses have 16 bytes. */
export const putIpv6 = (
  view: DataView,
  at: number,
  length: number,
  flowLabel: number,
  trafficClass: number,
  hopLimit: number,
  source: Uint8Array,
  destination: Uint8Array,
): void => {
  view.setUint32(at, 0x6000_0000 | (trafficClass << 20) | flowLabel)
  view.setUint16(at + 4, length)
  view.setUint8(at + 6, PROTOCOL_UDP)
  view.setUint8(at + 7, hopLimit)
  putAddress(view, at + 8, source, 16)
  putAddress(view, at + 24, destination, 16)
}
