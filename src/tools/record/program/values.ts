/*
 * Program events as JSON, with the values that JSON lacks: 64-bit numbers, bytes, names of objects, maps, reasons,
 * infinity.
 */

import { bytesOfHex, hexBytes } from '../../../base/text.ts'
import type { ObjectName } from '../../../spec/check/program-events.ts'
import { Reason, reasonFrom } from '../../../spec/reason.ts'

export const isObjectName = (value: object): value is ObjectName =>
  'id' in value && 'handle' in value && 'class' in value

/** Most elements of a list in the arguments of a call that are recorded. */
const MAX_LIST = 256

/** A value for `JSON.stringify`. */
export const plainValue = (value: unknown): unknown => {
  if (typeof value === 'bigint') return { $n: value.toString() }
  if (typeof value === 'number') return Number.isFinite(value) ? value : { $f: String(value) }
  if (typeof value === 'function' || typeof value === 'symbol') return undefined
  if (typeof value !== 'object' || value === null) return value
  if (value instanceof Reason) return { $r: value }
  if (value instanceof Uint8Array) return { $b: hexBytes(value) }
  if (value instanceof Map) return { $m: [...value].map(pair => pair.map(plainValue)) }
  if (Array.isArray(value)) return value.slice(0, MAX_LIST).map(plainValue)
  if (isObjectName(value)) return { $o: [value.id, value.handle, value.class.name] }
  const plain: Record<string, unknown> = {}
  // Not Object.entries: a stack may be an accessor of the prototype's kind, and undefined fields are left out.
  for (const name in value) {
    const field = (value as Record<string, unknown>)[name]
    if (field !== undefined) plain[name] = plainValue(field)
  }
  return plain
}

/** The value that `plainValue` has made plain. `nameObject` returns the name of an object. */
export const richValue = (
  plain: unknown,
  nameObject: (id: number, handle: number, name: string) => ObjectName,
): unknown => {
  if (typeof plain !== 'object' || plain === null) return plain
  // A gap in a list, such as a table of GIDs, is null in JSON.
  if (Array.isArray(plain)) return plain.map(value => (value === null ? undefined : richValue(value, nameObject)))
  const { $n, $f, $b, $m, $o, $r } = plain as Readonly<Record<string, unknown>>
  if (typeof $n === 'string') return BigInt($n)
  if (typeof $f === 'string') return Number($f)
  if (typeof $b === 'string') return bytesOfHex($b)
  if ($r !== undefined) return reasonFrom($r)
  if (Array.isArray($m)) return new Map(richValue($m, nameObject) as [unknown, unknown][])
  if (Array.isArray($o)) return nameObject(Number($o[0]), Number($o[1]), String($o[2]))
  return Object.fromEntries(Object.entries(plain).map(([name, value]) => [name, richValue(value, nameObject)]))
}

/** The arguments of a probe as a key: a request is its id, a program its process. */
export const probeKey = (args: readonly unknown[]): string =>
  args
    .map(arg => {
      if (arg === undefined) return ''
      if (arg instanceof Uint8Array) return hexBytes(arg)
      if (typeof arg !== 'object' || arg === null) return String(arg)
      if ('wrId' in arg && 'id' in arg) return String(arg.id)
      return 'pid' in arg ? String(arg.pid) : String(arg)
    })
    .join(' ')
    .trimEnd()
