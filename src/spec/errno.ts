/*
 * Error numbers of Linux (asm-generic/errno-base.h, errno.h), and CallError, which every refused call throws.
 */

export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  EPIPE: 32,
  ERANGE: 34,
  EDEADLK: 35,
  ENOSYS: 38,
  ENODATA: 61,
  EPROTO: 71,
  EOVERFLOW: 75,
  EMSGSIZE: 90,
  ENOPROTOOPT: 92,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETUNREACH: 101,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  EISCONN: 106,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  ESTALE: 116,
  EREMOTEIO: 121,
  ECANCELED: 125,
} as const

export type ErrnoName = keyof typeof Errno

const NAMES = new Map<number, string>(Object.entries(Errno).map(([name, number]) => [number, name]))

/** The name of an error number; `errno 123` if the number is unknown. */
export const errnoName = (errno: number): string => NAMES.get(errno) ?? `errno ${errno}`

/** `name` if Errno has it, otherwise `fallback`. */
export const knownErrno = (name: string, fallback: ErrnoName): ErrnoName =>
  Object.hasOwn(Errno, name) ? (name as ErrnoName) : fallback

/**
 * A refused call. `errno`: positive, as in Linux for the same mistake. `message`: what is wrong, with the value and
 * what is allowed.
 */
export class CallError extends Error {
  override readonly name = 'CallError'
  readonly errno: number
  constructor(code: ErrnoName, reason: string) {
    super(reason)
    this.errno = Errno[code]
  }
  get code(): string {
    return errnoName(this.errno)
  }
}

/** A refused call that writes results nevertheless, such as the answer of a firmware command. */
export class AnsweredError extends CallError {
  readonly out: Readonly<Record<string, number | bigint | Uint8Array>>
  constructor(code: ErrnoName, reason: string, out: AnsweredError['out']) {
    super(code, reason)
    this.out = out
  }
}

/** A call that a fault rule has refused: no mistake of the program. */
export class InjectedError extends CallError {}

/**
 * A call refused for a value above a limit that no query returns, such as that of max_inline_data. Programs find the
 * limit by trying, so the call is no mistake.
 */
export class UnknownLimitError extends CallError {}
