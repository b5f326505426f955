/*
 * 64-bit numbers of the kernel as two 32-bit halves.
 */

/** 2^32, the factor of the upper half. */
export const TWO_32 = 2 ** 32
