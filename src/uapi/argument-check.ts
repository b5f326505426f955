/*
 * The fast check of a call's arguments (R3, R5). `problemOf` (scalar.ts) returns the sentence about an invalid value.
 */
import type { Enumeration, Kind } from '../spec/schema/schema.ts'

/** Attributes of a method, or fields of a record. */
type Members = Readonly<Record<string, { readonly type: Kind; readonly optional?: boolean }>>

export interface ArgumentShape {
  readonly members: ReadonlyMap<string, Member>
  readonly requiredCount: number
  /** Whether unknown names are ignored (in a record) or refused (in a call's arguments). */
  readonly ignoresUnknown: boolean
}

interface Member {
  readonly check: Check
  readonly isOptional: boolean
}

// Values of `Check.type`.
const NUMBER = 0
const CHOICE = 1
const U64 = 2
const BYTES = 3
const RECORD = 4
const LIST = 5
const FLAGS = 6

/** A prepared kind. `min` and `max` limit a number, bytes or a list's length. For FLAGS, `max` has the named bits. */
export interface Check {
  /** NUMBER to FLAGS, above. */
  readonly type: number
  readonly min: number
  readonly max: number
  /** CHOICE: the allowed numbers. */
  readonly values: ReadonlySet<number> | undefined
  /** RECORD and LIST: the fields. */
  readonly shape: ArgumentShape | undefined
}

const MAX_U64 = (1n << 64n) - 1n

const limits = (type: number, min = 0, max = 0): Check => ({
  type,
  min,
  max,
  values: undefined,
  shape: undefined,
})

/** If the values have no gaps, two limits are enough. */
const choiceOf = ({ values: names }: Enumeration): Check => {
  const values = new Set(Object.values(names))
  const min = Math.min(...values)
  const max = Math.max(...values)
  return values.size === max - min + 1 ? limits(NUMBER, min, max) : { type: CHOICE, min, max, values, shape: undefined }
}

/** The named bits of a flag set, within its width. */
const bitsOf = ({ enumeration, width }: Kind & { readonly kind: 'flags' }): number =>
  (Object.values(enumeration.values).reduce((bits, bit) => bits | bit, 0) & (2 ** (8 * width) - 1)) >>> 0

export const HIGHEST = { u8: 0xff, u16: 0xffff, u32: 0xffffffff } as const

/** `strict`: unnamed bits of flags are invalid. */
export const checkOf = (type: Kind, strict = false): Check => {
  switch (type.kind) {
    case 'u8':
    case 'u16':
    case 'u32':
      return limits(NUMBER, Math.max(type.min ?? 0, 0), Math.min(type.max ?? HIGHEST[type.kind], HIGHEST[type.kind]))
    case 'enum':
      return choiceOf(type.enumeration)
    case 'flags':
      return strict ? limits(FLAGS, 0, bitsOf(type)) : limits(NUMBER, 0, 2 ** (8 * type.width) - 1)
    case 'ref':
      return limits(NUMBER, 0, 0xffffffff)
    case 'fd':
      return limits(NUMBER, 0, 0x7fffffff)
    case 'u64':
      return limits(U64)
    case 'bytes':
      return limits(BYTES, type.size, type.size)
    case 'blob':
      return limits(BYTES, 0, type.max)
    case 'record':
      return { type: RECORD, min: 0, max: 0, values: undefined, shape: recordShape(type.fields, strict) }
    case 'list':
      return { type: LIST, min: 0, max: type.max, values: undefined, shape: recordShape(type.fields, strict) }
  }
}

/** If false, `problemOf` must decide: it also accepts class instances as records. */
export const isValid = (check: Check, value: unknown): boolean => {
  switch (check.type) {
    case NUMBER:
      return typeof value === 'number' && value >= check.min && value <= check.max && Number.isInteger(value)
    case FLAGS:
      return (
        typeof value === 'number' &&
        value >= 0 &&
        value <= check.max &&
        Number.isInteger(value) &&
        (value & ~check.max) === 0
      )
    case CHOICE:
      return (check.values as ReadonlySet<unknown>).has(value)
    case U64:
      return typeof value === 'bigint' && value >= 0n && value <= MAX_U64
    case BYTES:
      return value instanceof Uint8Array && value.length >= check.min && value.length <= check.max
    case RECORD:
      return passesQuickCheck(check.shape as ArgumentShape, value)
    case LIST: {
      if (!Array.isArray(value) || value.length > check.max) return false
      for (let i = 0; i < value.length; i++) if (!passesQuickCheck(check.shape as ArgumentShape, value[i])) return false
      return true
    }
  }
  return true
}

const shapeWith = (members: Members, ignoresUnknown: boolean, strict: boolean): ArgumentShape => ({
  members: new Map(
    Object.entries(members).map(([name, { type, optional = false }]) => [
      name,
      { check: checkOf(type, strict), isOptional: optional },
    ]),
  ),
  requiredCount: Object.values(members).filter(({ optional }) => optional !== true).length,
  ignoresUnknown,
})

const recordShape = (fields: Members, strict: boolean): ArgumentShape => shapeWith(fields, true, strict)

export const shapeOf = (attributes: Members): ArgumentShape => shapeWith(attributes, false, false)

/** Whether all required members are present and all members are valid; false for class instances, as `isValid`. */
export const passesQuickCheck = (shape: ArgumentShape, values: unknown): boolean => {
  // `constructor`, because Object.getPrototypeOf takes as long as all other checks
  if (typeof values !== 'object' || values === null || values.constructor !== Object) return false
  let missing = shape.requiredCount
  for (const name in values) {
    const member = shape.members.get(name)
    if (member === undefined) {
      if (shape.ignoresUnknown) continue
      return false
    }
    if (!isValid(member.check, (values as Readonly<Record<string, unknown>>)[name])) return false
    if (!member.isOptional) missing--
  }
  return missing === 0
}
