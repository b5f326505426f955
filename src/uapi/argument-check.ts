/*
 * A quick check of the arguments of a call (R3, R5): only whether they are right. What is wrong with a value, and the
 * sentence about it, is `problemOf` (scalar.ts).
 */
import type { Enumeration, Kind } from '../spec/schema/schema.ts'

/** An attribute that names an object. */
export interface ReferenceAttribute {
  readonly name: string
  readonly class: string
  /** A descriptor of the caller, not a handle. */
  readonly fd: boolean
  readonly optional: boolean
}

/** Attributes of a method, or fields of a record. */
type Members = Readonly<Record<string, { readonly of: Kind; readonly optional?: boolean }>>

export interface ArgumentShape {
  readonly members: ReadonlyMap<string, Member>
  /** How many members must be there. */
  readonly required: number
  /** Names that are not members are ignored, as in records. */
  readonly open: boolean
}

interface Member {
  readonly check: Check
  readonly optional: boolean
}

const NUMBER = 0
const CHOICE = 1
const WIDE = 2
const BYTES = 3
const RECORD = 4
const LIST = 5
const FLAGS = 6

/** A kind, prepared: the limits of a number (of flags the bits), of a length in bytes, or of a list's length. */
export interface Check {
  readonly type: number
  readonly least: number
  readonly most: number
  readonly values: ReadonlySet<number> | undefined
  readonly shape: ArgumentShape | undefined
}

const MOST_WIDE = (1n << 64n) - 1n

const plain = (type: number, least = 0, most = 0): Check => ({ type, least, most, values: undefined, shape: undefined })

/** Every member of a set of names with a number each; a row without gaps is as good as two limits. */
const choiceOf = ({ values: names }: Enumeration): Check => {
  const values = new Set(Object.values(names))
  const least = Math.min(...values)
  const most = Math.max(...values)
  return values.size === most - least + 1
    ? plain(NUMBER, least, most)
    : { type: CHOICE, least, most, values, shape: undefined }
}

/** Bits that flags name, of those that they have. */
const bitsOf = ({ of, width }: Kind & { readonly kind: 'flags' }): number =>
  (Object.values(of.values).reduce((bits, bit) => bits | bit, 0) & (2 ** (8 * width) - 1)) >>> 0

const HIGHEST = { u8: 0xff, u16: 0xffff, u32: 0xffffffff }

/** What a value of a kind is compared with by `isRight`. */
export const checkOf = (of: Kind, strict = false): Check => {
  switch (of.kind) {
    case 'u8':
    case 'u16':
    case 'u32':
      return plain(NUMBER, Math.max(of.min ?? 0, 0), Math.min(of.max ?? HIGHEST[of.kind], HIGHEST[of.kind]))
    case 'enum':
      return choiceOf(of.of)
    case 'flags':
      return strict ? plain(FLAGS, 0, bitsOf(of)) : plain(NUMBER, 0, 2 ** (8 * of.width) - 1)
    case 'ref':
      return plain(NUMBER, 0, 0xffffffff)
    case 'fd':
      return plain(NUMBER, 0, 0x7fffffff)
    case 'u64':
      return plain(WIDE)
    case 'bytes':
      return plain(BYTES, of.size, of.size)
    case 'blob':
      return plain(BYTES, 0, of.max)
    case 'record':
      return { type: RECORD, least: 0, most: 0, values: undefined, shape: recordShape(of.fields, strict) }
    case 'list':
      return { type: LIST, least: 0, most: of.max, values: undefined, shape: recordShape(of.fields, strict) }
  }
}

/** Whether a value has no problem; a false one of a kind that is not plain may still have none. */
export const isValid = (check: Check, value: unknown): boolean => {
  switch (check.type) {
    case NUMBER:
      return typeof value === 'number' && value >= check.least && value <= check.most && Number.isInteger(value)
    case FLAGS:
      return (
        typeof value === 'number' &&
        value >= 0 &&
        value <= check.most &&
        Number.isInteger(value) &&
        (value & ~check.most) === 0
      )
    case CHOICE:
      return (check.values as ReadonlySet<unknown>).has(value)
    case WIDE:
      return typeof value === 'bigint' && value >= 0n && value <= MOST_WIDE
    case BYTES:
      return value instanceof Uint8Array && value.length >= check.least && value.length <= check.most
    case RECORD:
      return hasRightArguments(check.shape as ArgumentShape, value)
    case LIST: {
      if (!Array.isArray(value) || value.length > check.most) return false
      for (let i = 0; i < value.length; i++)
        if (!hasRightArguments(check.shape as ArgumentShape, value[i])) return false
      return true
    }
  }
  return true
}

const shapeWith = (members: Members, open: boolean, strict: boolean): ArgumentShape => ({
  members: new Map(
    Object.entries(members).map(([name, { of, optional = false }]) => [name, { check: checkOf(of, strict), optional }]),
  ),
  required: Object.values(members).filter(({ optional }) => optional !== true).length,
  open,
})

const recordShape = (fields: Members, strict: boolean): ArgumentShape => shapeWith(fields, true, strict)

/** Of a method's arguments. */
export const shapeOf = (attributes: Members): ArgumentShape => shapeWith(attributes, false, false)

/**
 * Whether all members that must be there are, and every value is right (as `problemOf`, not strict). Only for object
 * literals: accessors of a class are not seen.
 */
export const hasRightArguments = (shape: ArgumentShape, values: unknown): boolean => {
  // reading the prototype itself costs as much as all the rest
  if (typeof values !== 'object' || values === null || values.constructor !== Object) return false
  let missing = shape.required
  for (const name in values) {
    const member = shape.members.get(name)
    if (member === undefined) {
      if (shape.open) continue
      return false
    }
    if (!isValid(member.check, (values as Readonly<Record<string, unknown>>)[name])) return false
    if (!member.optional) missing--
  }
  return missing === 0
}
