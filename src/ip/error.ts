/* The error of a command that fails: a wrong argument, a port in use, a destination that is not on the link. */
export type IpErrorCode = 'EINVAL' | 'EADDRINUSE' | 'EADDRNOTAVAIL' | 'EMSGSIZE' | 'ENETUNREACH' | 'ENOMEM'

export class IpError extends Error {
  readonly code: IpErrorCode

  constructor(code: IpErrorCode, message: string) {
    super(message)
    this.name = 'IpError'
    this.code = code
  }
}
