/*
 * Where a transport packet lies in a captured frame, and what the headers before it say.
 */

/** Where a transport packet lies. One object for all packets. */
export interface Located {
  /** Offset of the BTH in the packet's arena. */
  at: number
  /** Bytes from `at` that were captured, at most `length`. */
  captured: number
  /** Bytes from BTH to ICRC on the wire. */
  length: number
  /** Numbers of the addresses in the table. */
  source: number
  destination: number
  /** 0 if the packet is not of RoCEv2. */
  sourcePort: number
  destinationPort: number
  /** 4, 6, or 0: InfiniBand, or RoCE v1 (`isRoceV1`). */
  ipVersion: number
  isRoceV1: boolean
  identification: number
  dontFragment: boolean
  /** The first fragment of a datagram: its bytes are not all in this packet. */
  isFragment: boolean
  hopLimit: number
  /** ECN bits of the traffic class. */
  ecn: number
  /** Its upper bits. */
  dscp: number
  /** A number for the tags, tunnel and interface of the packet: where it was seen. */
  point: number
  /** Of a frame with several packets: the number of this one, from 0, and how many there are. */
  part: number
  parts: number
  /** The UDP header has a checksum. */
  hasChecksum: boolean
  /** Bytes from the first packet's BTH to the last one's ICRC. */
  joined: number
  /** Of these, bytes that were captured. */
  joinedCaptured: number
  /** The BTH of this packet of a frame was not captured: it is made from that of the first. */
  isInferred: boolean
  /** Further packets of the frame are not known: they were not captured. */
  hasMore: boolean
}
