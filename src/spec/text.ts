/*
 * Words of messages.
 */

/** `2 errors` */
export const counted = (number: number, noun: string): string => `${number} ${noun}${number === 1 ? '' : 's'}`

/** `0x1f` */
export const hex = (number: bigint | number): string => `0x${number.toString(16)}`
