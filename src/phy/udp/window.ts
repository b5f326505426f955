/*
 * What an interface and a socket buffer allow a port on UDP: the path MTU, and how much may be unacknowledged.
 */

/** All headers that a RoCEv2 packet may have around its payload, as Linux counts them (iboe_get_mtu). */
const HEADERS = 96

/** Largest path MTU that fits an interface whose IP packets have at most `mtu` bytes; at least 256. */
export const pathMtuOf = (mtu: number): number => [4096, 2048, 1024, 512].find(size => mtu >= size + HEADERS) ?? 256

/**
 * What one sender may have unacknowledged, payload and 64 bytes a packet: what fits half of a receiver's socket buffer
 * that is like ours, when a datagram alone costs the kernel up to 2.2 times its bytes.
 */
const WINDOW_SHARE = 4.5
/**
 * Several of a receiver's turns (receiving.ts), so that neither end waits for the other when one of them does not
 * run for some hundred microseconds.
 */
export const MAX_WINDOW_BYTES = 0x10_0000
/** The same where packets leave and come one by one: more would only wait. */
export const MAX_WINDOW_BYTES_WITHOUT_GSO = 0x4_0000
export const MAX_SHARED_WINDOW_BYTES = 0x20_0000
const SMALLEST_WINDOW = 0x4000

/** … and all senders of a port together. `receiveBuffer`: bytes as the kernel counts them. */
export const sharedWindowOf = (receiveBuffer: number): number =>
  Math.max(SMALLEST_WINDOW, Math.min(MAX_SHARED_WINDOW_BYTES, Math.floor(receiveBuffer / WINDOW_SHARE)))
