/*
 * Encoding of values by their kinds, little-endian, and the check of their limits (R3, R4).
 *
 * Numbers of up to 32 bits are JavaScript numbers, of 64 bits bigints. Byte strings that are read are copies.
 */
import { CallError, callError } from '../spec/errno.ts'
import { because, coded, fieldOf, listOf, type Place, type Reason, the } from '../spec/reason.ts'
import {
  type AnyRecord,
  type AnyValue,
  type Enumeration,
  type Fields,
  type Kind,
  type RecordOf,
  recordSize,
  sizeOf,
} from '../spec/schema/schema.ts'
import { HIGHEST } from './argument-check.ts'

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** The unsigned number in `size` bytes (1, 2, 4) at `at`. */
export const readUint = (view: DataView, at: number, size: number): number =>
  size === 1 ? view.getUint8(at) : size === 2 ? view.getUint16(at, true) : view.getUint32(at, true)

export const writeUint = (view: DataView, at: number, size: number, value: number): void => {
  if (size === 1) view.setUint8(at, value)
  else if (size === 2) view.setUint16(at, value, true)
  else view.setUint32(at, value, true)
}

/** Up to this many bytes are copied in a loop, which is faster than creating a Uint8Array. */
const MAX_LOOP_COPY = 64

const readBytes = (view: DataView, at: number, size: number): Uint8Array => {
  const bytes = new Uint8Array(size)
  if (size > MAX_LOOP_COPY) bytes.set(new Uint8Array(view.buffer, view.byteOffset + at, size))
  else for (let i = 0; i < size; i++) bytes[i] = view.getUint8(at + i)
  return bytes
}

/** Writes at most `size` of `bytes` at `at`. */
export const writeBytes = (view: DataView, at: number, size: number, bytes: Uint8Array): void => {
  const length = Math.min(size, bytes.length)
  if (length > MAX_LOOP_COPY) new Uint8Array(view.buffer, view.byteOffset + at, length).set(bytes.subarray(0, length))
  else for (let i = 0; i < length; i++) view.setUint8(at + i, bytes[i]!)
}

/**
 * The value, not a record or list, in `size` bytes at `at`. A kind of at most 32 bits may occupy 8 bytes: throws
 * CallError EINVAL if the number does not fit 32 bits. `where` begins the message.
 */
export const readScalar = (
  view: DataView,
  at: number,
  size: number,
  type: Kind,
  where: Place,
): number | bigint | Uint8Array => {
  if (type.kind === 'bytes' || type.kind === 'blob') return readBytes(view, at, size)
  if (type.kind === 'fd') return view.getInt32(at, true)
  if (type.kind === 'u64') return size === 8 ? view.getBigUint64(at, true) : BigInt(readUint(view, at, size))
  if (size < 8) return readUint(view, at, size)
  const wide = view.getBigUint64(at, true)
  if (wide > 0xffffffffn) throw callError.EINVAL`${where}: ${wide} does not fit 32 bits`
  return Number(wide)
}

/** Writes a value, not a record or list, into `size` bytes at `at`. Longer byte strings are truncated. */
export const writeScalar = (view: DataView, at: number, size: number, type: Kind, value: AnyValue): void => {
  if (type.kind === 'bytes' || type.kind === 'blob') writeBytes(view, at, size, value as Uint8Array)
  else if (size === 8) view.setBigUint64(at, BigInt.asUintN(64, BigInt(value as number | bigint)), true)
  else writeUint(view, at, size, Number(value))
}

// ---- limits ----

const enumerationValues = new WeakMap<Enumeration, ReadonlySet<number>>()
const valuesOf = (enumeration: Enumeration): ReadonlySet<number> => {
  const found = enumerationValues.get(enumeration)
  if (found !== undefined) return found
  const values = new Set(Object.values(enumeration.values))
  enumerationValues.set(enumeration, values)
  return values
}

/** All named bits. */
const bitsOf = (enumeration: Enumeration): number => {
  let bits = 0
  for (const bit of valuesOf(enumeration)) bits |= bit
  return bits
}

/** A value as text. Strings are quoted, so that '1' differs from 1. Of objects only the type: some have no text. */
const textOf = (value: unknown): string => {
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return 'a function'
  return typeof value === 'object' && value !== null ? Object.prototype.toString.call(value) : String(value)
}

const bytesProblem = (value: unknown, size: string): Reason =>
  value instanceof Uint8Array
    ? because`${value.length} bytes, must be ${size}`
    : because`must be a Uint8Array of ${size} bytes`

const numberProblem = (value: unknown, max: number): Reason | undefined =>
  typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > max
    ? because`${textOf(value)} is not a whole number from 0 to ${max}`
    : undefined

/**
 * What is wrong with a value at `place`; undefined if the value is valid. `strict`: as for `checkValue`. `path`: of the
 * field of a record.
 */
export const problemOf = (place: Place, type: Kind, value: unknown, strict: boolean, path = ''): Reason | undefined => {
  if (type.kind === 'record') {
    if (typeof value !== 'object' || value === null) return because`${fieldOf(place, path)}: must be a record`
    for (const name in type.fields) {
      const field = (value as Readonly<Record<string, unknown>>)[name]
      const problem = problemOf(place, type.fields[name]!.type, field, strict, `${path}.${name}`)
      if (problem !== undefined) return problem
    }
    return undefined
  }
  if (type.kind === 'list') {
    if (!Array.isArray(value) || value.length > type.max)
      return because`${fieldOf(place, path)}: must be a list of at most ${type.max} records`
    const item: Kind = { kind: 'record', fields: type.fields }
    for (let i = 0; i < value.length; i++) {
      const problem = problemOf(place, item, value[i], strict, `${path}[${i}]`)
      if (problem !== undefined) return problem
    }
    return undefined
  }
  const problem = scalarProblem(type, value, strict)
  return problem && because`${fieldOf(place, path)}: ${problem}`
}

const scalarProblem = (type: Kind, value: unknown, strict: boolean): Reason | undefined => {
  switch (type.kind) {
    case 'u8':
    case 'u16':
    case 'u32': {
      const problem = numberProblem(value, HIGHEST[type.kind])
      if (problem !== undefined) return problem
      const n = value as number
      if (type.min !== undefined && n < type.min) return coded('out-of-range')`${n} is below ${type.min}`
      return type.max !== undefined && n > type.max ? coded('out-of-range')`${n} is above ${type.max}` : undefined
    }
    case 'enum': {
      if (valuesOf(type.enumeration).has(value as number)) return undefined
      const { name, values } = type.enumeration
      const known = Object.entries(values).map(([constant, n]) => because`${n} ${the.constant(name, constant)}`)
      return coded('not-in-enum')`${textOf(value)} is not a value of ${the.enumeration(name)} (${listOf(known)})`
    }
    case 'flags': {
      const problem = numberProblem(value, 2 ** (8 * type.width) - 1)
      if (problem !== undefined || !strict || value === 0) return problem
      const unknown = (value as number) & ~bitsOf(type.enumeration)
      return unknown === 0
        ? undefined
        : because`${the.enumeration(type.enumeration.name)} has no bits 0x${(unknown >>> 0).toString(16)}`
    }
    case 'ref':
      return numberProblem(value, 0xffffffff)
    case 'fd':
      return numberProblem(value, 0x7fffffff)
    case 'u64':
      return typeof value === 'bigint' && value >= 0n && value < 1n << 64n
        ? undefined
        : because`${textOf(value)} is not a 64-bit number`
    case 'bytes':
      return value instanceof Uint8Array && value.length === type.size ? undefined : bytesProblem(value, `${type.size}`)
    case 'blob':
      return value instanceof Uint8Array && value.length <= type.max
        ? undefined
        : bytesProblem(value, `at most ${type.max}`)
    default:
      return undefined
  }
}

/**
 * Throws CallError EINVAL if a value is not of type `type`, or outside its limits. `strict`: refuses unnamed bits of
 * flags; otherwise the handler decides which bits the device accepts.
 */
export const checkValue = (place: Place, type: Kind, value: unknown, strict = false): void => {
  const problem = problemOf(place, type, value, strict)
  if (problem !== undefined) throw new CallError('EINVAL', problem)
}

// ---- records ----

/** A field of a record, prepared once. */
interface PreparedField {
  readonly name: string
  readonly offset: number
  readonly size: number
  readonly type: Kind
  /** Whether the field is an unsigned number of at most 32 bits. */
  readonly isUint: boolean
  /** The fields of a nested record; undefined for other kinds. */
  readonly fields: Fields | undefined
}

const isUint = (type: Kind): boolean =>
  type.kind !== 'fd' && type.kind !== 'u64' && type.kind !== 'bytes' && type.kind !== 'blob' && sizeOf(type) <= 4

const preparedFields = new WeakMap<Fields, readonly PreparedField[]>()
const prepare = (fields: Fields): readonly PreparedField[] => {
  let prepared = preparedFields.get(fields)
  if (prepared === undefined) {
    prepared = Object.entries(fields).map(([name, { offset, type }]) => {
      const inner = type.kind === 'record' ? type.fields : undefined
      return { name, offset, size: sizeOf(type), type, isUint: inner === undefined && isUint(type), fields: inner }
    })
    preparedFields.set(fields, prepared)
  }
  return prepared
}

/** Writes a record's fields at `at`. Absent fields keep their bytes. */
export const writeRecord = (view: DataView, at: number, fields: Fields, record: AnyRecord): void => {
  const prepared = prepare(fields)
  for (let i = 0; i < prepared.length; i++) {
    const field = prepared[i]!
    const value = record[field.name]
    if (value === undefined) continue
    if (field.isUint) writeUint(view, at + field.offset, field.size, Number(value))
    else if (field.fields !== undefined) writeRecord(view, at + field.offset, field.fields, value as AnyRecord)
    else writeScalar(view, at + field.offset, field.size, field.type, value)
  }
}

/** Reads a record's fields at `at`. All bytes of the record must be present. `where`: for `readScalar`. */
export const readRecord = <F extends Fields>(view: DataView, at: number, fields: F, where: Place): RecordOf<F> => {
  const record: AnyRecord = {}
  const prepared = prepare(fields)
  for (let i = 0; i < prepared.length; i++) {
    const field = prepared[i]!
    const offset = at + field.offset
    if (field.isUint) record[field.name] = readUint(view, offset, field.size)
    else if (field.fields !== undefined) record[field.name] = readRecord(view, offset, field.fields, where)
    else record[field.name] = readScalar(view, offset, field.size, field.type, where)
  }
  return record as RecordOf<F>
}

/** The record at the start of `bytes`, which must have all its bytes; for calls of drivers. */
export const decodeRecord = <F extends Fields>(fields: F, bytes: Uint8Array): RecordOf<F> =>
  readRecord(viewOf(bytes), 0, fields, 'record')

/** Writes consecutive records at `at`. Absent fields keep their bytes. */
export const writeRecords = (view: DataView, at: number, fields: Fields, records: readonly AnyRecord[]): void => {
  const size = recordSize(fields)
  for (let i = 0; i < records.length; i++) writeRecord(view, at + i * size, fields, records[i]!)
}

/** Consecutive records in a new array. Absent fields are 0. */
export const encodeRecords = (fields: Fields, records: readonly AnyRecord[]): Uint8Array => {
  const bytes = new Uint8Array(recordSize(fields) * records.length)
  writeRecords(viewOf(bytes), 0, fields, records)
  return bytes
}
