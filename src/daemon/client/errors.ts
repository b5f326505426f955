/*
 * Errors of sessions with a daemon.
 */
import type { ErrnoName } from '../../spec/errno.ts'

/** No session can be opened. `code` is what the library reports, for `reason`; `message` is for users of tools. */
export class SessionError extends Error {
  override readonly name: string = 'SessionError'
  readonly code: ErrnoName
  readonly reason: string
  /** A remedy; '' without one. */
  readonly hint: string

  constructor(code: ErrnoName, reason: string, hint = '', options?: ErrorOptions) {
    super(hint === '' ? reason : `${reason}; ${hint}`, options)
    this.code = code
    this.reason = reason
    this.hint = hint
  }
}

/** No daemon serves the socket, or the session ended before the reply. */
export class NoDaemonError extends SessionError {
  override readonly name = 'NoDaemonError'
}

/** The daemon has another version of the session protocol. */
export class VersionError extends SessionError {
  override readonly name = 'VersionError'
}

/**
 * The daemon does not do what a tool asks for. `reason`: in its words; `message` also says what was asked, and whom.
 */
export class RefusalError extends Error {
  override readonly name = 'RefusalError'
  readonly reason: string

  constructor(socket: string, asked: string, reason: string) {
    super(`the daemon at ${socket} refuses ${asked}: ${reason}`)
    this.reason = reason
  }
}
