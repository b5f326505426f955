/*
 * Linux error numbers and their names, and the error for a failed system call.
 *
 * The numbers are those of node:os and some that node:os omits. Where Linux has two names for a number: 95 is
 * EOPNOTSUPP, 11 is EAGAIN. Hot functions of host/ return -errno; set-up functions throw or return SystemError.
 */
import { constants } from 'node:os'

const missingFromNode = {
  ENOTBLK: 15,
  ENOTUNIQ: 76,
  EBADFD: 77,
  EREMCHG: 78,
  EUSERS: 87,
  ESOCKTNOSUPPORT: 94,
  EPFNOSUPPORT: 96,
  ESHUTDOWN: 108,
  ETOOMANYREFS: 109,
  EHOSTDOWN: 112,
  EREMOTEIO: 121,
  EMEDIUMTYPE: 124,
  ENOKEY: 126,
}

const numbers = new Map<string, number>(Object.entries({ ...missingFromNode, ...constants.errno }))
const names = new Map<number, string>()
for (const [name, number] of numbers) names.set(number, name)
names.set(numbers.get('EAGAIN') ?? 11, 'EAGAIN')
names.set(numbers.get('EOPNOTSUPP') ?? 95, 'EOPNOTSUPP')

/** The name of an error number: 5 and -5 are 'EIO'. An unknown number n is 'errno n'. */
export const errnoName = (errno: number): string => names.get(Math.abs(errno)) ?? `errno ${Math.abs(errno)}`

/** The positive number of an error name; undefined for an unknown name. */
export const errnoNumber = (name: string): number | undefined => numbers.get(name)

export const EPERM = 1
export const ENOENT = 2
export const ESRCH = 3
export const EINTR = 4
export const EIO = 5
export const EBADF = 9
export const ECHILD = 10
export const EAGAIN = 11
export const ENOMEM = 12
export const EACCES = 13
export const EFAULT = 14
export const EBUSY = 16
export const EEXIST = 17
export const EINVAL = 22
export const ENFILE = 23
export const EMFILE = 24
export const ENOTTY = 25
export const EMSGSIZE = 90
export const EPROTOTYPE = 91
export const ENOPROTOOPT = 92
export const EOPNOTSUPP = 95
export const EADDRINUSE = 98
export const EADDRNOTAVAIL = 99
export const ENETUNREACH = 101
export const ECONNRESET = 104
export const ENOBUFS = 105
export const ETIMEDOUT = 110
export const ECONNREFUSED = 111

/** A failed system call: `errno` is positive, `code` its name ('EIO'), `call` the name of the call. */
export class SystemError extends Error {
  readonly errno: number
  readonly code: string
  readonly call: string

  constructor(call: string, errno: number, detail?: string) {
    const code = errnoName(errno)
    super(detail ? `${call}: ${code}: ${detail}` : `${call}: ${code}`)
    this.name = 'SystemError'
    this.errno = Math.abs(errno)
    this.code = code
    this.call = call
  }
}
