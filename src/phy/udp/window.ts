/*
 * The path MTU that an interface allows, and the window that a socket buffer allows. A window is the number of bytes
 * (payload, and 64 per packet) that a sender may have unacknowledged.
 */

/** Bytes of all headers that a RoCEv2 packet may have around its payload, as Linux counts them (iboe_get_mtu). */
const HEADER_BYTES = 96

/** Largest path MTU that fits an interface whose IP packets have at most `mtu` bytes; at least 256. */
export const pathMtuOf = (mtu: number): number =>
  [4096, 2048, 1024, 512].find(size => mtu >= size + HEADER_BYTES) ?? 256

/**
 * Bytes of socket buffer for a byte of window. A window fills at most half of the receiver's socket buffer, which is
 * assumed to be as large as ours; the kernel charges a long datagram about 2.2 times its bytes.
 */
const BUFFER_PER_WINDOW = 4.5
/**
 * Maximum window of one queue pair in bytes: what a receiver delivers in several polls (receiving.ts), so that both
 * ends stay busy while one is not scheduled for some hundred microseconds.
 */
export const MAX_WINDOW_BYTES = 0x10_0000
/** Maximum window of one queue pair without UDP_SEGMENT, in bytes: a larger one would only fill buffers. */
export const MAX_WINDOW_BYTES_WITHOUT_GSO = 0x4_0000
/** Maximum window of all queue pairs of a port that send to one peer, in bytes. */
export const MAX_SHARED_WINDOW_BYTES = 0x20_0000
const SMALLEST_WINDOW = 0x4000

/**
 * The window in bytes that all queue pairs of a port that send to one peer share. `receiveBuffer`: bytes as the kernel
 * counts them.
 */
export const sharedWindowOf = (receiveBuffer: number): number =>
  Math.max(SMALLEST_WINDOW, Math.min(MAX_SHARED_WINDOW_BYTES, Math.floor(receiveBuffer / BUFFER_PER_WINDOW)))
