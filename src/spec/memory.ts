/*
 * How memory is counted everywhere above the operating system: in pages of 4 KiB, as registrations are checked and
 * rings are mapped (rxe's device page is 4 KiB on every machine), and by addresses that travel as two words of 32 bits.
 * host/ asks the system for its own page size and knows nothing of this file.
 */

/** Bytes of a page. */
export const PAGE_BYTES = 4096

/** What one unit of an address's high word is worth. */
export const TWO_32 = 2 ** 32

/** `bytes` rounded up to whole pages. */
export const wholePages = (bytes: number): number => Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES

/** A word with its bytes in the opposite order, u32: what stands big-endian among little-endian words. */
export const swap32 = (word: number): number =>
  ((word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0
