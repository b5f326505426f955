/*
 * fast-check generators for values, arguments, results and calls, derived from the classes' declarations.
 */
import fc from 'fast-check'
import {
  type AnyRecord,
  type AnyValue,
  type AnyValues,
  type Attributes,
  CREATE,
  CREATE_FD,
  type Fields,
  type Kind,
  type ObjectClass,
  recordSize,
} from '../../src/spec/schema/schema.ts'
import type { Call, Result } from '../../src/uapi/call.ts'

/** Makes records with the usual prototype, as codecs do. */
const PLAIN = { noNullPrototype: true } as const

/** Maximum bytes of a list. A reply with the list fits a message buffer of the default size. */
const MAX_LIST_BYTES = 1000

const highest = { u8: 0xff, u16: 0xffff, u32: 0xffffffff }

/** A value of a kind, within its limits. */
const anyValue = (type: Kind): fc.Arbitrary<AnyValue> => {
  switch (type.kind) {
    case 'u8':
    case 'u16':
    case 'u32':
      return fc.integer({ min: type.min ?? 0, max: type.max ?? highest[type.kind] })
    case 'u64':
      return fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })
    case 'enum':
      return fc.constantFrom(...Object.values(type.enumeration.values))
    case 'flags':
      return fc
        .subarray(Object.values(type.enumeration.values))
        .map(bits => bits.reduce((all, bit) => (all | bit) >>> 0, 0))
    case 'ref':
      return fc.integer({ min: 0, max: 0xffffffff })
    case 'fd':
      return fc.integer({ min: 0, max: 0x7fffffff })
    case 'bytes':
      return fc.uint8Array({ minLength: type.size, maxLength: type.size })
    case 'blob':
      return fc.uint8Array({ maxLength: Math.min(type.max, 300), size: 'max' })
    case 'record':
      return recordOf(type.fields)
    case 'list':
      return fc.array(recordOf(type.fields), {
        maxLength: Math.min(type.max, 12, Math.floor(MAX_LIST_BYTES / recordSize(type.fields))),
      })
  }
}

const recordOf = (fields: Fields): fc.Arbitrary<AnyRecord> =>
  fc.record(Object.fromEntries(Object.entries(fields).map(([name, { type }]) => [name, anyValue(type)])), PLAIN)

/** Values for a set of attributes. Optional attributes may be absent. */
const valuesOf = (attributes: Attributes): fc.Arbitrary<AnyValues> => {
  const optional = Object.entries(attributes).filter(([, attribute]) => attribute.optional)
  return fc
    .tuple(
      fc.record(
        Object.fromEntries(Object.entries(attributes).map(([name, { type }]) => [name, anyValue(type)])),
        PLAIN,
      ),
      fc.subarray(optional.map(([name]) => name)),
    )
    .map(([values, omitted]) => Object.fromEntries(Object.entries(values).filter(([name]) => !omitted.includes(name))))
}

/** A call of a method, and a result without descriptors. */
export const callsOf = (cls: ObjectClass, methodName: string): fc.Arbitrary<{ call: Call; result: Result }> => {
  const method = cls.methods[methodName]
  const creates = method.call === CREATE || method.call === CREATE_FD
  const outputs = Object.fromEntries(Object.entries(method.out).filter(([, { type }]) => type.kind !== 'fd'))
  const number = fc.integer({ min: 0, max: 0xffffffff })
  return fc.tuple(valuesOf(method.in), valuesOf(outputs), number).map(([args, out, object]) => ({
    call: { class: cls, methodName, method, object: creates ? 0 : object, args },
    result: creates && cls.identity === 'handle' ? { object, out } : { out },
  }))
}

export const everyMethod = (classes: readonly ObjectClass[]): { cls: ObjectClass; name: string }[] =>
  classes.flatMap(cls => Object.keys(cls.methods).map(name => ({ cls, name })))
