/*
 * Reads the schema that `userdma schema --json` prints, as a program in another language does: what it lacks cannot be
 * read back. Refuses what is malformed, with the path of the first fault.
 */
import { CallError } from '../../../src/spec/errno.ts'
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
} from '../../../src/spec/schema/schema.ts'

/** The supported version of the format. */
const SCHEMA_FORMAT = 1

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

/** The classes as descriptions have them: without the roles of methods, which are for our own code. */
export const withoutRoles = (classes: readonly ObjectClass[]): readonly ObjectClass[] =>
  classes.map(cls => ({
    ...cls,
    methods: Object.fromEntries(Object.entries(cls.methods).map(([name, { role: _, ...method }]) => [name, method])),
  }))
