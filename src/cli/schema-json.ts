/*
 * Class declarations as JSON (R13): the schema that `userdma schema --json` prints. The format is stable, for programs
 * in other languages (docs/reference/schema.md). Declared numbers have at most 32 bits, so that JSON numbers are exact.
 * test/spec/schema/schema-reader.ts reads it back.
 */
import type { Attributes, Capability, Enumeration, Fields, Kind, ObjectClass } from '../spec/schema/schema.ts'
import { sizeOf } from '../spec/schema/schema.ts'

/** Version of the format. Readers may ignore additions of a later version. */
const SCHEMA_FORMAT = 1

export type JsonType =
  | { readonly kind: 'u8' | 'u16' | 'u32'; readonly min?: number; readonly max?: number }
  | { readonly kind: 'u64' }
  | { readonly kind: 'bytes'; readonly size: number }
  | { readonly kind: 'blob'; readonly max: number }
  | { readonly kind: 'enum' | 'flags'; readonly enumeration: string; readonly size: number }
  | { readonly kind: 'ref' | 'fd'; readonly class: string }
  | { readonly kind: 'record'; readonly size: number; readonly fields: readonly JsonField[] }
  /** `size`: bytes of one record; `max`: maximum number of records. */
  | { readonly kind: 'list'; readonly max: number; readonly size: number; readonly fields: readonly JsonField[] }

export interface JsonField {
  readonly name: string
  readonly offset: number
  readonly type: JsonType
}

export interface JsonAttribute {
  readonly name: string
  readonly id: number
  readonly optional: boolean
  readonly type: JsonType
}

export interface JsonMethod {
  readonly name: string
  /** The call number: block × 32 + number in the block. */
  readonly call: number
  /** The driver may add attributes of its own (ids from 0x8000). */
  readonly driverAttributes: boolean
  /** A chain with UNDO may call the method on any object (`Method.undoable`). */
  readonly undoable?: true
  /** The capability that callers need, by Linux's name without CAP_. */
  readonly needs?: Capability
  /** Names of the drivers that have the method; absent in the schema of a device. */
  readonly drivers?: readonly string[]
  readonly in: readonly JsonAttribute[]
  readonly out: readonly JsonAttribute[]
}

export interface JsonClass {
  readonly name: string
  readonly id: number
  readonly identity: ObjectClass['identity']
  readonly global: boolean
  /** Names of the drivers that have the class; absent in the schema of a device. */
  readonly drivers?: readonly string[]
  readonly methods: readonly JsonMethod[]
}

export interface Schema {
  readonly format: number
  /** The device that the schema describes; absent: all declarations. */
  readonly device?: string
  /** Numbers by enumeration and by name. */
  readonly enumerations: Readonly<Record<string, Readonly<Record<string, number>>>>
  readonly classes: readonly JsonClass[]
}

/** Names of the drivers that have a method or, without `method`, a class. */
export type DriversOf = (className: string, method?: string) => readonly string[]

// ---- classes → JSON ----

/** The schema of `classes`, in their order. Without `driversOf` the schema has no lists `drivers`. */
export const schemaOf = (
  classes: readonly ObjectClass[],
  { device, driversOf }: { readonly device?: string; readonly driversOf?: DriversOf } = {},
): Schema => {
  const enumerations: Record<string, Record<string, number>> = {}
  /** The key in `enumerations`. If another enumeration has the same name, the key is the name and `#2`. */
  const enumerationOf = ({ name, values }: Enumeration): string => {
    const unsignedValues = Object.fromEntries(Object.entries(values).map(([value, number]) => [value, number >>> 0]))
    const text = JSON.stringify(unsignedValues)
    for (let i = 1; ; i++) {
      const key = i === 1 ? name : `${name}#${i}`
      enumerations[key] ??= unsignedValues
      if (JSON.stringify(enumerations[key]) === text) return key
    }
  }
  const fieldsOf = (fields: Fields): JsonField[] =>
    Object.entries(fields).map(([name, { offset, type }]) => ({ name, offset, type: typeOf(type) }))
  const typeOf = (type: Kind): JsonType => {
    switch (type.kind) {
      case 'u8':
      case 'u16':
      case 'u32':
        return {
          kind: type.kind,
          ...(type.min !== undefined && { min: type.min }),
          ...(type.max !== undefined && { max: type.max }),
        }
      case 'u64':
        return { kind: type.kind }
      case 'bytes':
        return { kind: type.kind, size: type.size }
      case 'blob':
        return { kind: type.kind, max: type.max }
      case 'enum':
      case 'flags':
        return { kind: type.kind, enumeration: enumerationOf(type.enumeration), size: type.width }
      case 'ref':
      case 'fd':
        return { kind: type.kind, class: type.class }
      case 'record':
        return { kind: type.kind, size: sizeOf(type), fields: fieldsOf(type.fields) }
      case 'list':
        return { kind: type.kind, max: type.max, size: sizeOf({ ...type, max: 1 }), fields: fieldsOf(type.fields) }
    }
  }
  const attributesOf = (attributes: Attributes): JsonAttribute[] =>
    Object.entries(attributes).map(([name, { id, optional, type }]) => ({ name, id, optional, type: typeOf(type) }))
  const described = classes.map(
    (cls): JsonClass => ({
      name: cls.name,
      id: cls.id,
      identity: cls.identity,
      global: cls.global,
      ...(driversOf !== undefined && { drivers: driversOf(cls.name) }),
      methods: Object.entries(cls.methods).map(([name, method]) => ({
        name,
        call: method.call,
        driverAttributes: method.driverAttributes,
        ...(method.undoable === true && { undoable: true as const }),
        ...(method.needs !== undefined && { needs: method.needs }),
        ...(driversOf !== undefined && { drivers: driversOf(cls.name, name) }),
        in: attributesOf(method.in),
        out: attributesOf(method.out),
      })),
    }),
  )
  return { format: SCHEMA_FORMAT, ...(device !== undefined && { device }), enumerations, classes: described }
}
