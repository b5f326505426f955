/*
 * The error for files that are no session files, or damaged ones.
 */

/** `message`: one sentence without its full stop, for people. */
export class SessionFileError extends Error {
  override readonly name = 'SessionFileError'
}
