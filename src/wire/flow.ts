/*
 * The path of a packet: addresses, and the fields of the IP and UDP headers that a sender chooses.
 */

/**
 * The ECN field, the lower two bits of the traffic class (RFC 3168): the sender reacts to marks; a switch has marked the
 * packet, "congestion experienced". 0: the sender does not react.
 */
export const ECN_MASK = 3
export const ECN_CAPABLE = 2
export const ECN_CE = 3

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

/** A number of 32 bits for the addresses of a flow; rarely others have the same. `isBack`: of the opposite direction. */
export const flowHash = (
  { source, destination }: Pick<PacketFlow, 'source' | 'destination'>,
  isBack = false,
): number => {
  let hash = 0
  for (const address of isBack ? [destination, source] : [source, destination])
    for (const byte of address) hash = (Math.imul(hash, 31) + byte) | 0
  return hash
}
