/*
 * Names and units of queue pair attributes. `query`, `modify` and `initial` have the attributes of the class by the
 * names of the library's options, where these differ, and the path MTU in bytes, as the option has it.
 */
import { Mtu } from '../../../spec/enums.ts'
import { mtuBytes, mtuEnum } from '../../../spec/mtu.ts'
import { formatValue, invalidArgument } from '../error.ts'

/** The library's names by the names of the class. */
const libraryNames = { timeout: 'ackTimeoutExponent', retryCnt: 'retryCount', rnrRetry: 'rnrRetryCount' } as const
type LibraryNames = typeof libraryNames

/** The attributes `A` of a class by the library's names. */
export type LibraryAttributes<A> = {
  [K in keyof A as K extends keyof LibraryNames ? LibraryNames[K] : K]: A[K]
}

const renamed = (attributes: object, names: Readonly<Record<string, string>>): object =>
  Object.fromEntries(Object.entries(attributes).map(([name, value]) => [names[name] ?? name, value]))

const classNames = Object.fromEntries(Object.entries(libraryNames).map(([name, option]) => [option, name]))

const mtuCodes: readonly unknown[] = Object.values(Mtu.values)
const isMtuCode = (value: unknown): boolean => mtuCodes.includes(value)

/** The ibv_mtu of an MTU in bytes: 1 for 256, 5 for 4096. Throws RdmaError EINVAL. */
export const mtuCode = (call: string, bytes: unknown): number => {
  const code = typeof bytes === 'number' ? mtuEnum(bytes) : Number.NaN
  if (isMtuCode(code)) return code
  throw invalidArgument(call, `pathMtu ${formatValue(bytes)} is not 256, 512, 1024, 2048 or 4096`)
}

interface WithMtu {
  readonly pathMtu?: unknown
}

/**
 * Attributes of the class, from attributes with the library's or the class's names and units: no path MTU in bytes is a
 * number of enum ibv_mtu too. Throws RdmaError EINVAL.
 */
export const toClassAttributes = <A extends object>(call: string, attributes: A): A => {
  const args = renamed(attributes, classNames) as A
  const { pathMtu } = args as WithMtu
  return pathMtu === undefined || isMtuCode(pathMtu) ? args : { ...args, pathMtu: mtuCode(call, pathMtu) }
}

/** Attributes with the library's names and units. A path MTU of 0 is not set. */
export const toLibraryAttributes = (attributes: object): object => {
  const named = renamed(attributes, libraryNames)
  const { pathMtu } = named as WithMtu
  return typeof pathMtu === 'number' && pathMtu > 0 ? { ...named, pathMtu: mtuBytes(pathMtu) } : named
}
