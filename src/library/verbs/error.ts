/*
 * The library's errors, and checks of arguments.
 */

import { CallError, Errno, type ErrnoName } from '../../spec/errno.ts'
import { asReason, modelWords, type Reason, type ReasonCode, type Words } from '../../spec/reason.ts'
import { beginStackAtProgram } from './watch/stacks.ts'
import type { CountedFinding } from './watch/watch.ts'

/** Values of `RdmaError.code`: names of errnos; 'ERR_CLOSED' if the object, device or connection is closed. */
export type ErrorCode = ErrnoName | 'ERR_CLOSED'

/** Default remedies, by errno. `of`: the reasons that a remedy is for; absent: all. */
const HINTS: Readonly<Record<string, { readonly hint: string; readonly of?: ReasonCode }>> = {
  EBUSY: { hint: 'close what uses it first', of: 'in-use' },
  EIO: { hint: 'open the device again', of: 'gone' },
  EOPNOTSUPP: { hint: '`device.supports()` tells what this device supports' },
  ENOMEM: { hint: 'close what is not needed any more, or ask for less' },
}
const defaultHint = (code: string, reason: Reason | string): string => {
  const { hint = '', of } = HINTS[code] ?? {}
  return of === undefined || asReason(reason).code === of ? hint : ''
}

/** The attribute that the refusal of a method is about, if the method is `call`. */
const attributeIn = (reason: Reason | string, call: string): string | undefined => {
  const { method = call, attribute } = asReason(reason).subject
  return method === call ? attribute : undefined
}

/** Makes `instanceof` accept instances from other copies of the library in the same program. */
export const recognizeCopies = (cls: { readonly prototype: Error }, name: string): void => {
  const brand = Symbol.for(name)
  Object.defineProperty(cls.prototype, brand, { value: true })
  Object.defineProperty(cls, Symbol.hasInstance, {
    value(value: unknown): boolean {
      // Subclasses inherit this method.
      if (this !== cls) return Function.prototype[Symbol.hasInstance].call(this, value)
      return typeof value === 'object' && value !== null && brand in value
    },
  })
}

/** The words of programs in TypeScript for a reason about `attribute`: `option` in its place. */
const optionWords = (option: string, attribute: string | undefined): Words => ({
  ...modelWords,
  attribute: path => (path === attribute ? option : modelWords.attribute(path)),
  addressField: name => (attribute === 'address' ? `${option}: ${name}` : modelWords.addressField(name)),
})

const reasons = new WeakMap<object, Reason>()
/** The reason of an RdmaError of this copy of the library. */
export const reasonOf = (error: RdmaError): Reason => reasons.get(error) ?? asReason(error.reason)

/**
 * A call was refused, or a work request could not be posted. `instanceof` also accepts errors from other copies of the
 * library in the same program.
 */
export class RdmaError extends Error {
  /** 'RdmaError'. */
  override readonly name: string = 'RdmaError'
  /** Name of the errno: 'EINVAL' …, or 'ERR_CLOSED'. */
  readonly code: ErrorCode
  /** The errno as a number; with 'ERR_CLOSED' EINVAL, or EIO if the device is closed or removed. */
  readonly errno: number
  /** The method that the program called: 'pd.rcQp', 'qp.send' … */
  readonly call: string
  /**
   * The class of the device whose method was refused, as in traces ('rc_qp'); if the library itself refuses, also the
   * part of `call` before the dot. '' without a dot ('open').
   */
  readonly class: string
  /** The method of `class` ('create'), or the part of `call` after the dot. */
  readonly method: string
  /**
   * The option ('maxSendWr') that the device refuses. If no option sets the value: the attribute of the class, with the
   * field of a record ('addresses[2].dgid'). Undefined in other errors, and where the library itself refuses an option.
   */
  readonly attribute: string | undefined
  /** The reason. */
  readonly reason: string
  /** A remedy; '' without one. */
  readonly hint: string

  constructor(
    code: ErrorCode,
    errno: number,
    call: string,
    reason: Reason | string,
    hint: string = defaultHint(code, reason),
    option?: string,
    programCall = call,
  ) {
    const attribute = attributeIn(reason, call)
    const words = option === undefined ? modelWords : optionWords(option, attribute)
    const text = asReason(reason).text(words, call)
    super(`${programCall}: ${text} (${code})${hint === '' ? '' : `; ${hint}`}`)
    const dot = call.indexOf('.')
    this.code = code
    this.errno = errno
    this.call = programCall
    this.class = dot < 0 ? '' : call.slice(0, dot)
    this.method = call.slice(dot + 1)
    this.attribute = option ?? attribute
    this.reason = text
    this.hint = hint
    // `message` has their text: `console.log` shows it once.
    hideFields(this, 'reason', 'hint')
    reasons.set(this, asReason(reason))
    beginStackAtProgram(this)
  }
}
recognizeCopies(RdmaError, 'userdma.RdmaError')

/** Makes fields of an error invisible to `console.log`. */
export const hideFields = (error: Error, ...names: readonly string[]): void => {
  for (const name of names) Object.defineProperty(error, name, { enumerable: false })
}

/**
 * `device.close()` of a checked device (`open({ check })`) rejects with this error if there are findings of at least
 * the severity `CheckOptions.failOn`.
 */
export class FindingsError extends Error {
  /** 'FindingsError'. */
  override readonly name: string = 'FindingsError'
  /** 'ERR_USERDMA_FINDINGS'. */
  readonly code = 'ERR_USERDMA_FINDINGS'
  /** These findings, oldest first. */
  readonly findings: readonly CountedFinding[]

  /** `device`: its name; `texts`: the text of each finding. */
  constructor(device: string, findings: readonly CountedFinding[], texts: readonly string[]) {
    super(`device ${device}: ${findings.length} finding${findings.length === 1 ? '' : 's'}\n\n${texts.join('\n')}`)
    this.findings = findings
  }
}
recognizeCopies(FindingsError, 'userdma.FindingsError')

/** The remedy for a synchronous call of a method whose handler is asynchronous. */
export const USE_ASYNC_HINT = 'await device.callAsync(…) or device.createAsync(…), or let `await using` close it'

/** The method of the library that the program has called, while it runs. */
let programCall: string | undefined

/** Runs a method that the program has called: refusals meanwhile name it. */
export const asProgramCall = <T>(call: string, body: () => T): T => {
  if (programCall !== undefined) return body()
  programCall = call
  try {
    return body()
  } finally {
    programCall = undefined
  }
}

/** An error of the method that the program has called, or of `call`. */
const errorOf = (code: ErrorCode, errno: number, call: string, reason: Reason | string, hint?: string): RdmaError =>
  new RdmaError(code, errno, call, reason, hint, undefined, programCall ?? call)

/** A refusal by core, a driver or a daemon. The call's name at its start is left out of the reason. */
export const refusal = (code: string, errno: number, call: string, reason: Reason | string, hint?: string): RdmaError =>
  // A device of a newer release may return an unknown code.
  errorOf(code as ErrorCode, errno, call, reason, hint)

/** A CallError as an RdmaError. */
export const rdmaError = (error: CallError, call: string): RdmaError =>
  refusal(error.code, error.errno, call, error.reason)

/** A refusal by the library itself. */
export const refused = (code: ErrnoName, call: string, reason: Reason | string, hint?: string): RdmaError =>
  errorOf(code, Errno[code], call, reason, hint)

export const invalidArgument = (call: string, reason: Reason | string, hint?: string): RdmaError =>
  refused('EINVAL', call, reason, hint)

/** The error of a call on an object that is closed. `what`: the closed object. */
export const closedError = (call: string, what = 'the object'): RdmaError =>
  errorOf('ERR_CLOSED', Errno.EINVAL, call, `${what} is closed`)

/** The error of a call on a device that is closed. `state`: 'closed', or 'closed or removed'. */
export const deviceClosedError = (call: string, state = 'closed'): RdmaError =>
  errorOf('ERR_CLOSED', Errno.EIO, call, `the device is ${state}`, 'open the device again')

/** The error of a post that a fault rule has refused. */
export const injectedError = (call: string, code: ErrnoName): RdmaError =>
  refused(code, call, 'injected by a fault rule', '')

/** The error of a method that is called without its object, as after `const { poll } = cq`. */
export const withoutObject = (call: string): RdmaError =>
  invalidArgument(call, 'the method was called without its object', `write ${call}(…)`)

// The checks below are for JavaScript programs. They throw RdmaError EINVAL.

/** Whether `value` is memory: an ArrayBuffer, a SharedArrayBuffer or a view of one. */
const isBinary = (value: object): value is ArrayBufferView | ArrayBufferLike =>
  ArrayBuffer.isView(value) || /^\[object (?:Shared)?ArrayBuffer\]$/.test(Object.prototype.toString.call(value))

/** EINVAL for a field that is missing or not `expected` ('a number of 32 bits'). `title`: the record's name. */
export const wrongField = (
  call: string,
  title: string,
  field: string,
  value: unknown,
  expected: string,
  hint: string,
): RdmaError => {
  const problem = value === undefined ? `has no ${field}` : `${field} ${formatValue(value)} is not ${expected}`
  return invalidArgument(call, `${title}: ${problem}`, hint)
}

/** Names of classes that take the article "an": Int8Array, not Uint8Array. */
const TAKES_AN = /^[AEIOU](?!int)/

/** A value of any type as text for a message. */
export const formatValue = (value: unknown): string => {
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return 'a function'
  if (typeof value !== 'object' || value === null) return String(value)
  if (Array.isArray(value)) return 'a list'
  if (!isBinary(value)) return 'an object'
  const { name } = value.constructor
  return `${TAKES_AN.test(name) ? 'an' : 'a'} ${name}`
}

export const checkText = (call: string, option: string, value: unknown): void => {
  if (typeof value !== 'string') throw invalidArgument(call, `${option} ${formatValue(value)} is not a string`)
}

export const checkU32 = (call: string, option: string, value: unknown): void => {
  if (typeof value !== 'number' || value >>> 0 !== value)
    throw invalidArgument(call, `${option} ${formatValue(value)} is not a number of 32 bits`)
}

export const checkInteger = (call: string, option: string, value: unknown, min: number, max: number): void => {
  if (!Number.isInteger(value) || (value as number) < min || (value as number) > max)
    throw invalidArgument(call, `${option} ${formatValue(value)} is not an integer from ${min} to ${max}`)
}

/** Checks that `value` is an integer from 0 to 2^53 - 1. */
export const checkByteCount = (call: string, option: string, value: unknown): void => {
  if (!Number.isSafeInteger(value) || (value as number) < 0)
    throw invalidArgument(call, `${option} ${formatValue(value)} is not a number of bytes`)
}

/** Checks that `value` is an array of bytes, so that `length` counts bytes. */
export const checkBytes = (call: string, option: string, value: unknown): void => {
  // Not by `instanceof`: test runners with their own globals have another Uint8Array.
  if (!ArrayBuffer.isView(value) || (value as Uint8Array).BYTES_PER_ELEMENT !== 1)
    throw invalidArgument(call, `${option}: ${formatValue(value)} is not a Uint8Array`, bytesHint(value))
  checkAttached(call, option, value as Uint8Array)
}

/** Checks that the buffer of `bytes` was not transferred to another thread. Cheap unless `bytes` is empty. */
export const checkAttached = (call: string, option: string, { length, buffer }: Uint8Array): void => {
  if (length > 0) return
  try {
    new Uint8Array(buffer)
  } catch {
    const reason = 'its buffer was transferred (for example by postMessage) and has no bytes any more'
    throw invalidArgument(call, `${option}: ${reason}`, 'transfer a copy')
  }
}

const bytesHint = (value: unknown): string => {
  if (ArrayBuffer.isView(value)) return 'write new Uint8Array(view.buffer, view.byteOffset, view.byteLength)'
  if (typeof value === 'string') return 'write new TextEncoder().encode(text)'
  return typeof value === 'object' && value !== null && isBinary(value)
    ? 'write new Uint8Array(buffer)'
    : 'give a Uint8Array'
}

export const checkFunction = (call: string, option: string, value: unknown): void => {
  if (typeof value !== 'function') throw invalidArgument(call, `${option} ${formatValue(value)} is not a function`)
}

export const checkChoice = (call: string, option: string, value: unknown, choices: readonly string[]): void => {
  if (!(choices as readonly unknown[]).includes(value))
    throw invalidArgument(call, `${option} ${formatValue(value)} is not one of ${choices.join(', ')}`)
}

/** A CallError as an RdmaError; other errors unchanged. */
export const toRdmaError = (error: unknown, call: string): unknown =>
  error instanceof CallError ? rdmaError(error, call) : error

/** The refusal with `option` in place of the attribute that it is about. */
export const withOption = (error: RdmaError, option: string): RdmaError => {
  const call = error.class === '' ? error.method : `${error.class}.${error.method}`
  return new RdmaError(error.code, error.errno, call, reasonOf(error), error.hint, option, error.call)
}

/** Names of options by the attributes that they set, where the names differ: { cqe: 'entries' }. */
export type OptionNames = Readonly<Record<string, string>>

/**
 * Names the option in place of the attribute in a refusal: `cq.create: entries: 0 is below 1`. Fields of `cap` are
 * options of the same name. Other errors stay unchanged.
 */
export const nameOptions = (error: unknown, names: OptionNames | undefined): unknown => {
  if (names === undefined || !(error instanceof RdmaError) || error.attribute === undefined) return error
  const [attribute = '', ...fields] = error.attribute.split('.')
  const option = attribute === 'cap' && fields.length > 0 ? fields.join('.') : (names[attribute] ?? error.attribute)
  return withOption(error, option)
}

/** Runs `body`; its refusals name options in place of attributes. */
export const withOptionNames = <T>(names: OptionNames, body: () => T): T => {
  try {
    return body()
  } catch (error) {
    throw nameOptions(error, names)
  }
}

/** Runs `body`; a CallError becomes an RdmaError. */
export const rethrow = <T>(call: string, body: () => T): T => {
  try {
    return body()
  } catch (error) {
    throw toRdmaError(error, call)
  }
}

/** Emits a process warning of type UserdmaWarning; does nothing in browsers. */
export const warn = (message: string, detail?: string): void =>
  globalThis.process?.emitWarning(message, { type: 'UserdmaWarning', ...(detail !== undefined && { detail }) })
