/*
 * 64-bit numbers of the kernel are read and written as two 32-bit halves.
 */

/** The factor of the upper half. */
export const TWO_32 = 2 ** 32
