/*
 * The headers that rules of class `flow` can match, and the offsets of their fields in `value` and `mask` of a spec.
 * They have the layout of Linux's filters (ib_uverbs_flow_eth_filter and so on, ib_user_verbs.h; for IB the
 * kernel-internal ib_flow_ib_filter), big-endian as in the packet. The driver defines which headers a device can match.
 */
import type { FlowSpecType } from '../enums.ts'

export interface FlowField {
  /** Offset in bytes. */
  readonly at: number
  readonly bytes: number
  /** How many bits of the field may be set: its lower ones. */
  readonly bits: number
  /** `address`: IPv4 or IPv6, by `bytes`. */
  readonly kind: 'number' | 'mac' | 'address'
}

const number = (at: number, bytes: number, bits = bytes * 8) => ({ at, bytes, bits, kind: 'number' }) as const
const mac = (at: number) => ({ at, bytes: 6, bits: 48, kind: 'mac' }) as const
const address = (at: number, bytes: number) => ({ at, bytes, bits: bytes * 8, kind: 'address' }) as const

const ports = { destinationPort: number(0, 2), sourcePort: number(2, 2) }

/** By the name of the header in `FlowSpecType`. */
export const flowHeaders = {
  ETH: { destination: mac(0), source: mac(6), etherType: number(12, 2), vlanTag: number(14, 2) },
  IB: { destinationLid: number(0, 2), serviceLevel: number(2, 1) },
  IPV4: {
    source: address(0, 4),
    destination: address(4, 4),
    protocol: number(8, 1),
    tos: number(9, 1),
    ttl: number(10, 1),
    flags: number(11, 1),
  },
  IPV6: {
    source: address(0, 16),
    destination: address(16, 16),
    flowLabel: number(32, 4, 20),
    nextHeader: number(36, 1),
    trafficClass: number(37, 1),
    hopLimit: number(38, 1),
  },
  ESP: { spi: number(0, 4), sequence: number(4, 4) },
  TCP: ports,
  UDP: ports,
  VXLAN_TUNNEL: { tunnelId: number(0, 4, 24) },
  GRE: { flags: number(0, 2), protocol: number(2, 2), key: number(4, 4) },
  MPLS: { tag: number(0, 4) },
} as const satisfies Partial<Record<keyof typeof FlowSpecType.values, Readonly<Record<string, FlowField>>>>
