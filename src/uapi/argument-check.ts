/*
 * The fast check whether a call's arguments are valid (R3, R5). `problemOf` (scalar.ts) returns the sentence about an
 * invalid value.
 */
import type { Enumeration, Kind } from '../spec/schema/schema.ts'

/** An attribute that refers to an object. */
export interface ReferenceAttribute {
  readonly name: string
  readonly class: string
  /** A file descriptor of the caller, not a handle. */
  readonly fd: boolean
  readonly optional: boolean
}

/** Attributes of a method, or fields of a record. */
type Members = Readonly<Record<string, { readonly of: Kind; readonly optional?: boolean }>>

export interface ArgumentShape {
  readonly members: ReadonlyMap<string, Member>
  /** Number of required members. */
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

/** A prepared kind: the limits of a number (of flags the bits), of a length in bytes, or of a list's length. */
export interface Check {
  readonly type: number
  readonly min: number
  readonly max: number
  readonly values: ReadonlySet<number> | undefined
  readonly shape: ArgumentShape | undefined
}

const MAX_WIDE = (1n << 64n) - 1n

const plain = (type: number, min = 0, max = 0): Check => ({
  type,
  min: min,
  max: max,
  values: undefined,
  shape: undefined,
})

/** Every member of an enumeration; one without gaps needs two limits only. */
const choiceOf = ({ values: names }: Enumeration): Check => {
  const values = new Set(Object.values(names))
  const min = Math.min(...values)
  const max = Math.max(...values)
  return values.size === max - min + 1
    ? plain(NUMBER, min, max)
    : { type: CHOICE, min: min, max: max, values, shape: undefined }
}

/** The named bits of a flag set, within its width. */
const bitsOf = ({ of, width }: Kind & { readonly kind: 'flags' }): number =>
  (Object.values(of.values).reduce((bits, bit) => bits | bit, 0) & (2 ** (8 * width) - 1)) >>> 0

const HIGHEST = { u8: 0xff, u16: 0xffff, u32: 0xffffffff }

/** The limits of a kind, for `isValid`. */
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
      return { type: RECORD, min: 0, max: 0, values: undefined, shape: recordShape(of.fields, strict) }
    case 'list':
      return { type: LIST, min: 0, max: of.max, values: undefined, shape: recordShape(of.fields, strict) }
  }
}

/** True only if the value has no problem; false means, for some kinds, that `problemOf` must decide. */
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
    case WIDE:
      return typeof value === 'bigint' && value >= 0n && value <= MAX_WIDE
    case BYTES:
      return value instanceof Uint8Array && value.length >= check.min && value.length <= check.max
    case RECORD:
      return hasValidArguments(check.shape as ArgumentShape, value)
    case LIST: {
      if (!Array.isArray(value) || value.length > check.max) return false
      for (let i = 0; i < value.length; i++)
        if (!hasValidArguments(check.shape as ArgumentShape, value[i])) return false
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

/** The shape of a method's arguments. */
export const shapeOf = (attributes: Members): ArgumentShape => shapeWith(attributes, false, false)

/**
 * Whether all required members are present and every value is valid (as `problemOf`, not strict). For object literals
 * only: accessors of a class are not seen.
 */
export const hasValidArguments = (shape: ArgumentShape, values: unknown): boolean => {
  // `constructor` instead of the prototype: reading that takes as long as all other checks.
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
