/* 64-bit addresses as two words. */

/**
 * The upper word of an address plus an offset: `sum` is the lower word plus the offset, below 2^53. The new lower word
 * is `sum >>> 0`.
 */
export const upperWord = (hi: number, sum: number): number => (hi + (sum > 0xffff_ffff ? 1 : 0)) >>> 0
