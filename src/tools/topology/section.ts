/*
 * Settings of files and objects that describe networks: maps whose values have units. An error names the setting by its
 * path, the value as written, and what is allowed; of a file, also line and column.
 */

import { linkQuantities } from '../../base/quantities.ts'
import { didYouMean } from '../../base/suggest.ts'
import { LineRate } from '../../spec/congestion.ts'
import { InputError } from './input-error.ts'

/** One hour, µs. */
const MAX_TIME = 3.6e9
export const SIZES: Readonly<Record<string, number>> = { b: 1, kb: 1e3, mb: 1e6, gb: 1e9, kib: 2 ** 10, mib: 2 ** 20 }
const TIMES: Readonly<Record<string, number>> = { ns: 1e-3, us: 1, ms: 1e3, s: 1e6 }

/** The text of a value that has a unit or is a number; '' for other values, of which some have no text. */
const textOf = (value: unknown): string => (typeof value === 'string' || typeof value === 'number' ? String(value) : '')

/** A number with one of the units; undefined for any other text. */
export const withUnit = (value: unknown, units: Readonly<Record<string, number>>): number | undefined => {
  const [, digits, unit] = /^(\d+\.?\d*|\.\d+)([a-z]+)$/i.exec(textOf(value)) ?? []
  const scale = unit === undefined ? undefined : units[unit.toLowerCase()]
  return digits === undefined || scale === undefined ? undefined : Number(digits) * scale
}

/** Of numbers that were multiplied: 0.0011 ms is 1.1 µs. */
const DIGITS = 12

/** A value as written, also one that JSON cannot write. */
export const shown = (value: unknown): string => {
  if (typeof value === 'number' || value === undefined) return String(value)
  if (typeof value === 'bigint') return `${value}n`
  try {
    return JSON.stringify(value) ?? String(value)
  } catch {
    return Array.isArray(value) ? 'a list' : 'an object'
  }
}

/** Keys of maps and positions in lists, from the root of a document. */
export type Place = readonly (string | number)[]

/** A file, for messages. */
interface Source {
  /** File, line and column of what is at a place, `lab.yaml:3:5`; of the last that exists. */
  at(place: Place): string
}

/** A map, whose settings are read one by one. */
export class Section {
  readonly #path: string
  readonly #source: Source | undefined
  readonly #place: Place
  readonly #entries: Readonly<Record<string, unknown>>
  /** Sizes may be numbers of bytes, and times numbers of milliseconds. */
  readonly #hasNumbers: boolean

  /**
   * Throws an InputError if `value` is no map, or has other keys than `keys` (undefined: any). `source`: the file,
   * which begins messages; `place`: where the map is in it.
   */
  constructor(
    source: Source | undefined,
    path: string,
    value: unknown,
    keys: readonly string[] | undefined,
    hasNumbers = false,
    place: Place = [],
  ) {
    this.#source = source
    this.#place = place
    this.#path = path
    this.#hasNumbers = hasNumbers
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      this.complain('', `${shown(value)}: give a map${keys === undefined ? '' : ` with ${keys.join(', ')}`}`)
    this.#entries = value as Record<string, unknown>
    for (const key of Object.keys(this.#entries))
      if (keys?.includes(key) === false)
        this.complain(key, `there is no such setting${didYouMean(key, keys)}; there are ${keys.join(', ')}`)
  }

  complain(key: string, message: string): never {
    const path = [this.#path, key].filter(part => part !== '').join('.')
    const at = this.#source?.at(key === '' ? this.#place : [...this.#place, key]) ?? ''
    throw new InputError([at, path, message].filter(part => part !== '').join(': '))
  }
  has(key: string): boolean {
    return this.#entries[key] !== undefined
  }
  keys(): string[] {
    return Object.keys(this.#entries)
  }
  raw(key: string): unknown {
    return this.#entries[key]
  }
  section(key: string, keys: readonly string[]): Section {
    return this.#child(key, [key], this.raw(key), keys)
  }
  /** A map of any keys. */
  map(key: string): Section {
    return this.#child(key, [key], this.raw(key), undefined)
  }
  /** The map at a position of a list. */
  item(key: string, index: number, value: unknown, keys: readonly string[]): Section {
    return this.#child(`${key}[${index}]`, [key, index], value, keys)
  }
  #child(name: string, place: Place, value: unknown, keys: readonly string[] | undefined): Section {
    const path = [this.#path, name].filter(part => part !== '').join('.')
    return new Section(this.#source, path, value, keys, this.#hasNumbers, [...this.#place, ...place])
  }
  #read<T>(key: string, fallback: T | undefined, parse: (value: unknown) => T | undefined, allowed: string): T {
    const value = this.raw(key)
    if (value === undefined) {
      if (fallback === undefined) this.complain(key, `is missing: give ${allowed}`)
      return fallback as T
    }
    return parse(value) ?? this.complain(key, `${shown(value)}: give ${allowed}`)
  }
  #number(value: unknown, scale: number): number | undefined {
    return this.#hasNumbers && typeof value === 'number' ? Number((value * scale).toPrecision(DIGITS)) : undefined
  }
  integer(key: string, fallback: number | undefined, min: number, max: number): number {
    const isAllowed = (value: unknown) =>
      Number.isInteger(value) && (value as number) >= min && (value as number) <= max
    return this.#read(
      key,
      fallback,
      value => (isAllowed(value) ? (value as number) : undefined),
      `an integer from ${min} to ${max}`,
    )
  }
  size(key: string, fallback: number | undefined, min: number, max: number): number {
    const parse = (value: unknown) => {
      const bytes = this.#number(value, 1) ?? withUnit(value, SIZES)
      return bytes !== undefined && Number.isInteger(bytes) && bytes >= min && bytes <= max ? bytes : undefined
    }
    return this.#read(key, fallback, parse, `bytes with a unit (b, kb, mb, gb, kib, mib), from ${min}b to ${max}b`)
  }
  /** µs. */
  time(key: string, fallback: number | undefined, min = 0, max = MAX_TIME): number {
    const parse = (value: unknown) => {
      const time = this.#number(value, TIMES.ms!) ?? withUnit(value, TIMES)
      return time !== undefined && time >= min && time <= max ? time : undefined
    }
    return this.#read(
      key,
      fallback,
      parse,
      `a time with a unit (ns, us, ms, s), ${min > 0 ? `from ${min}us ` : ''}up to ${max / 1e6}s`,
    )
  }
  rate(key: string, fallback: number | undefined): number {
    const parse = (value: unknown) => {
      const rate = linkQuantities.rate.read(textOf(value))
      return rate !== undefined && rate >= LineRate.MIN && rate <= LineRate.MAX ? rate : undefined
    }
    return this.#read(key, fallback, parse, 'a rate from 1mbit to 800gbit, like 40gbit')
  }
  probability(key: string, fallback: number): number {
    const parse = (value: unknown) =>
      typeof value === 'number' && value >= 0 && value <= 1 ? value : linkQuantities.loss.read(textOf(value))
    return this.#read(key, fallback, parse, linkQuantities.loss.allowed)
  }
  oneOf<T extends string>(key: string, allowed: readonly T[]): T {
    const parse = (value: unknown) => allowed.find(one => one === value)
    return this.#read(key, undefined, parse, allowed.join(', '))
  }
  flag(key: string, fallback: boolean): boolean {
    const parse = (value: unknown) => (typeof value === 'boolean' ? value : undefined)
    return this.#read(key, fallback, parse, 'true or false')
  }
  text(key: string, fallback?: string): string {
    return this.#read(key, fallback, value => (typeof value === 'string' ? value : undefined), 'a text')
  }
  list<T extends string>(key: string, allowed: readonly T[]): readonly T[] {
    const parse = (value: unknown) => {
      const items = Array.isArray(value) ? value : [value]
      const found = items.flatMap(item => allowed.find(one => one === item) ?? [])
      return found.length === items.length && new Set(found).size === found.length && found.length > 0
        ? found
        : undefined
    }
    return this.#read(
      key,
      allowed,
      parse,
      `one or several of ${allowed.join(', ')}, as [${allowed.slice(0, 2).join(', ')}]`,
    )
  }
}
