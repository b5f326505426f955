/*
 * Errors of the connection manager. EINVAL: the connection's state does not allow a command, or another connection has
 * the queue pair. EADDRINUSE: the service id has a listener.
 */
export class CmError extends Error {
  readonly code: 'EINVAL' | 'EADDRINUSE'

  constructor(code: 'EINVAL' | 'EADDRINUSE', message: string) {
    super(message)
    this.name = 'CmError'
    this.code = code
  }
}
