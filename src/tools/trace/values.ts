/*
 * Values of attributes as text and as JSON, by their kinds in spec/. In text, enumerations and flags are names,
 * addresses and keys hexadecimal, GIDs IPv6 addresses, and records {field value, …}. Text is abridged by default
 * (`ABRIDGED`).
 */

import { hexBytes } from '../../base/text.ts'
import type { AnyRecord, AnyValue, Attributes, Enumeration, Fields, Kind } from '../../spec/schema/schema.ts'
import { bytesText, gidText, groups, MAX_BYTES } from './bytes.ts'

/** Names of hexadecimal numbers: keys, QP numbers, PSNs, masks. Numbers of 24 bits are always hexadecimal. */
const HEX_NAME = /(key|Qpn|Psn|qpNum|Mask)$/

/** How much of a value is shown. */
export interface Style {
  /** Maximum fields of a record, records of a list, and bytes of a byte string. */
  readonly fields: number
  readonly records: number
  readonly bytes: number
  /** Whether zero fields are shown. */
  readonly showsZeros: boolean
}

export const ABRIDGED: Style = { fields: 8, records: 4, bytes: MAX_BYTES, showsZeros: false }
export const WHOLE: Style = {
  fields: Number.POSITIVE_INFINITY,
  records: Number.POSITIVE_INFINITY,
  bytes: Number.POSITIVE_INFINITY,
  showsZeros: true,
}

const enumText = (enumeration: Enumeration, value: number): string =>
  Object.keys(enumeration.values).find(name => enumeration.values[name] === value) ?? String(value)

const flagsText = (enumeration: Enumeration, value: number): string => {
  let remainingBits = value >>> 0
  const names: string[] = []
  for (const [name, bits] of Object.entries<number>(enumeration.values)) {
    const isSet = bits !== 0 && (value & bits) >>> 0 === bits >>> 0
    const isAlreadyNamed = (remainingBits & bits) === 0
    if (!isSet || isAlreadyNamed) continue
    names.push(name)
    remainingBits = (remainingBits & ~bits) >>> 0
  }
  if (remainingBits !== 0 || names.length === 0)
    names.push(remainingBits === 0 ? '0' : `0x${remainingBits.toString(16)}`)
  return names.join('|')
}

/** Three or more bytes of printable ASCII, at most 2 × `style.bytes`, as text in quotes. Other bytes in hexadecimal. */
const blobText = (bytes: Uint8Array, style: Style): string =>
  bytes.length > 2 && bytes.length <= style.bytes * 2 && bytes.every(byte => byte >= 0x20 && byte < 0x7f)
    ? JSON.stringify(new TextDecoder().decode(bytes))
    : bytesText(bytes, style.bytes)

const isZero = (value: AnyValue | undefined): boolean =>
  value === undefined ||
  value === 0 ||
  value === 0n ||
  (value instanceof Uint8Array && value.every(byte => byte === 0)) ||
  (Array.isArray(value) && value.length === 0)

const recordText = (fields: Fields, value: AnyRecord, style: Style): string => {
  const shown = Object.entries(fields).filter(([name]) =>
    style.showsZeros ? value[name] !== undefined : !isZero(value[name]),
  )
  const texts = shown
    .slice(0, style.fields)
    .map(([name, { type }]) => `${name} ${valueText(name, type, value[name]!, style)}`)
  return `{${[...texts, ...(shown.length > style.fields ? ['…'] : [])].join(', ')}}`
}

/** `name`: of the attribute or field. */
export const valueText = (name: string, type: Kind, value: AnyValue, style: Style = ABRIDGED): string => {
  switch (type.kind) {
    case 'u8':
    case 'u16':
    case 'u32':
      return type.max === 0xffffff || HEX_NAME.test(name) ? `0x${Number(value).toString(16)}` : String(value)
    case 'u64': {
      // Below 4 GiB it is probably a length, otherwise an address.
      const number = BigInt(value as bigint)
      return number < 1n << 32n ? String(number) : `0x${number.toString(16)}`
    }
    case 'bytes':
      // 16 bytes are a GID, 8 bytes a GUID.
      if (type.size === 16) return gidText(value as Uint8Array)
      return type.size === 8
        ? groups(value as Uint8Array)
            .map(word => word.padStart(4, '0'))
            .join(':')
        : bytesText(value as Uint8Array, style.bytes)
    case 'blob':
      return blobText(value as Uint8Array, style)
    case 'enum':
      return enumText(type.enumeration, Number(value))
    case 'flags':
      return flagsText(type.enumeration, Number(value))
    case 'ref':
      return String(value)
    case 'fd':
      return `fd ${value}`
    case 'record':
      return recordText(type.fields, value as AnyRecord, style)
    case 'list': {
      const records = value as AnyRecord[]
      const texts = records.slice(0, style.records).map(entry => recordText(type.fields, entry, style))
      const hiddenRecords = records.length - style.records
      return `[${[...texts, ...(hiddenRecords > 0 ? [`… ${hiddenRecords} more`] : [])].join(', ')}]`
    }
  }
}

/** For `JSON.stringify`: enumerations as names, flags as lists of names, 64-bit numbers as text, bytes as hex. */
export const valueJson = (type: Kind, value: AnyValue): unknown => {
  switch (type.kind) {
    case 'u64':
      return String(value)
    case 'bytes':
    case 'blob':
      return hexBytes(value as Uint8Array)
    case 'enum':
      return enumText(type.enumeration, Number(value))
    case 'flags':
      return Number(value) === 0 ? [] : flagsText(type.enumeration, Number(value)).split('|')
    case 'record':
      return recordJson(type.fields, value as AnyRecord)
    case 'list':
      return (value as AnyRecord[]).map(entry => recordJson(type.fields, entry))
    default:
      return value
  }
}
const recordJson = (fields: Fields, value: AnyRecord): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(fields)
      .filter(([name]) => value[name] !== undefined)
      .map(([name, { type }]) => [name, valueJson(type, value[name]!)]),
  )

export interface ShownValues {
  /** By attribute name. */
  readonly values: Readonly<Record<string, AnyValue | undefined>>
  /** Names of values that are numbers of chain entries. */
  readonly chained?: ReadonlySet<string>
}

/** `name value` of each present attribute, in the order of the declaration. */
export const attributesText = (
  attributes: Attributes,
  { values, chained }: ShownValues,
  style: Style = ABRIDGED,
): string[] =>
  Object.entries(attributes).flatMap(([name, { type }]) => {
    const value = values[name]
    if (value === undefined) return []
    return [chained?.has(name) ? `${name} entry ${value}` : `${name} ${valueText(name, type, value, style)}`]
  })

/** Each present attribute for `JSON.stringify`. */
export const attributesJson = (attributes: Attributes, { values, chained }: ShownValues): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(attributes).flatMap(([name, { type }]) => {
      const value = values[name]
      if (value === undefined) return []
      return [[name, chained?.has(name) ? { entry: value } : valueJson(type, value)]]
    }),
  )
