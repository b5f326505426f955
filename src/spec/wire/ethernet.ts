/*
 * Ethernet II frames, as far as flow rules and checksums need them: sizes, EtherTypes, protocols (IEEE 802.3, 802.1Q,
 * RFC 791, 8200, 768, 9293, 7348, 8926, 2890, 3032, 4303, 2003, 2473, 4023). Without frame check sequence.
 */

export const ETHERNET_BYTES = 14
/** A VLAN tag, between the source address and the EtherType. */
export const VLAN_BYTES = 4
/** Bytes of the shortest frame: its header. Adapters pad a shorter one than 60 bytes; this link needs no padding. */
export const MIN_FRAME_BYTES = ETHERNET_BYTES
/** Bytes of the longest frame: a payload of 9600 bytes, as ConnectX adapters have it, with a VLAN tag. */
export const MAX_FRAME_BYTES = ETHERNET_BYTES + VLAN_BYTES + 9600

/** BRIDGED: an Ethernet frame within GRE. */
export const EtherType = {
  IPV4: 0x0800,
  BRIDGED: 0x6558,
  VLAN: 0x8100,
  IPV6: 0x86dd,
  MPLS: 0x8847,
  ROCE_V1: 0x8915,
} as const
/** IPIP, IPV6, MPLS: a packet of that protocol within IP. */
export const IpProtocol = { IPIP: 4, TCP: 6, UDP: 17, IPV6: 41, GRE: 47, ESP: 50, MPLS: 137 } as const
/** Extension headers of IPv6 with a length in units of 8 bytes, and the fragment header. */
export const Ipv6Extension = { HOP_BY_HOP: 0, ROUTING: 43, FRAGMENT: 44, DESTINATION: 60 } as const
/** UDP ports of tunnels (RFC 7348, 7510, 8926). VXLAN_LINUX: Linux's default for VXLAN, from before the RFC. */
export const TunnelPort = { VXLAN: 4789, VXLAN_LINUX: 8472, MPLS: 6635, GENEVE: 6081 } as const

/** The bit of the first byte of an address that says: a group. */
export const GROUP_BIT = 1
export const MAC_BYTES = 6

/**
 * Offsets of the fields of a frame that flow rules match, in a key of KEY_BYTES bytes. Of each header, the fields have
 * the order of Linux's filter (uapi/linux/flow-layout.ts). The headers behind a tunnel follow at INNER. PRESENT: bits
 * by `FlowHeader`.
 */
export const FlowKey = {
  PRESENT: 0,
  ETH: 4,
  IPV4: 20,
  IPV6: 32,
  TCP: 72,
  UDP: 76,
  VXLAN: 80,
  GRE: 84,
  MPLS: 92,
  ESP: 96,
  /** A u16. */
  TCP_FLAGS: 104,
  /** The first 8 bytes of the header. */
  GENEVE: 108,
  INNER: 116,
} as const
export const FLOW_KEY_BYTES = 2 * FlowKey.INNER

/**
 * Headers that a frame has, outside of a tunnel and behind it. VLAN: the frame has a tag. FRAGMENT: it is a part of a
 * datagram.
 */
export const FlowHeader = {
  ETH: 1 << 0,
  VLAN: 1 << 1,
  IPV4: 1 << 2,
  IPV6: 1 << 3,
  TCP: 1 << 4,
  UDP: 1 << 5,
  VXLAN: 1 << 6,
  GRE: 1 << 7,
  MPLS: 1 << 8,
  ESP: 1 << 9,
  GENEVE: 1 << 10,
  FRAGMENT: 1 << 11,
} as const
