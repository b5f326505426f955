/*
 * Names chosen by other programs, as text that is safe for terminals.
 */

/** The text on one line, without control characters. */
export const printable = (text: string): string => text.replace(/\p{C}+/gu, ' ')
