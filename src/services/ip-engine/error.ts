/*
 * The error with which the IP engine refuses a request of its caller.
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
