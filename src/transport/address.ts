/* 64-bit addresses as two words. */

/**
 * The upper word of an address plus an offset of at most 2^32: `sum` is the lower word plus the offset. The new lower
 * word is `sum >>> 0`.
 */
export const upperWord = (hi: number, sum: number): number => (hi + (sum > 0xffff_ffff ? 1 : 0)) >>> 0
