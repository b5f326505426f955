/*
 * IP addresses as GIDs have them: 16 bytes, IPv6 or IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2; IBA annex A17).
 */

/** Whether 16 bytes are an IPv4 address. */
export const isMappedIpv4 = (address: Uint8Array): boolean =>
  address.length === 16 && address.every((byte, i) => i >= 12 || byte === (i < 10 ? 0 : 0xff))

/** An address for people: a.b.c.d, or IPv6 in groups without compression. */
export const addressText = (address: Uint8Array): string =>
  isMappedIpv4(address)
    ? address.subarray(12).join('.')
    : Array.from({ length: 8 }, (_, i) => ((address[2 * i] << 8) | address[2 * i + 1]).toString(16)).join(':')
