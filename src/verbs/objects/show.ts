/*
 * What `console.log` and `JSON.stringify` show of the library's objects: their main properties instead of their
 * internals. JSON has no 64-bit numbers, so that addresses are text.
 */
import { withoutObject } from '../error.ts'

/** The symbol of Node's util.inspect, without importing it: browsers have none. */
const INSPECT = Symbol.for('nodejs.util.inspect.custom')

export type Shown = Readonly<Record<string, unknown>>
type Inspect = (value: unknown, options: object) => string
interface InspectOptions {
  readonly depth?: number | null
}

export const addressHex = (address: bigint): string => `0x${address.toString(16)}`

/** `value` with its bigints as text ('0x…'), in lists and records too. */
export const jsonSafe = (value: unknown): unknown => {
  if (typeof value === 'bigint') return addressHex(value)
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value
  if (Array.isArray(value)) return value.map(jsonSafe)
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, jsonSafe(field)]))
}

/** Adds util.inspect's method to `target`, an object or the prototype of objects; parameters as for `showAs`. */
export const inspectAs = <S extends object>(
  target: object,
  name: string,
  show: (self: S) => Shown,
  isInstance: (self: Partial<S>) => boolean = () => true,
): void => {
  Object.defineProperty(target, INSPECT, {
    configurable: true,
    value(this: S, depth: number, options: InspectOptions, inspect: Inspect): string {
      // Node also inspects prototypes, which are not instances.
      if (!isInstance(this) || depth < 0) return `[${name}]`
      const innerDepth = options.depth === null || options.depth === undefined ? null : options.depth - 1
      return `${name} ${inspect(show(this), { ...options, depth: innerDepth })}`
    },
  })
}

/**
 * Adds `toJSON` and util.inspect's method to `target`, an object or the prototype of objects. `name`: their kind;
 * `show`: the properties to show, JSON-safe; `isInstance`: false for the prototype itself.
 */
export const showAs = <S extends object>(
  target: object,
  name: string,
  show: (self: S) => Shown,
  isInstance: (self: Partial<S>) => boolean = () => true,
): void => {
  inspectAs(target, name, show, isInstance)
  Object.defineProperty(target, 'toJSON', {
    configurable: true,
    value(this: S | undefined): Shown {
      if (this === undefined || !isInstance(this)) throw withoutObject(`${name}.toJSON`)
      return show(this)
    },
  })
}

/** The result of `call`, or `fallback` if it throws: a closed object, or one of a removed device, can be shown too. */
export const orElse = <T>(call: () => T, fallback: T): T => {
  try {
    return call()
  } catch {
    return fallback
  }
}
