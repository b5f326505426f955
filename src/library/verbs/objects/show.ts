/*
 * What `console.log` and `JSON.stringify` show of the library's objects: the main properties. Addresses are text,
 * because JSON has no bigints.
 */
import { withoutObject } from '../error.ts'

/** The symbol of Node's util.inspect, without importing it: browsers have none. */
const INSPECT = Symbol.for('nodejs.util.inspect.custom')

export type Shown = Readonly<Record<string, unknown>>
type Inspect = (value: unknown, options: object) => string

export const addressHex = (address: bigint): string => `0x${address.toString(16)}`

/** `value` with its bigints as text ('0x…'), in lists and records too. */
export const jsonSafe = (value: unknown): unknown => {
  if (typeof value === 'bigint') return addressHex(value)
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value
  if (Array.isArray(value)) return value.map(jsonSafe)
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, jsonSafe(field)]))
}

/**
 * What is shown of a closed object: no handle, and no properties that only the device knows. They are undefined: the
 * object can no longer be queried.
 */
export const shownClosed = ({ handle: _, ...shown }: Shown): Shown => ({
  ...Object.fromEntries(Object.entries(shown).filter(([, value]) => value !== undefined)),
  closed: true,
})

/** Adds util.inspect's method to `target`. Parameters: see `showAs`. */
export const inspectAs = <S extends object>(
  target: object,
  name: string,
  show: (self: S) => Shown,
  isInstance: (self: Partial<S>) => boolean = () => true,
): void => {
  Object.defineProperty(target, INSPECT, {
    configurable: true,
    value(this: S, depth: number | null, options: object, inspect: Inspect): string {
      // Node also inspects prototypes, which are not instances.
      if (!isInstance(this) || (depth !== null && depth < 0)) return `[${name}]`
      return `${name} ${inspect(show(this), { ...options, depth })}`
    },
  })
}

/**
 * Adds `toJSON` and util.inspect's method to `target`, an object or a prototype. `name`: the kind of object; `show`:
 * returns the properties to show, JSON-safe; `isInstance`: false for the prototype itself.
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

/** The result of `call`; `fallback` if it throws, because the object is closed or the device removed. */
export const orElse = <T>(call: () => T, fallback: T): T => {
  try {
    return call()
  } catch {
    return fallback
  }
}
