/*
 * A management packet of an InfiniBand fabric: an unreliable datagram to queue pair 0 or 1 of a port, as its headers
 * have it (IBA 7.7, 9.2, 9.6).
 */

export interface SubnetPacket {
  readonly slid: number
  readonly dlid: number
  readonly sl: number
  /** Of the sender and the receiver. To queue pair 0: subnet management, on virtual lane 15. */
  readonly sourceQp: number
  readonly destQp: number
  /** Not of queue pair 0. */
  readonly pkey: number
  readonly qkey: number
  /** 256 bytes. Of a packet in the fabric, who has it changes the fields of its directed route. */
  readonly mad: Uint8Array
  /** Links passed. */
  readonly hops: number
}
