/*
 * The path of a packet: the addresses by which its network forwards it, and the fields of the headers that a sender
 * chooses. On RoCE v2 these are the IP and UDP headers, on RoCE v1 a GRH, on InfiniBand the LRH and perhaps a GRH
 * (docs/decisions/infiniband.md).
 */

export interface PacketFlow {
  /**
   * 16 bytes, both of one kind: IPv6; IPv4 as ::ffff:a.b.c.d; or a LID as `lidAddress` (transport/wire/address.ts) has
   * it.
   */
  readonly source: Uint8Array
  readonly destination: Uint8Array
  /** UDP source port; 0 on InfiniBand and RoCE v1. */
  readonly sourcePort: number
  /** Of the IP header, or of the GRH. */
  readonly trafficClass: number
  readonly hopLimit: number
  /** Of IPv6 or the GRH, 20 bits. */
  readonly flowLabel: number
  /** InfiniBand's service level, 4 bits; absent: 0. */
  readonly sl?: number | undefined
  /** The GIDs of the GRH of InfiniBand or RoCE v1, where they are the addresses; 16 bytes each. Absent: no GRH. */
  readonly grh?: { readonly source: Uint8Array; readonly destination: Uint8Array } | undefined
}

/**
 * Hop limit of the route, which takes the place of an address vector's where Linux resolves the path: connected queue
 * pairs (ib_resolve_unicast_gid_dmac), and address handles of rxe.
 */
export const ROUTE_HOP_LIMIT = 64

interface PacketClass {
  readonly dscp?: number | undefined
  readonly hopLimit?: number | undefined
}

/** DSCP and TTL of packets, where they are known, and not the default. */
export const classText = ({ dscp = 0, hopLimit = ROUTE_HOP_LIMIT }: PacketClass): string =>
  `${dscp === 0 ? '' : `, DSCP ${dscp}`}${hopLimit === ROUTE_HOP_LIMIT ? '' : `, TTL ${hopLimit}`}`
