/*
 * Descriptions of classes as rows: encoding and decoding. Invalid rows are refused with a message.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { KindNumber } from '../../../src/spec/classes/device/interface.ts'
import { classes } from '../../../src/spec/classes.ts'
import { RxeAttributes } from '../../../src/spec/drivers/rxe.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { CREATE, method, objectClass } from '../../../src/spec/schema/schema.ts'
import { type Description, declare, describe } from '../../../src/uapi/object/description.ts'
import { withoutRoles } from '../../spec/schema/schema-reader.ts'

test('all classes survive encoding and decoding', () => {
  assert.deepEqual(declare(describe(classes)), withoutRoles(classes))
})

test('a private class with a driver’s attributes survives encoding and decoding', () => {
  const cls = objectClass('ctx', 0x8001, {
    identity: 'fd',
    methods: { create: method(CREATE, { in: {}, out: RxeAttributes.rc_qp.create.out, driverAttributes: true }) },
  })
  assert.deepEqual(declare(describe([cls])), withoutRoles([cls]))
})

test('equal types, enumerations and names have one row', () => {
  const { types, enumerations, names } = describe(classes)
  assert.equal(new Set(types.map(row => JSON.stringify(row))).size, types.length)
  assert.equal(new Set(enumerations.map(row => row.name)).size, enumerations.length)
  const words = new TextDecoder().decode(names).split('\0').slice(0, -1)
  assert.equal(new Set(words).size, words.length)
})

const LISTS = 7

/**
 * A copy of the description of all classes with one changed number: row `row` and field `field`, modulo the number of
 * rows and fields, of list number `list`.
 */
const changed = (list: number, row: number, field: number, value: number): Description => {
  const copy = structuredClone(describe(classes))
  const rows = [copy.classes, copy.methods, copy.attributes, copy.types, copy.fields, copy.enumerations, copy.values]
  const chosen = rows[list] as unknown as Record<string, number>[]
  const at = chosen[row % chosen.length]
  at[Object.keys(at)[field % Object.keys(at).length]] = value
  return copy
}

test('rows with one changed number are valid, or refused with EINVAL', () => {
  let refused = 0
  fc.assert(
    fc.property(
      fc.nat(LISTS - 1),
      fc.nat(1000),
      fc.nat(10),
      fc.oneof(fc.nat(300), fc.nat(0xffffffff)),
      (list, row, field, value) => {
        try {
          declare(changed(list, row, field, value))
        } catch (error) {
          assert.ok(error instanceof CallError && error.code === 'EINVAL', String(error))
          refused++
        }
      },
    ),
    { numRuns: 300 },
  )
  assert.ok(refused > 20, `${refused} refused`)
})

test('a type cannot contain itself', () => {
  const copy = structuredClone(describe(classes))
  const record = copy.types.findIndex(({ kind }) => kind === KindNumber.values.record)
  copy.fields[copy.types[record].target].type = record
  assert.throws(() => declare(copy), /there is no type before this one/)
})

test('invalid names are refused', () => {
  const copy = structuredClone(describe(classes))
  copy.names[0] = 0xff
  assert.throws(() => declare(copy), /the bytes at 0 are not a name of letters, digits and _/)
})

test('types with too many bytes are refused', () => {
  const copy = structuredClone(describe(classes))
  copy.types.find(({ kind }) => kind === KindNumber.values.bytes)!.size = 0xffff_ffff
  assert.throws(() => declare(copy), /type \d+ has \d+ bytes, at most 1048576 are allowed/)
})

test('types with too many nested fields are refused', () => {
  const row = { kind: KindNumber.values.record, width: 0, flags: 0, size: 0, count: 2, min: 0, max: 0 }
  const nested: Description = {
    ...structuredClone(describe([])),
    names: new TextEncoder().encode('a\0b\0'),
    types: [{ ...row, kind: KindNumber.values.u8, target: 0, count: 0 }],
    fields: [],
  }
  // Each record has two fields of the previous type, with the names at bytes 0 and 2.
  for (let depth = 0; depth < 40; depth++) {
    nested.fields.push({ name: 0, offset: 0, type: depth }, { name: 2, offset: 1, type: depth })
    nested.types.push({ ...row, target: 2 * depth })
  }
  assert.throws(() => declare(nested), /type \d+ has \d+ fields, at most 4096 are allowed/)
})

test('a record cannot contain a type of variable size', () => {
  const copy = structuredClone(describe(classes))
  const { blob, list, record } = KindNumber.values
  for (const [kind, name] of [
    [blob, 'blob'],
    [list, 'list'],
  ] as const) {
    const variable = { kind, width: 0, flags: 0, size: 0xffff_ffff, target: 0, count: 0, min: 0, max: 0 }
    const outer = { ...variable, kind: record, size: 0, target: copy.fields.length, count: 1 }
    const nested = {
      ...copy,
      types: [...copy.types, variable, outer],
      fields: [...copy.fields, { name: 0, offset: 0, type: copy.types.length }],
    }
    assert.throws(() => declare(nested), { code: 'EINVAL', message: new RegExp(`a record cannot contain ${name}$`) })
  }
})

test('rows that belong to several records or enumerations are refused', () => {
  const copy = structuredClone(describe(classes))
  const enumeration = { ...copy.enumerations[0], first: 0, count: copy.values.length }
  const { values, fields } = copy
  const shared = { ...copy, enumerations: [...copy.enumerations, enumeration] }
  assert.throws(() => declare(shared), {
    code: 'EINVAL',
    message: new RegExp(`${2 * values.length} values are in use, there are ${values.length}$`),
  })
  const record = copy.types.find(({ kind }) => kind === KindNumber.values.record)!
  const sharedFields = { ...copy, types: [...copy.types, record] }
  assert.throws(() => declare(sharedFields), {
    code: 'EINVAL',
    message: new RegExp(`${fields.length + record.count} fields are in use, there are ${fields.length}$`),
  })
})

test('a type may have 4096 fields, nested fields included', () => {
  const row = { kind: KindNumber.values.u8, width: 0, flags: 0, size: 0, count: 0, min: 0, max: 0, target: 0 }
  const NAMES = 5000
  const NAME_BYTES = 6
  const nameOf = (i: number): string => `f${String(i).padStart(4, '0')}`
  const names = new TextEncoder().encode(Array.from({ length: NAMES }, (_, i) => `${nameOf(i)}\0`).join(''))
  /** An inner record of one-byte fields, and an outer record that has the inner one as a field. */
  const declareRecords = (innerFields: number, outerFields: number): ReturnType<typeof declare> => {
    const bytes = (count: number) =>
      Array.from({ length: count }, (_, i) => ({ name: NAME_BYTES * i, offset: i, type: 0 }))
    const record = { ...row, kind: KindNumber.values.record }
    return declare({
      ...structuredClone(describe([])),
      names,
      types: [
        row,
        { ...record, target: 0, count: innerFields },
        { ...record, target: innerFields, count: 1 + outerFields },
      ],
      fields: [...bytes(innerFields), { name: NAME_BYTES * (NAMES - 1), offset: 5000, type: 1 }, ...bytes(outerFields)],
    })
  }
  // Fields of the outer record: the inner record, its fields, and the other fields.
  assert.deepEqual(declareRecords(4095, 0), [])
  assert.deepEqual(declareRecords(95, 4000), [])
  assert.throws(() => declareRecords(4096, 0), /type 2 has 4097 fields, at most 4096 are allowed/)
  assert.throws(() => declareRecords(4097, 0), /type 1 has 4097 fields, at most 4096 are allowed/)
})
