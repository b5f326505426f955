/*
 * Text from other programs and files, such as names, for terminals.
 */

/** The text on one line, without control characters or line separators. */
export const printable = (text: string): string => text.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ')

/** Characters that `JSON.stringify` leaves, and terminals may act on; not the line feeds of `indent`. */
const UNSAFE = /(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu

/** `JSON.stringify`, with such characters as escapes: the same value for readers of JSON. */
export const jsonText = (value: unknown, indent?: number): string =>
  JSON.stringify(value, null, indent).replace(UNSAFE, found =>
    Array.from({ length: found.length }, (_, i) => `\\u${found.charCodeAt(i).toString(16).padStart(4, '0')}`).join(''),
  )
