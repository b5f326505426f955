/*
 * Bytes and addresses as text, bounded in length.
 */
import { hexBytes } from '../../base/text.ts'
import { isMappedIpv4 } from '../../transport/wire/address.ts'

/** Default maximum of shown bytes. */
export const MAX_BYTES = 32

/** At most `max` bytes in hexadecimal; if there are more, followed by the number of bytes. `(no bytes)`: none. */
export const bytesText = (bytes: Uint8Array, max: number = MAX_BYTES): string => {
  const shown = hexBytes(bytes.subarray(0, max))
  return bytes.length > max ? `${shown}… (${bytes.length} bytes)` : shown || '(no bytes)'
}

/** Pairs of bytes in hexadecimal without leading zeros, as in an IPv6 address. */
export const groups = (bytes: Uint8Array): string[] =>
  Array.from({ length: bytes.length / 2 }, (_, i) => ((bytes[2 * i]! << 8) | bytes[2 * i + 1]!).toString(16))

/** An address of 16 bytes: ::ffff:a.b.c.d for IPv4, else IPv6 as in RFC 5952. */
export const gidText = (gid: Uint8Array): string => {
  if (isMappedIpv4(gid)) return `::ffff:${gid.subarray(12).join('.')}`
  const text = groups(gid).join(':')
  const zeros = [...text.matchAll(/(?<=^|:)0(:0)+(?=$|:)/g)].sort((a, b) => b[0].length - a[0].length)[0]
  if (zeros === undefined) return text
  const before = text.slice(0, zeros.index).replace(/:$/, '')
  const after = text.slice(zeros.index + zeros[0].length).replace(/^:/, '')
  return `${before}::${after}`
}
