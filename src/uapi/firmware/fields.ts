/*
 * Structs of firmware commands ⇄ records of their fields, by the declarations of spec/drivers/mlx5-firmware. A struct
 * is compiled once.
 */
import type { FieldValue, FieldValues, PartOf, RecordOf, Struct } from '../../spec/drivers/mlx5-firmware/fields.ts'
import { viewOf } from '../scalar.ts'

type Reader = (view: DataView, bytes: Uint8Array, base: number) => FieldValue
type Writer = (view: DataView, bytes: Uint8Array, base: number, value: FieldValue) => void
interface CompiledField {
  readonly name: string
  readonly read: Reader
  readonly write: Writer
}

const compiled = new WeakMap<Struct, readonly CompiledField[]>()

const compileField = (name: string, field: Struct['fields'][string]): CompiledField => {
  const { at } = field
  const byte = at >> 3
  switch (field.kind) {
    case 'bits': {
      const word = (at >> 5) << 2
      const shift = 32 - (at & 31) - field.width
      if (shift < 0) throw new Error(`field ${name}: its ${field.width} bits cross a word`)
      const mask = field.width === 32 ? 0xffff_ffff : 2 ** field.width - 1
      return {
        name,
        read: (view, _bytes, base) => (view.getUint32(base + word) >>> shift) & mask & 0xffff_ffff,
        write(view, _bytes, base, value) {
          const others = view.getUint32(base + word) & ~(mask << shift)
          view.setUint32(base + word, (others | (((value as number) & mask) << shift)) >>> 0)
        },
      }
    }
    case 'long':
      return {
        name,
        read: (view, _bytes, base) => view.getBigUint64(base + byte),
        write: (view, _bytes, base, value) => view.setBigUint64(base + byte, value as bigint),
      }
    case 'raw':
      return {
        name,
        read: (_view, bytes, base) => bytes.slice(base + byte, base + byte + field.bytes),
        write: (_view, bytes, base, value) => bytes.set(value as Uint8Array, base + byte),
      }
    case 'rest':
      return {
        name,
        read: (_view, bytes, base) => bytes.slice(base + byte),
        write: (_view, bytes, base, value) => bytes.set(value as Uint8Array, base + byte),
      }
    case 'nested': {
      const { struct } = field
      return {
        name,
        read: (view, bytes, base) => readFields(struct, view, bytes, base + byte),
        write: (view, bytes, base, value) => writeFields(struct, view, bytes, base + byte, value as FieldValues),
      }
    }
  }
}

const fieldsOf = (struct: Struct): readonly CompiledField[] => {
  let fields = compiled.get(struct)
  if (fields === undefined) {
    fields = Object.entries(struct.fields).map(([name, field]) => compileField(name, field))
    compiled.set(struct, fields)
  }
  return fields
}

const readFields = (struct: Struct, view: DataView, bytes: Uint8Array, base: number): FieldValues => {
  const values: FieldValues = {}
  for (const { name, read } of fieldsOf(struct)) {
    const value = read(view, bytes, base)
    values[name] = typeof value === 'number' ? value >>> 0 : value
  }
  return values
}

const writeFields = (struct: Struct, view: DataView, bytes: Uint8Array, base: number, values: FieldValues): void => {
  for (const { name, write } of fieldsOf(struct)) {
    const value = values[name]
    if (value !== undefined) write(view, bytes, base, value)
  }
}

/** The fields of a struct at the beginning of `bytes`; missing bytes count as 0. */
export const decodeFields = <S extends Struct>(struct: S, bytes: Uint8Array): RecordOf<S> => {
  let whole = bytes
  if (bytes.length < struct.bytes) {
    whole = new Uint8Array(struct.bytes)
    whole.set(bytes)
  }
  return readFields(struct, viewOf(whole), whole, 0) as RecordOf<S>
}

/**
 * Writes fields over `bytes`, which has at least the struct's bytes and those of a `rest`. Numbers are cut to their
 * width.
 */
export const encodeFieldsInto = <S extends Struct>(struct: S, bytes: Uint8Array, values: PartOf<S>): void =>
  writeFields(struct, viewOf(bytes), bytes, 0, values as FieldValues)

/** A struct with these fields, the others being 0. `restBytes`: bytes after the struct. */
export const encodeFields = <S extends Struct>(struct: S, values: PartOf<S>, restBytes = 0): Uint8Array => {
  const bytes = new Uint8Array(struct.bytes + restBytes)
  encodeFieldsInto(struct, bytes, values)
  return bytes
}
