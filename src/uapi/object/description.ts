/*
 * Class declarations ⇄ the rows that method `query` of class `interface` returns (R13, R47).
 *
 * `describe` flattens classes into rows, each type and enumeration once. `declare` turns the rows of a device into
 * declarations. Rows are untrusted: `declare` checks every index.
 */

import {
  AttributeFlags,
  ClassFlags,
  Direction,
  Identity,
  type Interface,
  KindNumber,
  MethodFlags,
  TypeFlags,
} from '../../spec/classes/device/interface.ts'
import { callError } from '../../spec/errno.ts'
import {
  type Attribute,
  type Enumeration,
  type Field,
  type Fields,
  type Kind,
  type Method,
  type ObjectClass,
  type Out,
  sizeOf,
} from '../../spec/schema/schema.ts'

export type Description = Out<typeof Interface.methods.query>

const { DRIVER_ATTRIBUTES, UNDOABLE, NEEDS_NET_RAW, NEEDS_RAW_PACKETS } = MethodFlags.values
const { OPTIONAL } = AttributeFlags.values
const { GLOBAL } = ClassFlags.values
const { MIN, MAX } = TypeFlags.values

type Row<K extends keyof Description> = Description[K] extends (infer R)[] ? R : never

// ---- declarations → rows ----

/** A list with one row per key. `indexOf` returns the row's index, and makes the row if there is none. */
const uniqueRows = <T>(): { indexOf(key: string, makeRow: () => T): number; readonly rows: T[] } => {
  const rows: T[] = []
  const indices = new Map<string, number>()
  return {
    rows,
    indexOf(key, makeRow) {
      const known = indices.get(key)
      if (known !== undefined) return known
      // `makeRow` may add rows: the types of a record's fields come before the record.
      const row = makeRow()
      indices.set(key, rows.length)
      return rows.push(row) - 1
    },
  }
}

/** The rows that describe classes. */
export const describe = (classes: readonly ObjectClass[]): Description => {
  let names = ''
  const nameOffsets = new Map<string, number>()
  /** The offset of a name in `names`; each name is there once. */
  const nameOf = (name: string): number => {
    let offset = nameOffsets.get(name)
    if (offset === undefined) {
      offset = names.length
      nameOffsets.set(name, offset)
      names += `${name}\0`
    }
    return offset
  }
  const values: Row<'values'>[] = []
  const enumerations = uniqueRows<Row<'enumerations'>>()
  const enumerationOf = ({ name, values: numbers }: Enumeration): number =>
    enumerations.indexOf(JSON.stringify([name, numbers]), () => {
      // `>>> 0`: the bit 1 << 31 is negative.
      const rows = Object.entries(numbers).map(([value, number]) => ({ name: nameOf(value), value: number >>> 0 }))
      const first = values.length
      values.push(...rows)
      return { name: nameOf(name), first, count: rows.length }
    })
  const fields: Row<'fields'>[] = []
  const fieldsOf = (declared: Fields): { target: number; count: number } => {
    const rows = Object.entries(declared).map(([name, { offset, type: kind }]) => ({
      name: nameOf(name),
      offset,
      type: typeOf(kind),
    }))
    const first = fields.length
    fields.push(...rows)
    return { target: first, count: rows.length }
  }
  const types = uniqueRows<Row<'types'>>()
  const typeOf = (type: Kind): number =>
    types.indexOf(JSON.stringify(type), () => {
      const row = {
        kind: KindNumber.values[type.kind],
        width: 0,
        flags: 0,
        size: 0,
        target: 0,
        count: 0,
        min: 0,
        max: 0,
      }
      switch (type.kind) {
        case 'u8':
        case 'u16':
        case 'u32':
          return {
            ...row,
            flags: (type.min === undefined ? 0 : MIN) | (type.max === undefined ? 0 : MAX),
            min: type.min ?? 0,
            max: type.max ?? 0,
          }
        case 'u64':
          return row
        case 'bytes':
          return { ...row, size: type.size }
        case 'blob':
          return { ...row, size: type.max }
        case 'enum':
        case 'flags':
          return { ...row, width: type.width, target: enumerationOf(type.enumeration) }
        case 'ref':
        case 'fd':
          return { ...row, target: nameOf(type.class) }
        case 'record':
          return { ...row, ...fieldsOf(type.fields) }
        case 'list':
          return { ...row, size: type.max, ...fieldsOf(type.fields) }
      }
    })

  const methods: Row<'methods'>[] = []
  const attributes: Row<'attributes'>[] = []
  const classRows = classes.map(({ name, id, identity, global, methods: classMethods }, index) => {
    for (const [methodName, declared] of Object.entries(classMethods)) {
      const { call, in: inputs, out: outputs, driverAttributes, undoable, needs } = declared
      const methodCount = methods.push({
        name: nameOf(methodName),
        class: index,
        call,
        flags:
          (driverAttributes ? DRIVER_ATTRIBUTES : 0) |
          (undoable ? UNDOABLE : 0) |
          (needs === 'NET_RAW' ? NEEDS_NET_RAW : 0) |
          (needs === 'RAW_PACKETS' ? NEEDS_RAW_PACKETS : 0),
      })
      for (const [direction, declaredAttributes] of [
        [Direction.values.in, inputs],
        [Direction.values.out, outputs],
      ] as const)
        for (const [attributeName, { id: attributeId, type, optional }] of Object.entries(declaredAttributes))
          attributes.push({
            name: nameOf(attributeName),
            method: methodCount - 1,
            type: typeOf(type),
            id: attributeId,
            direction,
            flags: optional ? OPTIONAL : 0,
          })
    }
    return { name: nameOf(name), id, identity: Identity.values[identity], flags: global ? GLOBAL : 0 }
  })
  return {
    names: new TextEncoder().encode(names),
    classes: classRows,
    methods,
    attributes,
    types: types.rows,
    fields,
    enumerations: enumerations.rows,
    values,
  }
}

// ---- rows → declarations ----

const refuse = (reason: string): never => {
  throw callError.EINVAL`the interface description is invalid: ${reason}`
}

/** Row `index`. `noun`: the kind of row, for the error message. */
const rowAt = <T>(rows: readonly T[], index: number, noun: string): T =>
  rows[index] ?? refuse(`there is no ${noun} ${index}, there are ${rows.length}`)

const rowsFrom = <T>(rows: readonly T[], first: number, count: number, nouns: string): readonly T[] =>
  first + count <= rows.length
    ? rows.slice(first, first + count)
    : refuse(`${count} ${nouns} are named from row ${first} on, there are ${rows.length} rows`)

/** The name of `number` in an enumeration. */
const valueName = (values: Readonly<Record<string, number>>, number: number, noun: string): string =>
  Object.keys(values).find(name => values[name] === number) ?? refuse(`${noun} ${number} is unknown`)

const NAME = /^[A-Za-z]\w*$/
/** Limits of one type, nested fields included; our own types have far fewer. */
const MAX_BYTES = 1 << 20
const MAX_FIELDS = 4096

type NameAt = (offset: number) => string

const namesOf =
  ({ names }: Description): NameAt =>
  offset => {
    const end = offset < names.length ? names.indexOf(0, offset) : -1
    if (end < 0) return refuse(`there is no name at ${offset}`)
    const name = new TextDecoder().decode(names.subarray(offset, end))
    return NAME.test(name) ? name : refuse(`the bytes at ${offset} are not a name of letters, digits and _`)
  }

const declareEnumerations = ({ enumerations, values }: Description, nameAt: NameAt): Enumeration[] =>
  enumerations.map(({ name, first, count }) => {
    const rows = rowsFrom(values, first, count, 'values')
    return { name: nameAt(name), values: Object.fromEntries(rows.map(row => [nameAt(row.name), row.value])) }
  })

const widthOf = (width: number): 1 | 2 | 4 =>
  width === 1 || width === 2 || width === 4 ? width : refuse(`a value has ${width} bytes, not 1, 2 or 4`)

/**
 * Limits the sum of all counts to the number of rows. Otherwise a few rows, shared by many enumerations or types, could
 * describe very many values or fields.
 */
const checkTotal = (counted: readonly { readonly count: number }[], rows: readonly object[], nouns: string): void => {
  const total = counted.reduce((sum, { count }) => sum + count, 0)
  if (total > rows.length) refuse(`${total} ${nouns} are in use, there are ${rows.length}`)
}

/** The types. A type may contain only types before it, so that no type contains itself. */
const declareTypes = (description: Description, nameAt: NameAt): Kind[] => {
  checkTotal(description.enumerations, description.values, 'values')
  checkTotal(description.types, description.fields, 'fields')
  const enumerations = declareEnumerations(description, nameAt)
  const types: Kind[] = []
  /** By type: fields, nested ones included, and bytes. A list counts as one element, a blob as 0 bytes. */
  const weights: { readonly fields: number; readonly bytes: number }[] = []
  /** The type of a field. A record has a fixed size, so it contains no type of variable size. */
  const fieldTypeAt = (index: number): Kind => {
    const type = rowAt(types, index, 'type before this one')
    return type.kind === 'blob' || type.kind === 'list' ? refuse(`a record cannot contain ${type.kind}`) : type
  }
  const fieldsOf = (first: number, count: number): Fields =>
    Object.fromEntries(
      rowsFrom(description.fields, first, count, 'fields').map(({ name, offset, type }): [string, Field] => [
        nameAt(name),
        { offset, type: fieldTypeAt(type) },
      ]),
    )
  const weightOf = ({ target: first, count }: Row<'types'>, type: Kind): (typeof weights)[number] => {
    if (type.kind !== 'record' && type.kind !== 'list')
      return { fields: 0, bytes: type.kind === 'blob' ? 0 : sizeOf(type) }
    const rows = description.fields.slice(first, first + count)
    return {
      fields: rows.reduce((sum, { type }) => sum + 1 + weights[type]!.fields, 0),
      bytes: rows.reduce((end, { offset, type }) => Math.max(end, offset + weights[type]!.bytes), 0),
    }
  }
  const typeOf = (row: Row<'types'>): Kind => {
    const kind = valueName(KindNumber.values, row.kind, 'kind') as Kind['kind']
    switch (kind) {
      case 'u8':
      case 'u16':
      case 'u32':
        return {
          kind,
          ...((row.flags & MIN) !== 0 && { min: row.min }),
          ...((row.flags & MAX) !== 0 && { max: row.max }),
        }
      case 'u64':
        return { kind }
      case 'bytes':
        return { kind, size: row.size }
      case 'blob':
        return { kind, max: row.size }
      case 'enum':
      case 'flags':
        return { kind, enumeration: rowAt(enumerations, row.target, 'enumeration'), width: widthOf(row.width) }
      case 'ref':
      case 'fd':
        return { kind, class: nameAt(row.target) }
      case 'record':
        return { kind, fields: fieldsOf(row.target, row.count) }
      case 'list':
        return { kind, fields: fieldsOf(row.target, row.count), max: row.size }
    }
  }
  for (const row of description.types) {
    const type = typeOf(row)
    const weight = weightOf(row, type)
    if (weight.bytes > MAX_BYTES)
      refuse(`type ${types.length} has ${weight.bytes} bytes, at most ${MAX_BYTES} are allowed`)
    if (weight.fields > MAX_FIELDS)
      refuse(`type ${types.length} has ${weight.fields} fields, at most ${MAX_FIELDS} are allowed`)
    types.push(type)
    weights.push(weight)
  }
  return types
}

interface NamedMethod extends Method {
  readonly name: string
}

const declareMethods = (description: Description, nameAt: NameAt): NamedMethod[] => {
  const types = declareTypes(description, nameAt)
  const methods = description.methods.map(({ name, call, flags }) => {
    const inputs: Record<string, Attribute> = {}
    const outputs: Record<string, Attribute> = {}
    const driverAttributes = (flags & DRIVER_ATTRIBUTES) !== 0
    const undoable = (flags & UNDOABLE) !== 0
    return {
      name: nameAt(name),
      call,
      driverAttributes,
      ...(undoable && { undoable }),
      ...((flags & NEEDS_NET_RAW) !== 0 && { needs: 'NET_RAW' as const }),
      ...((flags & NEEDS_RAW_PACKETS) !== 0 && { needs: 'RAW_PACKETS' as const }),
      in: inputs,
      out: outputs,
    }
  })
  for (const { name, method, type, id, direction, flags } of description.attributes) {
    const inOrOut = valueName(Direction.values, direction, 'direction') as 'in' | 'out'
    const methodAttributes: Record<string, Attribute> = rowAt(methods, method, 'method')[inOrOut]
    methodAttributes[nameAt(name)] = { id, type: rowAt(types, type, 'type'), optional: (flags & OPTIONAL) !== 0 }
  }
  return methods
}

/** The classes that the rows describe. Throws CallError EINVAL if the rows are invalid. */
export const declare = (description: Description): ObjectClass[] => {
  const nameAt = namesOf(description)
  const methods = declareMethods(description, nameAt)
  const classMethods = description.classes.map((): Record<string, Method> => ({}))
  description.methods.forEach(({ class: index }, i) => {
    const { name, ...method } = methods[i]!
    rowAt(classMethods, index, 'class')[name] = method
  })
  return description.classes.map(
    ({ name, id, identity, flags }, i): ObjectClass => ({
      name: nameAt(name),
      id,
      identity: valueName(Identity.values, identity, 'identity') as ObjectClass['identity'],
      global: (flags & GLOBAL) !== 0,
      methods: classMethods[i]!,
    }),
  )
}
