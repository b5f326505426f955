/*
 * Limits of an interface and a socket buffer: the path MTU, and the window.
 */

/** All headers that a RoCEv2 packet may have around its payload, as Linux counts them (iboe_get_mtu). */
const HEADERS = 96

/** Largest path MTU that fits an interface whose IP packets have at most `mtu` bytes; at least 256. */
export const pathMtuOf = (mtu: number): number => [4096, 2048, 1024, 512].find(size => mtu >= size + HEADERS) ?? 256

/**
 * A window fills at most half of a receiver's socket buffer, which is taken to be of our size; the kernel charges a
 * datagram up to 2.2 times its bytes.
 */
const WINDOW_SHARE = 4.5
/**
 * Maximum window of one queue pair, in bytes (payload, and 64 per packet): several turns of a receiver (receiving.ts),
 * so that both ends stay busy while one is not scheduled for some hundred microseconds.
 */
export const MAX_WINDOW_BYTES = 0x10_0000
/** Maximum window without UDP_SEGMENT: a larger one would only fill buffers. */
export const MAX_WINDOW_BYTES_WITHOUT_GSO = 0x4_0000
export const MAX_SHARED_WINDOW_BYTES = 0x20_0000
const SMALLEST_WINDOW = 0x4000

/** The window that all queue pairs of a port share. `receiveBuffer`: bytes as the kernel counts them. */
export const sharedWindowOf = (receiveBuffer: number): number =>
  Math.max(SMALLEST_WINDOW, Math.min(MAX_SHARED_WINDOW_BYTES, Math.floor(receiveBuffer / WINDOW_SHARE)))
