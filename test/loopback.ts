/*
 * Loopback addresses of this process. RoCE's UDP port is fixed: concurrent test processes need separate addresses.
 */

const prefix = [127, 16 + ((process.pid >> 8) & 0x7f), process.pid & 0xff] as const

/** 127.x.y.n as text. */
export const loopbackText = (n: number): string => [...prefix, n].join('.')

/** ::ffff:127.x.y.n */
export const loopback = (n: number): Uint8Array => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...prefix, n)

/** A multicast address of this process: ::ffff:239.x.y.n */
export const groupAddress = (n: number): Uint8Array =>
  Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 239, prefix[1], prefix[2], n)
