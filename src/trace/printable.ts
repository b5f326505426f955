/*
 * Text from other programs, such as names, for terminals.
 */

/** The text on one line, without control characters. */
export const printable = (text: string): string => text.replace(/\p{C}+/gu, ' ')
