/*
 * Class declarations ⇄ JSON (R13): the schema that `userdma schema --json` prints. The format is stable, for programs
 * in other languages (docs/reference/schema.md). Declared numbers have at most 32 bits,
 * so that JSON numbers are exact.
 */
import { CallError } from '../errno.ts'
import type {
  Attribute,
  Attributes,
  Capability,
  Enumeration,
  Field,
  Fields,
  Kind,
  Method,
  ObjectClass,
} from './schema.ts'
import { sizeOf } from './schema.ts'

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

// ---- JSON → classes ----

type Json = Readonly<Record<string, unknown>>

const refuse = (path: string, reason: string): never => {
  throw new CallError('EINVAL', `schema: ${path}: ${reason}`)
}
const objectAt = (path: string, value: unknown): Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Json)
    : refuse(path, 'is not an object')
const listAt = (path: string, value: unknown): readonly Json[] =>
  Array.isArray(value) ? value.map((one: unknown, i) => objectAt(`${path}[${i}]`, one)) : refuse(path, 'is not a list')
const textAt = (path: string, value: unknown): string =>
  typeof value === 'string' && value !== '' ? value : refuse(path, 'is not a non-empty string')
const numberAt = (path: string, value: unknown): number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 0xffffffff
    ? value
    : refuse(path, 'is not a number from 0 to 2^32 - 1')
const flagAt = (path: string, value: unknown): boolean =>
  typeof value === 'boolean' ? value : refuse(path, 'is neither true nor false')

const capabilityAt = (path: string, value: unknown): Capability =>
  value === 'NET_RAW' || value === 'RAW_PACKETS'
    ? value
    : refuse(path, 'is not a known capability: NET_RAW or RAW_PACKETS')

/** The classes of a schema. Throws CallError EINVAL with the path of the first fault. */
export const classesOf = (schema: unknown): ObjectClass[] => {
  const document = objectAt('the document', schema)
  if (document.format !== SCHEMA_FORMAT)
    refuse('format', `is ${String(document.format)}; the supported format is ${SCHEMA_FORMAT}`)
  const enumerations = new Map(
    Object.entries(objectAt('enumerations', document.enumerations)).map(([key, values]): [string, Enumeration] => {
      const path = `enumerations.${key}`
      const entries = Object.entries(objectAt(path, values))
      const numbers = entries.map(([name, value]) => [name, numberAt(`${path}.${name}`, value)])
      return [key, { name: key.replace(/#\d+$/, ''), values: Object.fromEntries(numbers) }]
    }),
  )
  const fieldsAt = (path: string, value: unknown): Fields =>
    Object.fromEntries(
      listAt(path, value).map(({ name, offset, type }, i): [string, Field] => [
        textAt(`${path}[${i}].name`, name),
        { offset: numberAt(`${path}[${i}].offset`, offset), type: typeAt(`${path}[${i}].type`, type) },
      ]),
    )
  const typeAt = (path: string, value: unknown): Kind => {
    const type = objectAt(path, value)
    const number = (name: string): number => numberAt(`${path}.${name}`, type[name])
    switch (type.kind) {
      case 'u8':
      case 'u16':
      case 'u32':
        return {
          kind: type.kind,
          ...(type.min !== undefined && { min: number('min') }),
          ...(type.max !== undefined && { max: number('max') }),
        }
      case 'u64':
        return { kind: type.kind }
      case 'bytes':
        return { kind: type.kind, size: number('size') }
      case 'blob':
        return { kind: type.kind, max: number('max') }
      case 'enum':
      case 'flags': {
        const width = number('size')
        const enumeration = enumerations.get(textAt(`${path}.enumeration`, type.enumeration))
        if (width !== 1 && width !== 2 && width !== 4) return refuse(`${path}.size`, 'must be 1, 2 or 4')
        return enumeration
          ? { kind: type.kind, enumeration, width }
          : refuse(`${path}.enumeration`, 'no enumeration has that name')
      }
      case 'ref':
      case 'fd':
        return { kind: type.kind, class: textAt(`${path}.class`, type.class) }
      case 'record':
        return { kind: type.kind, fields: fieldsAt(`${path}.fields`, type.fields) }
      case 'list':
        return { kind: type.kind, fields: fieldsAt(`${path}.fields`, type.fields), max: number('max') }
      default:
        return refuse(`${path}.kind`, `${JSON.stringify(type.kind)} is unknown`)
    }
  }
  const attributesAt = (path: string, value: unknown): Attributes =>
    Object.fromEntries(
      listAt(path, value).map((attribute, i): [string, Attribute] => {
        const name = textAt(`${path}[${i}].name`, attribute.name)
        const attributePath = `${path}[${i}] (${name})`
        const type = typeAt(`${attributePath}.type`, attribute.type)
        const id = numberAt(`${attributePath}.id`, attribute.id)
        return [name, { id, type, optional: flagAt(`${attributePath}.optional`, attribute.optional) }]
      }),
    )
  return listAt('classes', document.classes).map((cls, i): ObjectClass => {
    const name = textAt(`classes[${i}].name`, cls.name)
    const { identity } = cls
    if (identity !== 'handle' && identity !== 'fd' && identity !== 'fixed')
      return refuse(`${name}.identity`, 'must be handle, fd or fixed')
    const methods = listAt(`${name}.methods`, cls.methods).map((method, j): [string, Method] => {
      const methodName = textAt(`${name}.methods[${j}].name`, method.name)
      const path = `${name}.${methodName}`
      return [
        methodName,
        {
          call: numberAt(`${path}.call`, method.call),
          in: attributesAt(`${path}.in`, method.in),
          out: attributesAt(`${path}.out`, method.out),
          driverAttributes: flagAt(`${path}.driverAttributes`, method.driverAttributes),
          ...(method.undoable !== undefined && { undoable: flagAt(`${path}.undoable`, method.undoable) }),
          ...(method.needs !== undefined && { needs: capabilityAt(`${path}.needs`, method.needs) }),
        },
      ]
    })
    return {
      name,
      id: numberAt(`${name}.id`, cls.id),
      identity,
      global: flagAt(`${name}.global`, cls.global),
      methods: Object.fromEntries(methods),
    }
  })
}
