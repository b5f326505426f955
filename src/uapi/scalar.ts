/*
 * One value of one kind in bytes, little-endian, and the check of its limits. Shared by all dialects (R3, R4).
 *
 * Numbers up to 32 bits are JavaScript numbers, 64 bits are bigints, byte strings are copies. Nothing here knows
 * messages.
 */
import { CallError } from '../spec/errno.ts'
import {
  type AnyRecord,
  type AnyValue,
  type Enumeration,
  type Fields,
  type Kind,
  recordSize,
  sizeOf,
} from '../spec/schema.ts'

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** The unsigned number in `size` bytes (1, 2, 4) at `at`. */
export const readUint = (view: DataView, at: number, size: number): number =>
  size === 1 ? view.getUint8(at) : size === 2 ? view.getUint16(at, true) : view.getUint32(at, true)

export const writeUint = (view: DataView, at: number, size: number, value: number): void => {
  if (size === 1) view.setUint8(at, value)
  else if (size === 2) view.setUint16(at, value, true)
  else view.setUint32(at, value, true)
}

/**
 * A value of kind `of` in `size` bytes at `at`. A number in 8 bytes that does not fit 32 bits is EINVAL, as Linux
 * refuses such constants; `where` names it then.
 */
export const readScalar = (
  view: DataView,
  at: number,
  size: number,
  of: Kind,
  where: string,
): number | bigint | Uint8Array => {
  if (of.kind === 'bytes' || of.kind === 'blob')
    return new Uint8Array(view.buffer.slice(view.byteOffset + at, view.byteOffset + at + size))
  if (of.kind === 'fd') return view.getInt32(at, true)
  if (of.kind === 'u64') return size === 8 ? view.getBigUint64(at, true) : BigInt(readUint(view, at, size))
  if (size < 8) return readUint(view, at, size)
  const wide = view.getBigUint64(at, true)
  if (wide > 0xffffffffn) throw new CallError('EINVAL', `${where}: ${wide} does not fit 32 bits`)
  return Number(wide)
}

export const writeScalar = (view: DataView, at: number, size: number, of: Kind, value: AnyValue): void => {
  if (of.kind === 'bytes' || of.kind === 'blob')
    new Uint8Array(view.buffer, view.byteOffset + at, size).set((value as Uint8Array).subarray(0, size))
  else if (size === 8) view.setBigUint64(at, BigInt.asUintN(64, BigInt(value as number | bigint)), true)
  else writeUint(view, at, size, Number(value))
}

// ---- limits ----

const known = new WeakMap<Enumeration, ReadonlySet<number>>()
const valuesOf = (of: Enumeration): ReadonlySet<number> => {
  const found = known.get(of)
  if (found !== undefined) return found
  const values = new Set(Object.values(of.values))
  known.set(of, values)
  return values
}

const highest = { u8: 0xff, u16: 0xffff, u32: 0xffffffff }

const number = (where: string, value: unknown, max: number): number => {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > max)
    throw new CallError('EINVAL', `${where}: ${String(value)} is not a whole number from 0 to ${max}`)
  return value
}

/**
 * Refuses with EINVAL and a sentence what is not a value of kind `of` within its limits. Bits that a flag set does not
 * name pass: which of them a device takes is the handler's to say, unless `strict`.
 */
export const checkValue = (where: string, of: Kind, value: unknown, strict = false): void => {
  switch (of.kind) {
    case 'u8':
    case 'u16':
    case 'u32': {
      const n = number(where, value, highest[of.kind])
      if (of.min !== undefined && n < of.min) throw new CallError('EINVAL', `${where}: ${n} is below ${of.min}`)
      if (of.max !== undefined && n > of.max) throw new CallError('EINVAL', `${where}: ${n} is above ${of.max}`)
      return
    }
    case 'enum': {
      if (valuesOf(of.of).has(value as number)) return
      const names = Object.entries(of.of.values).map(([name, n]) => `${n} ${name}`)
      throw new CallError('EINVAL', `${where}: ${String(value)} is no ${of.of.name} (${names.join(', ')})`)
    }
    case 'flags': {
      const n = number(where, value, 2 ** (8 * of.width) - 1)
      if (!strict) return
      let unknown = n
      for (const bit of valuesOf(of.of)) unknown &= ~bit
      if (unknown !== 0)
        throw new CallError('EINVAL', `${where}: ${of.of.name} has no bits 0x${(unknown >>> 0).toString(16)}`)
      return
    }
    case 'ref':
      number(where, value, 0xffffffff)
      return
    case 'fd':
      number(where, value, 0x7fffffff)
      return
    case 'u64':
      if (typeof value === 'bigint' && value >= 0n && value < 1n << 64n) return
      throw new CallError('EINVAL', `${where}: ${String(value)} is not a 64-bit number`)
    case 'bytes':
      if (value instanceof Uint8Array && value.length === of.size) return
      throw new CallError('EINVAL', `${where}: it has ${of.size} bytes`)
    case 'blob':
      if (value instanceof Uint8Array && value.length <= of.max) return
      throw new CallError('EINVAL', `${where}: it has at most ${of.max} bytes`)
    case 'record': {
      const fields = value as Readonly<Record<string, unknown>> | undefined
      if (typeof fields !== 'object') throw new CallError('EINVAL', `${where}: it is a record`)
      for (const [name, field] of Object.entries(of.fields))
        checkValue(`${where}.${name}`, field.of, fields[name], strict)
      return
    }
    case 'list': {
      if (!Array.isArray(value) || value.length > of.max)
        throw new CallError('EINVAL', `${where}: it is a list of at most ${of.max} records`)
      const item: Kind = { kind: 'record', fields: of.fields }
      for (let i = 0; i < value.length; i++) checkValue(`${where}[${i}]`, item, value[i], strict)
    }
  }
}

// ---- records ----

/** Writes a record's fields at `at`; what is missing stays as it is. */
export const writeRecord = (view: DataView, at: number, fields: Fields, record: AnyRecord): void => {
  for (const name in fields) {
    const { offset, of } = fields[name]
    const value = record[name]
    if (value === undefined) continue
    if (of.kind === 'record') writeRecord(view, at + offset, of.fields, value as AnyRecord)
    else writeScalar(view, at + offset, sizeOf(of), of, value)
  }
}

/** Reads a record's fields at `at`; the bytes must be there. */
export const readRecord = (view: DataView, at: number, fields: Fields, where: string): AnyRecord => {
  const record: AnyRecord = {}
  for (const name in fields) {
    const { offset, of } = fields[name]
    record[name] =
      of.kind === 'record'
        ? readRecord(view, at + offset, of.fields, `${where}.${name}`)
        : readScalar(view, at + offset, sizeOf(of), of, `${where}.${name}`)
  }
  return record
}

/** Records in a row, without gaps. */
export const encodeRecords = (fields: Fields, records: readonly AnyRecord[]): Uint8Array => {
  const size = recordSize(fields)
  const bytes = new Uint8Array(size * records.length)
  const view = viewOf(bytes)
  for (let i = 0; i < records.length; i++) writeRecord(view, i * size, fields, records[i])
  return bytes
}
