/*
 * IP over InfiniBand on the wire (RFC 4391): the encapsulation header, link-layer addresses, ARP, neighbour discovery,
 * and the multicast GIDs of IP groups. IPv4 addresses in records and arguments are 16 bytes, ::ffff:a.b.c.d.
 */
import { MULTICAST_QPN } from '../../spec/wire/headers.ts'
import { isMappedIpv4, isMulticastGid, mappedIpv4 } from './address.ts'

/** The header before each IP packet and ARP message: EtherType, and 16 reserved bits (RFC 4391, 6). */
export const ENCAPSULATION_BYTES = 4
export const EtherType = { IPV4: 0x0800, ARP: 0x0806, IPV6: 0x86dd } as const

/** The Q_Key of all interfaces. No subnet manager assigns one, so it is the Q_Key of opensm's default partition. */
export const IPOIB_QKEY = 0x0b1b

/** A link-layer address (RFC 4391, 9.1.1): a queue pair and the GID of its port. */
export interface LinkAddress {
  readonly qpn: number
  /** 16 bytes. */
  readonly gid: Uint8Array
}
const LINK_ADDRESS_BYTES = 20
const IPV4_ADDRESS_BYTES = 4

/** Whether a link-layer address is of a single queue pair. */
export const isUnicastLink = ({ qpn, gid }: LinkAddress): boolean =>
  qpn !== 0 && qpn !== MULTICAST_QPN && !isMulticastGid(gid)

/** Writes an address: a reserved byte, the QPN in 3 bytes, the GID. */
const putLinkAddress = (bytes: Uint8Array, at: number, { qpn, gid }: LinkAddress): void => {
  bytes[at] = 0
  bytes[at + 1] = qpn >> 16
  bytes[at + 2] = qpn >> 8
  bytes[at + 3] = qpn
  bytes.set(gid, at + 4)
}

/** The GID is a copy. */
const getLinkAddress = (bytes: Uint8Array, at: number): LinkAddress => ({
  qpn: (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!,
  gid: bytes.slice(at + 4, at + LINK_ADDRESS_BYTES),
})

// ---- multicast (RFC 4391, 4) ----

/** Second byte of the multicast GIDs: the flag "transient" and the scope "link-local". */
const SCOPE_LINK_LOCAL = 0x12
/** Bytes 2 and 3 of the multicast GIDs. */
const SIGNATURE_IPV4 = 0x401b
const SIGNATURE_IPV6 = 0x601b

const groupGid = (signature: number, pkey: number): Uint8Array =>
  Uint8Array.of(
    0xff,
    SCOPE_LINK_LOCAL,
    signature >> 8,
    signature & 0xff,
    pkey >> 8,
    pkey & 0xff,
    ...new Array(10).fill(0),
  )

/** The broadcast group ff12:401b:P_Key::ffff:ffff, which every interface joins. */
export const broadcastLink = (pkey: number): LinkAddress => {
  const gid = groupGid(SIGNATURE_IPV4, pkey)
  gid.fill(0xff, 12)
  return { qpn: MULTICAST_QPN, gid }
}

/** The link-layer address of an IP group. The GID ends with the low 28 bits (IPv4) or 80 bits (IPv6) of the group. */
export const multicastLink = (group: Uint8Array, pkey: number): LinkAddress => {
  const isIpv4 = isMappedIpv4(group)
  const gid = groupGid(isIpv4 ? SIGNATURE_IPV4 : SIGNATURE_IPV6, pkey)
  // The copied bytes are at the same place in both addresses.
  const from = isIpv4 ? 12 : 6
  gid.set(group.subarray(from), from)
  if (isIpv4) gid[12]! &= 0x0f
  return { qpn: MULTICAST_QPN, gid }
}

// ---- ARP (RFC 4391, 9.1.2) ----

/** Hardware type InfiniBand. */
const ARP_HARDWARE = 32
const ARP_HEADER_BYTES = 8
const ARP_BYTES = ARP_HEADER_BYTES + 2 * (LINK_ADDRESS_BYTES + IPV4_ADDRESS_BYTES)
/** Offsets of the addresses in an ARP message. */
const ArpAt = { SENDER_LINK: 8, SENDER: 28, TARGET_LINK: 32, TARGET: 52 } as const
export const ArpOperation = { REQUEST: 1, REPLY: 2 } as const

interface Arp {
  readonly operation: number
  readonly senderLink: LinkAddress
  /** 16 bytes each, IPv4. */
  readonly sender: Uint8Array
  readonly targetLink: LinkAddress
  readonly target: Uint8Array
}

/** The target's link-layer address in an ARP request. */
export const unspecifiedLink: LinkAddress = { qpn: 0, gid: new Uint8Array(16) }

/** The ARP message with its encapsulation header. */
export const emitArp = ({ operation, senderLink, sender, targetLink, target }: Arp): Uint8Array => {
  const bytes = new Uint8Array(ENCAPSULATION_BYTES + ARP_BYTES)
  new DataView(bytes.buffer).setUint16(0, EtherType.ARP)
  const arp = bytes.subarray(ENCAPSULATION_BYTES)
  const view = new DataView(bytes.buffer, ENCAPSULATION_BYTES)
  view.setUint16(0, ARP_HARDWARE)
  view.setUint16(2, EtherType.IPV4)
  arp[4] = LINK_ADDRESS_BYTES
  arp[5] = IPV4_ADDRESS_BYTES
  view.setUint16(6, operation)
  putLinkAddress(arp, ArpAt.SENDER_LINK, senderLink)
  arp.set(sender.subarray(12), ArpAt.SENDER)
  putLinkAddress(arp, ArpAt.TARGET_LINK, targetLink)
  arp.set(target.subarray(12), ArpAt.TARGET)
  return bytes
}

/**
 * Parses an ARP message without encapsulation header. Undefined if `bytes` are too short, or if the message is not for
 * IPv4 over InfiniBand.
 */
export const parseArp = (bytes: Uint8Array): Arp | undefined => {
  if (bytes.length < ARP_BYTES) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const isIpoibIpv4 =
    view.getUint16(0) === ARP_HARDWARE &&
    view.getUint16(2) === EtherType.IPV4 &&
    bytes[4] === LINK_ADDRESS_BYTES &&
    bytes[5] === IPV4_ADDRESS_BYTES
  if (!isIpoibIpv4) return undefined
  return {
    operation: view.getUint16(6),
    senderLink: getLinkAddress(bytes, ArpAt.SENDER_LINK),
    sender: mappedIpv4(bytes, ArpAt.SENDER),
    targetLink: getLinkAddress(bytes, ArpAt.TARGET_LINK),
    target: mappedIpv4(bytes, ArpAt.TARGET),
  }
}

// ---- IPv6 neighbour discovery (RFC 4861; RFC 4391, 9.3): the bytes after the ICMPv6 checksum ----

/** ICMPv6 types. */
export const NeighbourMessage = { SOLICITATION: 135, ADVERTISEMENT: 136 } as const
/** Flags of an advertisement: response to a solicitation; override a cached link-layer address. */
export const ADVERTISEMENT_SOLICITED = 0x40
export const ADVERTISEMENT_OVERRIDE = 0x20
const TARGET_AT = 4
const OPTIONS_AT = TARGET_AT + 16
/** Bytes of a link-layer address option: type, length, two reserved bytes, address. */
const LINK_OPTION_BYTES = 24
/** Option types: source link-layer address, target link-layer address. */
const LinkOption = { [NeighbourMessage.SOLICITATION]: 1, [NeighbourMessage.ADVERTISEMENT]: 2 } as const

export interface Discovery {
  readonly type: (typeof NeighbourMessage)[keyof typeof NeighbourMessage]
  /** ADVERTISEMENT_… of an advertisement; 0 in a solicitation. */
  readonly flags: number
  readonly target: Uint8Array
  /** Link-layer address: of the sender of a solicitation, of the target of an advertisement. */
  readonly link: LinkAddress | undefined
}

export const emitDiscovery = ({ type, flags, target, link }: Discovery): Uint8Array => {
  const bytes = new Uint8Array(OPTIONS_AT + (link === undefined ? 0 : LINK_OPTION_BYTES))
  bytes[0] = flags
  bytes.set(target, TARGET_AT)
  if (link === undefined) return bytes
  bytes[OPTIONS_AT] = LinkOption[type]
  bytes[OPTIONS_AT + 1] = LINK_OPTION_BYTES / 8
  putLinkAddress(bytes, OPTIONS_AT + 4, link)
  return bytes
}

/** Undefined if `bytes` end within the target or within an option, or if an option has length 0. */
export const parseDiscovery = (type: Discovery['type'], bytes: Uint8Array): Discovery | undefined => {
  if (bytes.length < OPTIONS_AT) return undefined
  let link: LinkAddress | undefined
  for (let at = OPTIONS_AT; at < bytes.length; ) {
    const length = (bytes[at + 1] ?? 0) * 8
    if (length === 0 || at + length > bytes.length) return undefined
    if (bytes[at] === LinkOption[type] && length === LINK_OPTION_BYTES) link = getLinkAddress(bytes, at + 4)
    at += length
  }
  return { type, flags: bytes[0]!, target: bytes.slice(TARGET_AT, OPTIONS_AT), link }
}
