/*
 * The fast check of arguments, compared with `problemOf`.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import fc from 'fast-check'
import { AccessFlags, Mtu, QpState } from '../../src/spec/enums.ts'
import {
  type Attributes,
  at,
  blob,
  bytes,
  enumeration,
  enumOf,
  fd,
  flagsOf,
  list,
  optional,
  record,
  ref,
  u8,
  u16,
  u32,
  u64,
} from '../../src/spec/schema/schema.ts'
import { checkOf, isValid, passesQuickCheck, shapeOf } from '../../src/uapi/argument-check.ts'
import { problemOf } from '../../src/uapi/scalar.ts'

const gaps = enumeration('gaps', { LOW: 1, HIGH: 7 })
const fields = {
  gid: at(0, bytes(0, 4)),
  number: at(4, u16(0, { min: 2, max: 9 })),
  inner: at(8, record(0, { a: at(0, u8(0)) })),
}
const attributes: Attributes = {
  small: u8(1, { max: 3 }),
  plain: optional(u32(2)),
  wide: optional(u64(3)),
  state: optional(enumOf(4, QpState)),
  gaps: optional(enumOf(5, gaps)),
  mtu: optional(enumOf(6, Mtu)),
  access: optional(flagsOf(7, AccessFlags, 1)),
  one: optional(record(8, fields)),
  many: optional(list(9, fields, 2)),
  some: optional(blob(10, 3)),
  pd: ref(11, 'pd'),
  channel: optional(fd(12, 'comp_channel')),
}

const bytesOf = fc.integer({ min: 0, max: 5 }).map(length => new Uint8Array(length))
const number = fc.oneof(
  fc.integer({ min: -1, max: 10 }),
  fc.constantFrom(255, 256, 65535, 65536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 0.5, NaN, Infinity, -0),
)
const otherTypes = fc.constantFrom(undefined, null, '1', true, {}, [], [1])
const big = fc.constantFrom(0n, 1n, -1n, (1n << 64n) - 1n, 1n << 64n)
const item = fc.record(
  {
    inner: fc.oneof(otherTypes, fc.record({ a: number }, { requiredKeys: [], noNullPrototype: true })),
    gid: fc.oneof(bytesOf, otherTypes),
    number,
    more: number,
  },
  { requiredKeys: ['gid', 'number'], noNullPrototype: true },
)
const validRecord = fc.constant({ number: 2, gid: new Uint8Array(4), inner: { a: 0 } })
const value = fc.oneof(
  number,
  otherTypes,
  big,
  bytesOf,
  item,
  validRecord,
  fc.array(fc.oneof(validRecord, item), { maxLength: 3 }),
)
const allNames = [...Object.keys(attributes), 'unknown', 'toString', '__proto__']
const someNames = fc.shuffledSubarray(allNames)
/** Valid arguments. */
const validArguments: Record<string, unknown> = {
  small: 1,
  plain: 5,
  wide: 1n,
  state: 2,
  gaps: 7,
  mtu: 5,
  access: 3,
  one: { number: 2, gid: new Uint8Array(4), inner: { a: 0 } },
  many: [],
  some: new Uint8Array(2),
  pd: 4,
  channel: 3,
}

const areValid = (args: Record<string, unknown>): boolean =>
  Object.entries(attributes).every(([name, { type, optional: isOptional }]) =>
    Object.hasOwn(args, name) ? problemOf('', type, args[name], false) === undefined : isOptional,
  ) && Object.keys(args).every(name => Object.hasOwn(attributes, name))

it('accepts arguments exactly if they have no problem', () => {
  const shape = shapeOf(attributes)
  const anyValues = fc.array(value, { minLength: allNames.length, maxLength: allNames.length })
  fc.assert(
    fc.property(someNames, anyValues, fc.nat(), (order, values, choice) => {
      const args: Record<string, unknown> = {}
      // A third of the cases have arbitrary values, the others at most one: otherwise hardly any case would be
      // accepted.
      const areAllArbitrary = choice % 3 === 0
      const arbitraryIndex = choice % allNames.length
      for (const [i, name] of order.entries()) {
        const isArbitrary = areAllArbitrary || i === arbitraryIndex
        Object.defineProperty(args, name, { value: isArbitrary ? values[i] : validArguments[name], enumerable: true })
      }
      assert.equal(passesQuickCheck(shape, args), areValid(args))
    }),
    { numRuns: 3000 },
  )
})

it('accepts a value exactly if it has no problem, strict or not', () => {
  const kinds = Object.values(attributes).map(({ type }) => type)
  const flag = fc.constantFrom(1, 4, 0x80, 0x81, 0x100, 1.5)
  for (const strict of [false, true])
    fc.assert(
      fc.property(fc.constantFrom(...kinds), fc.oneof(value, flag), (type, some) =>
        assert.equal(isValid(checkOf(type, strict), some), problemOf('', type, some, strict) === undefined),
      ),
      { numRuns: 3000 },
    )
})

it('ignores unknown fields of a record, but not unknown arguments', () => {
  const shape = shapeOf(attributes)
  const one = { ...(validArguments.one as object), more: 1 }
  assert.ok(passesQuickCheck(shape, { small: 1, pd: 1, one }))
  assert.equal(passesQuickCheck(shape, { small: 1, pd: 1, more: 1 }), false)
})

it('refuses a class instance, which may have accessors', () => {
  const shape = shapeOf(attributes)
  class Accessors {
    readonly small = 1
    readonly pd = 1
    get plain(): number {
      return -1
    }
  }
  assert.equal(passesQuickCheck(shape, new Accessors()), false)
})
