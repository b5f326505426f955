/*
 * What the library throws: a refusal with its errno, what was refused, why, and what to do about it.
 */
import { CallError, Errno, type ErrnoName } from '../spec/errno.ts'

/** What `RdmaError.code` can be. */
export type ErrorCode = ErrnoName

/** What helps against an errno, where that is always the same. */
const HINTS: Readonly<Record<string, string>> = {
  EBUSY: 'close what uses it first',
  EIO: 'the device is gone: open it again',
  EOPNOTSUPP: 'this device does not have it; ask `device.supports()` what it has',
  ENOMEM: 'close what is not needed any more, or ask for less',
}

/** Sentences about an attribute name it like this (uapi, core and drivers alike). */
const ATTRIBUTE = /^attribute (\w+(?:\.\w+|\[\d+\])*)/

/** Lets `instanceof` know instances of a class that another copy of the library has made. */
export const recognizeCopies = (cls: { readonly prototype: Error }, name: string): void => {
  const brand = Symbol.for(name)
  Object.defineProperty(cls.prototype, brand, { value: true })
  Object.defineProperty(cls, Symbol.hasInstance, {
    value(value: unknown): boolean {
      // A subclass inherits this method.
      if (this !== cls) return Function.prototype[Symbol.hasInstance].call(this, value)
      return typeof value === 'object' && value !== null && brand in value
    },
  })
}

/** A call was refused, or a work request could not be posted. `instanceof` knows those of other copies of the library. */
export class RdmaError extends Error {
  /** 'RdmaError'. */
  override readonly name: string = 'RdmaError'
  /** Name of the errno: 'EINVAL' … */
  readonly code: ErrorCode
  /** Its number. */
  readonly errno: number
  /** What was asked: 'rc_qp.modify', 'qp.send' … */
  readonly call: string
  /** The two parts of it: of a class of the device, or of an object of the library. */
  readonly class: string
  /** The method of `call`. */
  readonly method: string
  /**
   * The option that was wrong, or the attribute of a call in the words of its class, if it was one; of a record its
   * field too: 'maxSendWr', 'addresses[2].dgid'.
   */
  readonly attribute: string | undefined
  /** Why it was refused. */
  readonly reason: string
  /** What to do; empty if nothing general can be said. */
  readonly hint: string

  constructor(
    code: ErrorCode,
    errno: number,
    call: string,
    reason: string,
    hint: string = HINTS[code] ?? '',
    attribute: string | undefined = ATTRIBUTE.exec(reason)?.[1],
  ) {
    super(`${call}: ${reason} (${code})${hint === '' ? '' : `; ${hint}`}`)
    const dot = call.indexOf('.')
    this.code = code
    this.errno = errno
    this.call = call
    this.class = dot < 0 ? '' : call.slice(0, dot)
    this.method = call.slice(dot + 1)
    this.attribute = attribute
    this.reason = reason
    this.hint = hint
  }
}
recognizeCopies(RdmaError, 'userdma.RdmaError')

/** What to do where a driver takes time for a call that does not wait. */
export const USE_ASYNC_HINT = 'await device.callAsync(…) or device.createAsync(…), or let `await using` close it'

/** A refusal with the sentence that came with it, of which the call's name is taken off. */
export const refusal = (code: string, errno: number, call: string, sentence: string, hint?: string): RdmaError =>
  // A number without a name is that of a newer device.
  new RdmaError(
    code as ErrorCode,
    errno,
    call,
    sentence.startsWith(`${call}: `) ? sentence.slice(call.length + 2) : sentence,
    hint,
  )

/** A refusal of core as the library throws it. */
export const rdmaError = (error: CallError, call: string): RdmaError =>
  refusal(error.code, error.errno, call, error.message)

/** One of the library's own. */
export const refused = (code: ErrnoName, call: string, reason: string, hint?: string): RdmaError =>
  new RdmaError(code, Errno[code], call, reason, hint)

/** The caller's mistake. */
export const invalidArgument = (call: string, reason: string, hint?: string): RdmaError =>
  refused('EINVAL', call, reason, hint)

/** A method was taken off its object. */
export const detached = (call: string): RdmaError =>
  invalidArgument(call, 'the method was called without its object', `write ${call}(…)`)

/** A value as a sentence shows it, whatever it is: callers without types write what they like. */
export const formatValue = (value: unknown): string => {
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return 'a function'
  if (typeof value !== 'object' || value === null) return String(value)
  return Array.isArray(value) ? 'a list' : value instanceof Uint8Array ? 'a Uint8Array' : 'an object'
}

/** That `value` is text. */
export const checkText = (call: string, option: string, value: unknown): void => {
  if (typeof value !== 'string') throw invalidArgument(call, `${option} ${formatValue(value)} is no text`)
}

/** That `value` is an integer from 0 to 2^32 - 1. */
export const checkU32 = (call: string, option: string, value: unknown): void => {
  if (typeof value !== 'number' || value >>> 0 !== value)
    throw invalidArgument(call, `${option} ${formatValue(value)} is no number of 32 bits`)
}

/** That `value` is a Uint8Array. Longer elements would make `length` something else than bytes. */
export const checkBytes = (call: string, what: string, value: unknown): void => {
  // Test runners have a Uint8Array of their own.
  if (!ArrayBuffer.isView(value) || (value as Uint8Array).BYTES_PER_ELEMENT !== 1)
    throw invalidArgument(call, `${what}: ${formatValue(value)} is no Uint8Array`, 'write new Uint8Array(buffer)')
}

/** That what is to be called is a function: else it is found out when nobody expects it. */
export const checkFunction = (call: string, what: string, value: unknown): void => {
  if (typeof value !== 'function') throw invalidArgument(call, `${what} ${formatValue(value)} is no function`)
}

/** That a choice is one of those there are. */
export const checkChoice = (call: string, option: string, value: unknown, choices: readonly string[]): void => {
  if (!(choices as readonly unknown[]).includes(value))
    throw invalidArgument(call, `${option} ${formatValue(value)}: it is ${choices.join(', ')}`)
}

/** What was thrown, a refusal of core's as one of the library. */
export const toRdmaError = (error: unknown, call: string): unknown =>
  error instanceof CallError ? rdmaError(error, call) : error

/** Options by the names of the attributes that they become, where these differ. */
export type OptionNames = Readonly<Record<string, string>>

/** A refusal of a call in the words of the options that were written: `cq.create: entries: 0 is below 1`. */
export const inOptionWords = (error: unknown, names: OptionNames | undefined): unknown => {
  if (names === undefined || !(error instanceof RdmaError) || error.attribute === undefined) return error
  const [first = '', ...fields] = error.attribute.split('.')
  const option = first === 'cap' && fields.length > 0 ? fields.join('.') : (names[first] ?? error.attribute)
  const reason = error.reason.replace(ATTRIBUTE, option)
  return new RdmaError(error.code, error.errno, error.call, reason, error.hint, option)
}

/** What `body` answers; a refusal names the options that were written. */
export const withOptionWords = <T>(names: OptionNames, body: () => T): T => {
  try {
    return body()
  } catch (error) {
    throw inOptionWords(error, names)
  }
}

/** What `body` answers; a refusal of core's becomes one of the library. */
export const rethrow = <T>(call: string, body: () => T): T => {
  try {
    return body()
  } catch (error) {
    throw toRdmaError(error, call)
  }
}
