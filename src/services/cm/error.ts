/*
 * The error of the connection manager: the connection's state does not allow a command, or another connection has the
 * queue pair.
 */
export class CmError extends Error {
  readonly code = 'EINVAL'

  constructor(message: string) {
    super(message)
    this.name = 'CmError'
  }
}
