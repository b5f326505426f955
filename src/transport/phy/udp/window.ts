/*
 * The path MTU that an interface allows, and the window that a socket buffer allows. A window is the number of bytes
 * (payload plus 64 per packet) that a sender may have unacknowledged.
 */

/** Maximum header bytes of a RoCEv2 packet, as Linux counts them (iboe_get_mtu). */
const HEADER_BYTES = 96

/** The path MTU for an interface with IP packets of at most `mtu` bytes; at least 256. */
export const pathMtuOf = (mtu: number): number =>
  [4096, 2048, 1024, 512].find(size => mtu >= size + HEADER_BYTES) ?? 256

/**
 * Bytes of socket buffer for a byte of window: 2 · 2.2, rounded up. A window fills at most half of the receiver's
 * socket buffer, and the kernel charges a long datagram about 2.2 times its bytes. The receiver's buffer is assumed to
 * be as large as ours.
 */
const BUFFER_PER_WINDOW = 4.5
/**
 * Maximum window of one queue pair, in bytes: as much as a receiver takes in several polls (POLL_BYTES of
 * receiving.ts), so that both ends stay busy.
 */
export const MAX_WINDOW_BYTES = 0x10_0000
/** Maximum window of one queue pair without UDP_SEGMENT, in bytes. */
export const MAX_WINDOW_BYTES_WITHOUT_GSO = 0x4_0000
/** Maximum window of all queue pairs of a port that send to one peer, in bytes. */
export const MAX_SHARED_WINDOW_BYTES = 0x20_0000
/** Minimum shared window in bytes, however small the socket buffer is. */
const MIN_SHARED_WINDOW_BYTES = 0x4000

/** The shared window of all queue pairs of a port that send to one peer, in bytes. `receiveBuffer`: SO_RCVBUF. */
export const sharedWindowOf = (receiveBuffer: number): number =>
  Math.max(MIN_SHARED_WINDOW_BYTES, Math.min(MAX_SHARED_WINDOW_BYTES, Math.floor(receiveBuffer / BUFFER_PER_WINDOW)))
