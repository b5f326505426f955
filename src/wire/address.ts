/*
 * IP addresses as GIDs have them: 16 bytes, IPv6 or IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2; IBA annex A17).
 */
import { isIPv4, isIPv6 } from 'node:net'

/** Whether 16 bytes are an IPv4 address. */
export const isMappedIpv4 = (address: Uint8Array): boolean =>
  address.length === 16 && address.every((byte, i) => i >= 12 || byte === (i < 10 ? 0 : 0xff))

/** An address for people: a.b.c.d, or IPv6 in groups without compression. */
export const addressText = (address: Uint8Array): string =>
  isMappedIpv4(address)
    ? address.subarray(12).join('.')
    : Array.from({ length: 8 }, (_, i) => ((address[2 * i] << 8) | address[2 * i + 1]).toString(16)).join(':')

/** 16 bytes of an address as text; IPv4 as ::ffff:a.b.c.d. Undefined if it is no address. */
export const parseAddress = (text: string): Uint8Array | undefined => {
  const bytes = new Uint8Array(16)
  if (isIPv4(text)) {
    bytes.set([0xff, 0xff, ...text.split('.').map(Number)], 10)
    return bytes
  }
  if (!isIPv6(text) || text.includes('%')) return undefined
  // A dotted tail is two groups; "::" stands for as many zero groups as are missing.
  const plain = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) =>
    [Number(a) * 256 + Number(b), Number(c) * 256 + Number(d)].map(group => group.toString(16)).join(':'),
  )
  const [head, tail] = plain.split('::').map(part => (part === '' ? [] : part.split(':')))
  const groups = tail === undefined ? head : [...head, ...new Array(8 - head.length - tail.length).fill('0'), ...tail]
  groups.forEach((group, i) => {
    const value = Number.parseInt(group, 16)
    bytes[2 * i] = value >> 8
    bytes[2 * i + 1] = value & 0xff
  })
  return bytes
}
