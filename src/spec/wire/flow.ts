/*
 * The path of a packet: addresses, and the fields of the IP and UDP headers that a sender chooses.
 */

/** Addresses have 16 bytes: IPv6, or IPv4 as ::ffff:a.b.c.d. */
export interface PacketFlow {
  readonly source: Uint8Array
  readonly destination: Uint8Array
  /** UDP source port. */
  readonly sourcePort: number
  readonly trafficClass: number
  readonly hopLimit: number
  /** IPv6 flow label, 20 bits. */
  readonly flowLabel: number
}
