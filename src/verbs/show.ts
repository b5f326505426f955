/*
 * What `console.log` and `JSON.stringify` show of objects of the library: what a person wants to know, in place of what
 * they are made of. Nothing of it is hot. JSON has no 64-bit numbers: addresses are text.
 */
import { detached } from './error.ts'

/** Where Node's util.inspect looks, without importing it: a browser has none. */
const INSPECT = Symbol.for('nodejs.util.inspect.custom')

export type Shown = Readonly<Record<string, unknown>>
type Inspect = (value: unknown, options: object) => string
interface InspectOptions {
  readonly depth?: number | null
}

export const addressHex = (address: bigint): string => `0x${address.toString(16)}`

/** The same value with numbers of 64 bits as text. */
export const jsonSafe = (value: unknown): unknown => {
  if (typeof value === 'bigint') return addressHex(value)
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value
  if (Array.isArray(value)) return value.map(jsonSafe)
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, jsonSafe(one)]))
}

/** What util.inspect shows of `target`, or of the objects whose methods or prototype it is. */
export const inspectAs = <S extends object>(
  target: object,
  name: string,
  show: (self: S) => Shown,
  isOne: (self: Partial<S>) => boolean = () => true,
): void => {
  Object.defineProperty(target, INSPECT, {
    configurable: true,
    value(this: S, depth: number, options: InspectOptions, inspect: Inspect): string {
      // Node shows prototypes too, which are no objects of the kind.
      if (!isOne(this) || depth < 0) return `[${name}]`
      const inner = options.depth === null || options.depth === undefined ? null : options.depth - 1
      return `${name} ${inspect(show(this), { ...options, depth: inner })}`
    },
  })
}

/**
 * Gives `target`, an object or the table of its methods, `toJSON` and what util.inspect asks for. `name`: what kind of
 * object it is; `show`: what is shown of it, JSON-safe; `isOne`: whether it is an object of the kind.
 */
export const showAs = <S extends object>(
  target: object,
  name: string,
  show: (self: S) => Shown,
  isOne: (self: Partial<S>) => boolean = () => true,
): void => {
  inspectAs(target, name, show, isOne)
  Object.defineProperty(target, 'toJSON', {
    configurable: true,
    value(this: S | undefined): Shown {
      if (this === undefined || !isOne(this)) throw detached(`${name}.toJSON`)
      return show(this)
    },
  })
}

/** What a call answers, or `instead` where the object is closed or its device gone: showing something never throws. */
export const orElse = <T>(call: () => T, instead: T): T => {
  try {
    return call()
  } catch {
    return instead
  }
}
