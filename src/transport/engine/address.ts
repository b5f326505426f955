/* 64-bit addresses as two 32-bit words. */

/**
 * Adds an offset of at most 2^32 to an address. `sum`: lower word plus offset. Returns the new upper word; the new
 * lower word is `sum >>> 0`.
 */
export const upperWord = (hi: number, sum: number): number => (hi + (sum > 0xffff_ffff ? 1 : 0)) >>> 0
