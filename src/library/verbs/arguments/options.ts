/*
 * Checks of options objects. Every property must be known, because a misspelt option would be ignored. A flag must be
 * true or false, because 'no' would count as true.
 *
 * Not for data from a peer (endpoints, remote memory): such data may have additional properties. Options of requests
 * have a faster check (request-options.ts).
 */
import { copyOfBytes } from '../../../spec/memory.ts'
import { formatValue, invalidArgument } from '../error.ts'

/**
 * The names of all options in `O`; the compiler checks that the list is complete. A 'flag' must be true or false, a
 * 'record' an object; `checkOptions` does not check the value of an option with `true`.
 */
export type KnownOptions<O> = {
  readonly [K in keyof Required<O>]: [Exclude<O[K], undefined>] extends [boolean] ? 'flag' : 'record' | true
}

/** Checks that `value` is an object; `title` names it in the error. Throws RdmaError EINVAL. */
export const checkRecord = (call: string, title: string, value: unknown, hint: string): void => {
  if (value === undefined) throw invalidArgument(call, `${title} is missing`, hint)
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalidArgument(call, `${title}: ${formatValue(value)} is not an object`, hint)
}

/** A copy of an object of options, and of its lists; its other values are shared. Returns other values as they are. */
export const copyRecord = <T>(value: T): T => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  const copies = Object.entries(value).map(([name, option]) => [name, Array.isArray(option) ? [...option] : option])
  return Object.fromEntries(copies)
}

/** Checks that `value` is true, false or undefined. Throws RdmaError EINVAL. */
export const checkFlag = (call: string, option: string, value: unknown): void => {
  if (value !== undefined && typeof value !== 'boolean')
    throw invalidArgument(call, `${option} ${formatValue(value)} is not true or false`)
}

/**
 * Checks that `options` is an object with known properties, and checks the types of flags and records. `title` names
 * the object in the error. Throws RdmaError EINVAL.
 */
export const checkOptions = (call: string, title: string, options: object | undefined, known: object): void => {
  if (typeof options !== 'object' || options === null || Array.isArray(options))
    checkRecord(call, title, options, `give an object with ${Object.keys(known).join(', ')}`)
  for (const name in options) {
    const value = (options as Readonly<Record<string, unknown>>)[name]
    if (value === undefined) continue
    if (!Object.hasOwn(known, name))
      throw invalidArgument(call, `${title}: "${name}" is unknown`, `there are ${Object.keys(known).join(', ')}`)
    const check = (known as Readonly<Record<string, unknown>>)[name]
    if (check === true) continue
    const option = title === 'options' ? name : `${title}.${name}`
    if (check === 'flag') checkFlag(call, option, value)
    else checkRecord(call, option, value, 'give an object')
  }
}

/** Levels of nesting of valid arguments, and those that a copy has at most: what is deeper is shared. */
const USUAL_DEPTH = 8
const MAX_DEPTH = 200

/**
 * As `copyOfValue`. `copies`: those made so far, of a value that may contain itself; absent: throws `tooDeep` if it is
 * deep.
 */
const copyNested = (value: unknown, depth: number, copies?: Map<object, unknown>): unknown => {
  if (typeof value !== 'object' || value === null) return value
  if (value instanceof Uint8Array) return copyOfBytes(value)
  const isList = Array.isArray(value)
  const prototype = Object.getPrototypeOf(value)
  if ((!isList && prototype !== Object.prototype && prototype !== null) || depth === MAX_DEPTH) return value
  const copyField = (field: unknown): unknown => copyNested(field, depth + 1, copies)
  if (copies === undefined) {
    if (depth === USUAL_DEPTH) throw tooDeep
    return isList
      ? value.map(copyField)
      : Object.fromEntries(Object.entries(value).map(([name, field]) => [name, copyField(field)]))
  }
  const known = copies.get(value)
  if (known !== undefined) return known
  const copy: object = isList ? new Array(value.length) : {}
  copies.set(value, copy)
  const attributes = { writable: true, enumerable: true, configurable: true }
  for (const [name, field] of Object.entries(value))
    Object.defineProperty(copy, name, { ...attributes, value: copyField(field) })
  return copy
}
const tooDeep = new RangeError('the value is deeper than usual')

/** A copy of an argument, with its records, lists and bytes: the program may write to the original. */
export const copyOfValue = <T>(value: T): T => {
  try {
    return copyNested(value, 0) as T
  } catch (error) {
    if (error !== tooDeep) throw error
    return copyNested(value, 0, new Map()) as T
  }
}
