/*
 * Words of messages.
 */

/** `2 errors` */
export const counted = (number: number, noun: string, nouns = `${noun}s`): string =>
  `${number} ${number === 1 ? noun : nouns}`

/** `0x1f` */
export const hex = (number: bigint | number): string => `0x${number.toString(16)}`

/** `001f` */
export const hexBytes = (bytes: Uint8Array): string =>
  Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('')

/** The bytes of a text of `hexBytes`. */
export const bytesOfHex = (text: string): Uint8Array =>
  Uint8Array.from(text.match(/../g) ?? [], pair => Number.parseInt(pair, 16))
