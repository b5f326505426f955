/*
 * The error that functions of the IP engine throw for a mistake of the caller: a wrong argument, a port in use, a
 * destination that is not on the link.
 */
export type IpErrorCode = 'EINVAL' | 'EADDRINUSE' | 'EADDRNOTAVAIL' | 'EMSGSIZE' | 'ENETUNREACH' | 'ENOMEM'

export class IpError extends Error {
  readonly code: IpErrorCode

  constructor(code: IpErrorCode, message: string) {
    super(message)
    this.name = 'IpError'
    this.code = code
  }
}
