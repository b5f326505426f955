/*
 * Makes text that other programs have chosen, such as names, safe for terminals.
 */

/** The text on one line, without control characters. */
export const printable = (text: string): string => text.replace(/\p{C}+/gu, ' ')
