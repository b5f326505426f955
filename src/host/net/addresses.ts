/*
 * Addresses of IP as 16 bytes: IPv4 as ::ffff:a.b.c.d.
 */

export const isIpv4Mapped = (address: Uint8Array): boolean =>
  address.every((byte, i) => i >= 12 || byte === (i < 10 ? 0 : 0xff))
