/*
 * What values of options are: how a text is read, what is allowed, and what shells complete. A wrong value is a
 * UsageError that names the option, the value and what is allowed.
 */
import { parseWho, WHO_RANGES } from '../../settings/who.ts'
import { UsageError } from '../fail.ts'

export interface Kind<T> {
  /** The value of the text. Throws UsageError. `flag`: the option, `--record`. */
  read(text: string, flag: string): T
  /** The values, if they are few, with their meanings; '' for none. */
  readonly values?: Readonly<Record<string, string>>
  /** The first of `values` is the default. */
  readonly isFirstDefault?: true
  /** Paths, which shells complete. */
  readonly isPath?: true
}

const refuse = (flag: string, text: string, allowed: string): never => {
  throw new UsageError(`${flag} "${text}"${allowed}`)
}

/** Any text: the command reads it. */
export const text: Kind<string> = { read: given => given }

/**
 * The path of a file, folder or socket. An empty one would be the current folder: a variable of a script was not set.
 */
export const path: Kind<string> = {
  read: (given, flag) => (given === '' ? refuse(flag, given, ': give a path') : given),
  isPath: true,
}

const oneOf = <T extends string>(values: Readonly<Record<T, string>>, given: string, flag: string): T =>
  Object.hasOwn(values, given) ? (given as T) : refuse(flag, given, ` is not one of ${Object.keys(values).join(', ')}`)

const valuesOf = <T extends string>(names: readonly T[] | Readonly<Record<T, string>>): Readonly<Record<T, string>> =>
  Array.isArray(names)
    ? (Object.fromEntries(names.map(name => [name, ''])) as Record<T, string>)
    : (names as Readonly<Record<T, string>>)

/** One of the names, which may have meanings. */
export const choice = <T extends string>(names: readonly T[] | Readonly<Record<T, string>>): Kind<T> => {
  const values = valuesOf(names)
  return { read: (given, flag) => oneOf(values, given, flag), values }
}

/** One of the names, with their meanings; the first is the default. */
export const meaning = <T extends string>(values: Readonly<Record<T, string>>): Kind<T> => ({
  ...choice(values),
  isFirstDefault: true,
})

/** Some of the names, separated by commas, each once, in the order of the user. */
export const list = <T extends string>(names: readonly T[] | Readonly<Record<T, string>>): Kind<readonly T[]> => {
  const values = valuesOf(names)
  return { read: (given, flag) => [...new Set(given.split(',').map(name => oneOf(values, name.trim(), flag)))], values }
}

/** A whole number; hexadecimal after 0x. */
export const integer = (least: number, most: number): Kind<number> => ({
  read(given, flag) {
    const value = /^(?:\d{1,15}|0x[\da-f]{1,12})$/i.test(given) ? Number(given) : Number.NaN
    return value >= least && value <= most ? value : refuse(flag, given, `: give an integer from ${least} to ${most}`)
  },
})

/** A number with a fraction. `what`: of what. */
export const decimal = (least: number, most: number, what = ''): Kind<number> => ({
  read(given, flag) {
    const value = /^(?:\d+\.?\d*|\.\d+)$/.test(given) ? Number(given) : Number.NaN
    const range = most === Number.POSITIVE_INFINITY ? ', such as 1.5' : ` from ${least} to ${most}`
    return value >= least && value <= most ? value : refuse(flag, given, `: give a number${what}${range}`)
  },
})

/** A number of lines from 1 on, `all` or `off`. */
export const lines: Kind<number> = {
  read(given, flag) {
    if (given === 'off') return 0
    if (given === 'all') return Number.POSITIVE_INFINITY
    return /^[1-9]\d{0,8}$/.test(given) ? Number(given) : refuse(flag, given, ': give a number of lines, all or off')
  },
}

/** A range of `--who`, as text. */
export const whoRange: Kind<string> = {
  read: (given, flag) => (parseWho(given) === undefined ? refuse(flag, given, `: give ${WHO_RANGES}`) : given),
}

const MIB = 2 ** 20
const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: MIB, G: 2 ** 30 }

/** Bytes, such as 64M; at least a MiB, as recordings and flight recorders need. */
export const size: Kind<number> = {
  read(given, flag) {
    const [, digits, unit = ''] = /^(\d{1,12})([KMG]?)$/i.exec(given) ?? []
    const bytes = Number(digits) * (UNITS[unit.toUpperCase()] ?? Number.NaN)
    return bytes >= MIB ? bytes : refuse(flag, given, ': give bytes, such as 64M or 1G; at least 1M')
  },
}

/** The names as words after a colon: `memory (…; the default), udp (…)`. */
export const valuesText = ({ values = {}, isFirstDefault }: Kind<unknown>): string => {
  const words = Object.entries(values).map(([name, about], i) => {
    const notes = [about, isFirstDefault && i === 0 ? 'the default' : ''].filter(Boolean).join('; ')
    return notes === '' ? name : `${name} (${notes})`
  })
  return words.length === 0 ? '' : `: ${words.join(', ')}`
}
