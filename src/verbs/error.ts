/*
 * What the library throws: a refusal with its errno, what was refused, why, and what to do about it.
 */
import type { CallError } from '../spec/errno.ts'

/** What helps against an errno, where that is always the same. */
const HINTS: Readonly<Record<string, string>> = {
  EBUSY: 'close what uses it first',
  EIO: 'the device is gone: open it again',
  EOPNOTSUPP: 'this device does not have it; ask `device.supports()` what it has',
  ENOMEM: 'close what is not needed any more, or ask for less',
}

/** A call was refused, or a work request could not be posted. */
export class RdmaError extends Error {
  override readonly name = 'RdmaError'
  /** Name of the errno: 'EINVAL' … */
  readonly code: string
  /** Its number. */
  readonly errno: number
  /** What was asked: 'rc_qp.modify', 'qp.send' … */
  readonly call: string
  /** Why it was refused. */
  readonly reason: string
  /** What to do; empty if nothing general can be said. */
  readonly hint: string

  constructor(code: string, errno: number, call: string, reason: string, hint: string = HINTS[code] ?? '') {
    super(`${call}: ${reason} (${code})${hint === '' ? '' : `; ${hint}`}`)
    this.code = code
    this.errno = errno
    this.call = call
    this.reason = reason
    this.hint = hint
  }
}

/** A refusal of core as the library throws it. */
export const rdmaError = (error: CallError, call: string): RdmaError => {
  const said = error.message.startsWith(`${call}: `) ? error.message.slice(call.length + 2) : error.message
  return new RdmaError(error.code, error.errno, call, said)
}
