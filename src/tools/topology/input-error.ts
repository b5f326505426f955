/*
 * The error of files and settings that a user has written.
 */

/** What a user has written is wrong. The message names the place, the value and what is allowed. */
export class InputError extends Error {
  override readonly name = 'InputError'
  /** Of a command that ends with it: wrong usage. */
  readonly status = 2
}

/** A file that a user has named cannot be read. */
export class UnreadableFile extends InputError {}
