/*
 * Addresses of packets, in the form of GIDs: 16 bytes, IPv6 or IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2; IBA annex
 * A17), or an InfiniBand LID as ::fffe:0:LID, so that tables of addresses need not know of which kind they are.
 */

export const isSameAddress = (a: Uint8Array, b: Uint8Array): boolean => {
  // Addresses of a network begin alike.
  for (let i = 15; i >= 0; i--) if (a[i] !== b[i]) return false
  return true
}

/** ::ffff:a.b.c.d from the four bytes at `at`. */
export const mappedIpv4 = (bytes: Uint8Array, at: number): Uint8Array => {
  const address = new Uint8Array(16)
  address[10] = address[11] = 0xff
  address.set(bytes.subarray(at, at + 4), 12)
  return address
}

/** Whether an address is ::ffff:a.b.c.d. False for other lengths than 16 bytes. */
export const isMappedIpv4 = (address: Uint8Array): boolean => {
  if (address.length !== 16 || address[10] !== 0xff || address[11] !== 0xff) return false
  for (let i = 0; i < 10; i++) if (address[i] !== 0) return false
  return true
}

/** A LID as an address. */
export const lidAddress = (lid: number): Uint8Array => {
  const address = new Uint8Array(16)
  address[10] = 0xff
  address[11] = 0xfe
  address[14] = lid >> 8
  address[15] = lid
  return address
}

/** The LID of an address; -1 for an address of another kind. */
export const lidOf = (address: Uint8Array): number => {
  if (address.length !== 16 || address[10] !== 0xff || address[11] !== 0xfe) return -1
  for (let i = 0; i < 14; i++) if (address[i] !== 0 && i !== 10 && i !== 11) return -1
  return (address[14] << 8) | address[15]
}

/** Whether an address is in 127.0.0.0/8 (RFC 1122, 3.2.1.3). */
export const isLoopbackIpv4 = (address: Uint8Array): boolean => address[12] === 127 && isMappedIpv4(address)

/** Whether an address is in fe80::/10 (RFC 4291, 2.5.6). */
export const isLinkLocal = (address: Uint8Array): boolean => address[0] === 0xfe && (address[1] & 0xc0) === 0x80

/** Whether an IPv6 address is valid on one link only: link-local, or a group of that scope (ff02::/16, ff12::/16 …). */
export const hasLinkScope = (address: Uint8Array): boolean =>
  isLinkLocal(address) || (address[0] === 0xff && (address[1] & 0xf) === 2)

/** Whether a GID is in ff00::/8, or an IPv4 group (224.0.0.0/4). */
export const isMulticastGid = (gid: Uint8Array): boolean => (isMappedIpv4(gid) ? gid[12] >> 4 === 14 : gid[0] === 0xff)

/** Bits before an IPv4 address as ::ffff:a.b.c.d. */
const MAPPED_BITS = 96

/** The first address of a subnet. `prefix`: bits of the subnet's addresses, 0 to 128, IPv4 0 to 32. */
export const subnetAddress = (address: Uint8Array, prefix: number): Uint8Array => {
  const bits = prefix + (isMappedIpv4(address) ? MAPPED_BITS : 0)
  return address.map((byte, i) => byte & (0xff00 >> Math.min(8, Math.max(0, bits - 8 * i))))
}

/** Why a device cannot have this address; undefined if it can. */
export const reasonUnusable = (address: Uint8Array): string | undefined => {
  const isV4 = isMappedIpv4(address)
  // 224.0.0.0/4 is multicast, 240.0.0.0/4 reserved.
  if (isV4 && address[12] >= 224) return 'is a multicast or reserved address'
  if (!isV4 && address[0] === 0xff) return 'is a multicast address'
  if (address.subarray(isV4 ? 12 : 0).every(b => b === 0)) return 'is the unspecified address'
  return undefined
}

/** An address as text: a.b.c.d, `LID 7`, or IPv6 in groups without compression. */
export const addressText = (address: Uint8Array): string => {
  if (isMappedIpv4(address)) return address.subarray(12).join('.')
  const lid = lidOf(address)
  return lid >= 0
    ? `LID ${lid}`
    : Array.from({ length: 8 }, (_, i) => ((address[2 * i] << 8) | address[2 * i + 1]).toString(16)).join(':')
}

/** The inverse of `addressText`; undefined: the text is none. */
export const parseAddressText = (text: string): Uint8Array | undefined => {
  const lid = /^LID (\d{1,5})$/.exec(text)?.[1]
  return lid === undefined ? parseAddress(text) : Number(lid) <= 0xffff ? lidAddress(Number(lid)) : undefined
}

/** An address as the key of a map: one character for two bytes. */
export const addressKey = (address: Uint8Array): string => {
  let key = ''
  for (let i = 0; i < 16; i += 2) key += String.fromCharCode((address[i] << 8) | address[i + 1])
  return key
}

const BYTE = '(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)'
const DOTTED = `${BYTE}(?:\\.${BYTE}){3}`
const IPV4 = new RegExp(`^${DOTTED}$`)
const DOTTED_TAIL = new RegExp(`(^|:)(${DOTTED})$`)
const GROUP = /^[0-9a-f]{1,4}$/i
const GROUPS = 8

/** The 16-bit groups of an IPv6 text without "::"; undefined if a group is invalid. */
const groupsOf = (part: string): number[] | undefined => {
  const groups = part === '' ? [] : part.split(':')
  return groups.every(group => GROUP.test(group)) ? groups.map(group => Number.parseInt(group, 16)) : undefined
}

/** The 16 bytes of an address; IPv4 becomes ::ffff:a.b.c.d. Undefined if the text is not an address. */
export const parseAddress = (text: string): Uint8Array | undefined => {
  const bytes = new Uint8Array(16)
  if (IPV4.test(text)) {
    bytes.fill(0xff, 10, 12)
    for (let at = 12, i = 0; i < text.length; i++) {
      if (text[i] === '.') at++
      else bytes[at] = bytes[at] * 10 + Number(text[i])
    }
    return bytes
  }
  // A dotted tail stands for two groups. "::" stands for the missing groups, at least one, which are zero.
  const onlyGroups = text.replace(DOTTED_TAIL, (_, before: string, tail: string) => {
    const [a, b, c, d] = tail.split('.').map(Number)
    return `${before}${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`
  })
  const parts = onlyGroups.split('::')
  const [head, tail] = parts.map(groupsOf)
  if (parts.length > 2 || head === undefined || (parts.length === 2 && tail === undefined)) return undefined
  const missing = GROUPS - head.length - (tail?.length ?? 0)
  const isComplete = tail === undefined ? missing === 0 : missing >= 1
  if (!isComplete) return undefined
  const groups = tail === undefined ? head : [...head, ...new Array<number>(missing).fill(0), ...tail]
  groups.forEach((group, i) => {
    bytes[2 * i] = group >> 8
    bytes[2 * i + 1] = group & 0xff
  })
  return bytes
}
