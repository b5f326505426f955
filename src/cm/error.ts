/*
 * The error of a command that the connection's state does not allow, or whose queue pair another connection has
 * (EINVAL), and of a listener for a service id in use (EADDRINUSE).
 */
export class CmError extends Error {
  readonly code: 'EINVAL' | 'EADDRINUSE'

  constructor(code: 'EINVAL' | 'EADDRINUSE', message: string) {
    super(message)
    this.name = 'CmError'
    this.code = code
  }
}
