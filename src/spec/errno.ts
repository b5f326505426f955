/*
 * Error numbers of Linux (asm-generic/errno-base.h, errno.h), and CallError, which every refused call throws.
 */
import { asReason, Reason, type ReasonCode, type Tag } from './reason.ts'

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
 * A refused call. `errno`: positive, as in Linux for the same mistake. `reason`: what is wrong, with the value and what
 * is allowed. `message`: the reason in the object model's words.
 */
export class CallError extends Error {
  override readonly name = 'CallError'
  readonly errno: number
  readonly #reason: Reason
  constructor(code: ErrnoName, reason: Reason | string) {
    super()
    this.errno = Errno[code]
    this.#reason = asReason(reason)
  }
  get reason(): Reason {
    return this.#reason
  }
  get code(): string {
    return errnoName(this.errno)
  }
  override get message(): string {
    return this.#reason.text()
  }
}

/** A refused call that writes results nevertheless, such as the answer of a firmware command. */
export class AnsweredError extends CallError {
  readonly out: Readonly<Record<string, number | bigint | Uint8Array>>
  constructor(code: ErrnoName, reason: Reason, out: AnsweredError['out']) {
    super(code, reason)
    this.out = out
  }
}

/** Refusals by errno: `` throw callError.EINVAL`${the.attribute('cqe')}: ${cqe} is above ${max}` ``. */
export const callError = Object.fromEntries(
  Object.keys(Errno).map(code => [
    code,
    ((template, ...args) => new CallError(code as ErrnoName, new Reason(undefined, template, args))) as Tag<CallError>,
  ]),
) as { readonly [K in ErrnoName]: Tag<CallError> }

/** A refusal whose reason has a code: `` throw codedError('EADDRINUSE', 'port-in-use')`port ${port} is in use` ``. */
export const codedError =
  (errno: ErrnoName, code: ReasonCode): Tag<CallError> =>
  (template, ...args) =>
    new CallError(errno, new Reason(code, template, args))

/** A refusal since the context is closed, or its device removed. */
export const gone = codedError('EIO', 'gone')

/** Whether a fault rule has refused the call. */
export const isInjected = (error: unknown): boolean => error instanceof CallError && error.reason.code === 'injected'
