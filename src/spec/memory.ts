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
