/*
 * Declarations as data for transfer: classes ⇄ the lists of class `interface` (R13, R47).
 *
 * `describe` flattens classes into rows, each type, field list and enumeration once. `declare` turns rows into
 * declarations, so that codecs, tracer and reference pages work from a device's description as from the built-in
 * tables. Rows are untrusted: `declare` checks every index and returns a message for the first bad one.
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
} from '../classes/device/interface.ts'
import { CallError } from '../errno.ts'
import {
  type Attribute,
  type Attributes,
  type Enumeration,
  type Field,
  type Fields,
  type Kind,
  type Method,
  type ObjectClass,
  type Out,
  sizeOf,
} from './schema.ts'

/** The answer of `interface.query`. */
export type Description = Out<typeof Interface.methods.query>

const { DRIVER_ATTRIBUTES, UNDOABLE, NEEDS_NET_RAW } = MethodFlags.values
const { OPTIONAL } = AttributeFlags.values
const { GLOBAL } = ClassFlags.values
const { MIN, MAX } = TypeFlags.values

type Row<K extends keyof Description> = Description[K] extends (infer R)[] ? R : never

// ---- declarations → rows ----

/** Numbers equal values by a key; each value once. */
const numbered = <T>(): { of(key: string, make: () => T): number; readonly rows: T[] } => {
  const rows: T[] = []
  const numbers = new Map<string, number>()
  return {
    rows,
    of(key, make) {
      const known = numbers.get(key)
      if (known !== undefined) return known
      // Building an entry may number others before it.
      const row = make()
      numbers.set(key, rows.length)
      return rows.push(row) - 1
    },
  }
}

/** The rows of `classes`, in their order. */
export const describe = (classes: readonly ObjectClass[]): Description => {
  let names = ''
  const places = new Map<string, number>()
  const nameOf = (name: string): number => {
    let at = places.get(name)
    if (at === undefined) {
      at = names.length
      places.set(name, at)
      names += `${name}\0`
    }
    return at
  }
  const values: Row<'values'>[] = []
  const enumerations = numbered<Row<'enumerations'>>()
  const enumerationOf = ({ name, values: of }: Enumeration): number =>
    enumerations.of(JSON.stringify([name, of]), () => {
      const rows = Object.entries(of).map(([value, number]) => ({ name: nameOf(value), value: number >>> 0 }))
      const first = values.length
      values.push(...rows)
      return { name: nameOf(name), first, count: rows.length }
    })
  const fields: Row<'fields'>[] = []
  const fieldsOf = (of: Fields): { of: number; count: number } => {
    const rows = Object.entries(of).map(([name, { offset, of: kind }]) => ({
      name: nameOf(name),
      offset,
      type: typeOf(kind),
    }))
    const first = fields.length
    fields.push(...rows)
    return { of: first, count: rows.length }
  }
  const types = numbered<Row<'types'>>()
  const typeOf = (of: Kind): number =>
    types.of(JSON.stringify(of), () => {
      const row = { kind: KindNumber.values[of.kind], width: 0, flags: 0, size: 0, of: 0, count: 0, min: 0, max: 0 }
      switch (of.kind) {
        case 'u8':
        case 'u16':
        case 'u32':
          return {
            ...row,
            flags: (of.min === undefined ? 0 : MIN) | (of.max === undefined ? 0 : MAX),
            min: of.min ?? 0,
            max: of.max ?? 0,
          }
        case 'u64':
          return row
        case 'bytes':
          return { ...row, size: of.size }
        case 'blob':
          return { ...row, size: of.max }
        case 'enum':
        case 'flags':
          return { ...row, width: of.width, of: enumerationOf(of.of) }
        case 'ref':
        case 'fd':
          return { ...row, of: nameOf(of.class) }
        case 'record':
          return { ...row, ...fieldsOf(of.fields) }
        case 'list':
          return { ...row, size: of.max, ...fieldsOf(of.fields) }
      }
    })

  const methods: Row<'methods'>[] = []
  const attributes: Row<'attributes'>[] = []
  const classRows = classes.map(({ name, id, identity, global, methods: own }, index) => {
    for (const [methodName, { call, in: into, out, driverAttributes, undoable, needs }] of Object.entries(own)) {
      const method = methods.push({
        name: nameOf(methodName),
        class: index,
        call,
        flags:
          (driverAttributes ? DRIVER_ATTRIBUTES : 0) |
          (undoable ? UNDOABLE : 0) |
          (needs === 'NET_RAW' ? NEEDS_NET_RAW : 0),
      })
      for (const [direction, set] of [
        [Direction.values.in, into],
        [Direction.values.out, out],
      ] as const)
        for (const [attributeName, { id: attributeId, of, optional }] of Object.entries(set))
          attributes.push({
            name: nameOf(attributeName),
            method: method - 1,
            type: typeOf(of),
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

const bad = (reason: string): never => {
  throw new CallError('EINVAL', `the interface description is invalid: ${reason}`)
}

const pick = <T>(rows: readonly T[], index: number, what: string): T =>
  rows[index] ?? bad(`there is no ${what} ${index}, there are ${rows.length}`)

const some = <T>(rows: readonly T[], first: number, count: number, what: string): readonly T[] =>
  first + count <= rows.length
    ? rows.slice(first, first + count)
    : bad(`${what} ${first} to ${first + count - 1} do not exist, there are ${rows.length}`)

const wordOf = (values: Readonly<Record<string, number>>, number: number, what: string): string =>
  Object.keys(values).find(name => values[name] === number) ?? bad(`${what} ${number} is unknown`)

const NAME = /^[A-Za-z]\w*$/
/** Maximum bytes of a record, and maximum fields including those of nested records; far above any class. */
const MAX_BYTES = 1 << 20
const MAX_FIELDS = 4096

/** The classes that the rows describe. Throws CallError EINVAL with a message if the rows are invalid. */
export const declare = (description: Description): ObjectClass[] => {
  const { names } = description
  const nameAt = (at: number): string => {
    const end = at < names.length ? names.indexOf(0, at) : -1
    if (end < 0) return bad(`there is no name at ${at}`)
    const name = new TextDecoder().decode(names.subarray(at, end))
    return NAME.test(name) ? name : bad(`the bytes at ${at} are not a name of letters, digits and _`)
  }
  const enumerations = description.enumerations.map(({ name, first, count }): Enumeration => {
    const rows = some(description.values, first, count, 'values')
    return { name: nameAt(name), values: Object.fromEntries(rows.map(row => [nameAt(row.name), row.value])) }
  })
  // A field's type must come before the type that contains it, so that no row contains itself.
  const types: Kind[] = []
  /** By type: its number of fields, nested ones included, and its bytes. */
  const weights: { readonly fields: number; readonly bytes: number }[] = []
  const fieldsOf = (first: number, count: number): Fields =>
    Object.fromEntries(
      some(description.fields, first, count, 'fields').map(({ name, offset, type }): [string, Field] => [
        nameAt(name),
        { offset, of: pick(types, type, 'type before this one') },
      ]),
    )
  const weightOf = ({ of: first, count, size }: Row<'types'>, of: Kind): (typeof weights)[number] => {
    if (of.kind !== 'record' && of.kind !== 'list')
      return { fields: 1, bytes: of.kind === 'bytes' ? size : of.kind === 'blob' ? 0 : sizeOf(of) }
    const rows = description.fields.slice(first, first + count)
    return {
      fields: rows.reduce((sum, { type }) => sum + weights[type]!.fields, 1),
      bytes: rows.reduce((end, { offset, type }) => Math.max(end, offset + weights[type]!.bytes), 0),
    }
  }
  const widthOf = (width: number): 1 | 2 | 4 =>
    width === 1 || width === 2 || width === 4 ? width : bad(`a value of ${width} bytes`)
  for (const row of description.types) {
    const kind = wordOf(KindNumber.values, row.kind, 'kind') as Kind['kind']
    switch (kind) {
      case 'u8':
      case 'u16':
      case 'u32':
        types.push({
          kind,
          ...((row.flags & MIN) !== 0 && { min: row.min }),
          ...((row.flags & MAX) !== 0 && { max: row.max }),
        })
        break
      case 'u64':
        types.push({ kind })
        break
      case 'bytes':
        types.push({ kind, size: row.size })
        break
      case 'blob':
        types.push({ kind, max: row.size })
        break
      case 'enum':
      case 'flags':
        types.push({ kind, of: pick(enumerations, row.of, 'enumeration'), width: widthOf(row.width) })
        break
      case 'ref':
      case 'fd':
        types.push({ kind, class: nameAt(row.of) })
        break
      case 'record':
        types.push({ kind, fields: fieldsOf(row.of, row.count) })
        break
      case 'list':
        types.push({ kind, fields: fieldsOf(row.of, row.count), max: row.size })
        break
    }
    const weight = weightOf(row, types[types.length - 1]!)
    if (weight.bytes > MAX_BYTES)
      bad(`type ${weights.length} has ${weight.bytes} bytes, at most ${MAX_BYTES} are allowed`)
    if (weight.fields > MAX_FIELDS)
      bad(`type ${weights.length} has ${weight.fields} fields, at most ${MAX_FIELDS} are allowed`)
    weights.push(weight)
  }

  const methods = description.methods.map(({ name, call, flags }) => {
    const into: Record<string, Attribute> = {}
    const out: Record<string, Attribute> = {}
    const driverAttributes = (flags & DRIVER_ATTRIBUTES) !== 0
    const undoable = (flags & UNDOABLE) !== 0
    const needs = (flags & NEEDS_NET_RAW) === 0 ? {} : { needs: 'NET_RAW' as const }
    return { name: nameAt(name), call, driverAttributes, ...(undoable && { undoable }), ...needs, in: into, out }
  })
  for (const { name, method, type, id, direction, flags } of description.attributes) {
    const set: Record<string, Attribute> = pick(methods, method, 'method')[
      wordOf(Direction.values, direction, 'direction') as 'in' | 'out'
    ]
    set[nameAt(name)] = { id, of: pick(types, type, 'type'), optional: (flags & OPTIONAL) !== 0 }
  }
  const owned = description.classes.map((): Record<string, Method<Attributes, Attributes>> => ({}))
  description.methods.forEach(({ class: index }, i) => {
    const { name, ...method } = methods[i]!
    pick(owned, index, 'class')[name] = method
  })
  return description.classes.map(
    ({ name, id, identity, flags }, i): ObjectClass => ({
      name: nameAt(name),
      id,
      identity: wordOf(Identity.values, identity, 'identity') as ObjectClass['identity'],
      global: (flags & GLOBAL) !== 0,
      methods: owned[i]!,
    }),
  )
}
