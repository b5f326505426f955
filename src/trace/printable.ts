/*
 * Text from other programs, such as names, for terminals.
 */

/** The text on one line, without control characters or line separators. */
export const printable = (text: string): string => text.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ')
