/* 64-bit addresses as two words. */

/**
 * The upper word of an address to which an offset was added: `sum` is its lower word and the offset, below 2^53. The
 * new lower word is `sum >>> 0`.
 */
export const upperWord = (hi: number, sum: number): number => (hi + (sum > 0xffff_ffff ? 1 : 0)) >>> 0
