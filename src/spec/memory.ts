/*
 * Units of memory above the operating system: pages of 4 KiB for registrations and ring mappings (rxe's device page is
 * 4 KiB on every machine), and addresses as two 32-bit words. host/ uses the system's own page size and does not know
 * this file.
 */

/** Bytes of a page. */
export const PAGE_BYTES = 4096

/** The weight of one unit of an address's high word, 2^32. */
export const TWO_32 = 2 ** 32

/** The u64 of a high and a low word, signed or not. */
export const joinWords = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0)

/** `bytes` rounded up to whole pages. */
export const wholePages = (bytes: number): number => Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES

/** The begin of the page of an address, and the first page that begins at it or behind it. */
export const pageBelow = (address: number): number => address - (address % PAGE_BYTES)
export const pageAbove = (address: number): number => pageBelow(address + PAGE_BYTES - 1)

/** `word` with its bytes reversed, u32: for big-endian words in little-endian structs. */
export const swap32 = (word: number): number =>
  ((word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0
