/*
 * Whether values are right, quickly (R3, R5). What is wrong with a value, and the sentence about it, is `problemOf`
 * (scalar.ts); here is only whether there is anything to say, and of calls from this process hardly ever is.
 *
 * Programs write the same names in the same order again and again. So a shape remembers, name after name, what it has
 * seen: each step knows the kind of the value, which names must still come, and which references came. Going along
 * costs a comparison for each name, and nothing is looked up; records are checked in the same way. Whatever is not
 * plainly right (a name that nobody knows, a value that is undefined) is no fit, and the caller finds out why.
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

/** Attributes of a method, or fields of a record, which must all be there. */
type Members = Readonly<Record<string, { readonly of: Kind; readonly optional?: boolean }>>

export interface ArgumentShape {
  readonly members: Members
  /** Names that are no members are passed over, as in records. */
  readonly open: boolean
  /** As of `problemOf`. */
  readonly strict: boolean
  readonly references: readonly ReferenceAttribute[]
  /** Where every walk begins, and how many steps there are behind it. */
  root: Step
  steps: number
}

/** Where a walk is: what the names that came so far mean. */
export interface Step {
  readonly check: Check
  /** Members that must still come. */
  readonly missing: number
  /** Those that came, in the order of the declaration. */
  readonly references: readonly ReferenceAttribute[]
  /** The name that came here last time, where it led, and all that ever came. */
  name: string | undefined
  next: Step | undefined
  readonly known: Map<string, Step>
}

const NUMBER = 0
const CHOICE = 1
const WIDE = 2
const BYTES = 3
const RECORD = 4
const LIST = 5
const ANY = 6
const FLAGS = 7

/** A kind, prepared: the limits of a number (of flags the bits), of a length in bytes, or of a list's length. */
export interface Check {
  readonly type: number
  readonly least: number
  readonly most: number
  readonly values: ReadonlySet<number> | undefined
  readonly shape: ArgumentShape | undefined
}

/** Callers write names in few orders; one that makes up very many begins anew. */
const MOST_STEPS = 1000
const MOST_WIDE = (1n << 64n) - 1n

const plain = (type: number, least = 0, most = 0): Check => ({ type, least, most, values: undefined, shape: undefined })
const anything = plain(ANY)

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
      return checkShape(check.shape as ArgumentShape, value) !== undefined
    case LIST: {
      if (!Array.isArray(value) || value.length > check.most) return false
      for (let i = 0; i < value.length; i++)
        if (checkShape(check.shape as ArgumentShape, value[i]) === undefined) return false
      return true
    }
  }
  return true
}

const beginning = (members: Members): Step => ({
  check: anything,
  missing: Object.values(members).filter(({ optional }) => optional !== true).length,
  references: [],
  name: undefined,
  next: undefined,
  known: new Map(),
})

const shapeWith = (
  members: Members,
  open: boolean,
  strict: boolean,
  references: readonly ReferenceAttribute[],
): ArgumentShape => ({
  members,
  open,
  strict,
  references,
  root: beginning(members),
  steps: 0,
})

const recordShape = (fields: Members, strict: boolean): ArgumentShape => shapeWith(fields, true, strict, [])

/** Of a method's arguments, of which `references` name objects. */
export const shapeOf = (attributes: Members, references: readonly ReferenceAttribute[]): ArgumentShape =>
  shapeWith(attributes, false, false, references)

/** Where another name than last time leads; undefined for one that may not come. */
const other = (shape: ArgumentShape, from: Step, name: string): Step | undefined => {
  let to = from.known.get(name)
  if (to === undefined) {
    const member = Object.hasOwn(shape.members, name) ? shape.members[name] : undefined
    if (member === undefined && !shape.open) return undefined
    if (shape.steps === MOST_STEPS) {
      shape.root = beginning(shape.members)
      shape.steps = 0
    }
    shape.steps++
    const came = shape.references.filter(one => one.name === name || from.references.includes(one))
    to = {
      check: member === undefined ? anything : checkOf(member.of, shape.strict),
      missing: from.missing - (member === undefined || member.optional === true ? 0 : 1),
      references: came.length === from.references.length ? from.references : came,
      name: undefined,
      next: undefined,
      known: new Map(),
    }
    from.known.set(name, to)
  }
  from.name = name
  from.next = to
  return to
}

/**
 * Where the names of `values` lead, if all that must be there is and every value is right (as `problemOf`, not strict);
 * else undefined. Only for objects as they are written, `{…}`: accessors of a class are not seen.
 */
export const checkShape = (shape: ArgumentShape, values: unknown): Step | undefined => {
  // Asking for the prototype itself costs as much as all the rest.
  if (typeof values !== 'object' || values === null || values.constructor !== Object) return undefined
  let step = shape.root
  for (const name in values) {
    const next = step.name === name ? (step.next as Step) : other(shape, step, name)
    if (next === undefined || !isValid(next.check, (values as Readonly<Record<string, unknown>>)[name]))
      return undefined
    step = next
  }
  return step.missing === 0 ? step : undefined
}
