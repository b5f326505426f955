/* A command that the state of a connection does not allow (EINVAL), or a service id that is taken (EADDRINUSE). */
export class CmError extends Error {
  readonly code: 'EINVAL' | 'EADDRINUSE'

  constructor(code: 'EINVAL' | 'EADDRINUSE', message: string) {
    super(message)
    this.name = 'CmError'
    this.code = code
  }
}
