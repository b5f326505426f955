/*
 * Attributes of netlink messages, bytes ⇄ values, by the table of spec/linux/nldev.ts. struct nlattr: u16 length of
 * header (4 bytes) and value, u16 type, value, padding to 4 bytes. Numbers are little-endian.
 */
import { CallError, callError } from '../../spec/errno.ts'
import {
  NLA_F_NESTED,
  NLA_TYPE_MASK,
  type NldevAttribute,
  type NldevAttributeName,
  NldevAttributes,
  type NldevKind,
} from '../../spec/linux/nldev.ts'
import { viewOf } from '../scalar.ts'

/** In the order of the message. */
export type Entries = readonly Entry[]
export type Entry = readonly [name: NldevAttributeName, value: EntryValue]
/** Nested attributes are an array, or `flagged` if the type of the attribute around them has NLA_F_NESTED. */
export type EntryValue = number | bigint | string | Uint8Array | Entries | { readonly flagged: Entries }

/** The attributes of a request. Nested attributes are bytes. */
export type Attributes = {
  readonly [K in NldevAttributeName]?: ValueOf<(typeof NldevAttributes)[K]['kind']>
}
type ValueOf<K extends NldevKind> = K extends 'u8' | 'u32' | 's32'
  ? number
  : K extends 'u64' | 's64'
    ? bigint
    : K extends 'text'
      ? string
      : Uint8Array

/** Size of struct nlattr. */
const HEADER = 4
/** Size of struct sockaddr_storage. */
const SOCKADDR_STORAGE_BYTES = 128
/** The length with padding. */
export const padded = (length: number): number => (length + 3) & ~3

const table: Readonly<Record<string, NldevAttribute>> = NldevAttributes
const byNumber: readonly (NldevAttributeName | undefined)[] = Object.entries(table).reduce<NldevAttributeName[]>(
  (names, [name, { number }]) => {
    names[number] = name as NldevAttributeName
    return names
  },
  [],
)

const SIZES = { u8: 1, u32: 4, s32: 4, u64: 8, s64: 8 } as const
/** 0 for kinds without a fixed size. */
const sizeOf = (kind: NldevKind): number => (kind in SIZES ? SIZES[kind as keyof typeof SIZES] : 0)

// ---- writing ----

const encoder = new TextEncoder()
const decoder = new TextDecoder()

const isEntries = (value: EntryValue): value is Entries => Array.isArray(value)

const payload = (kind: NldevKind, value: EntryValue): Uint8Array => {
  if (typeof value === 'string') return encoder.encode(`${value}\0`)
  if (value instanceof Uint8Array) return value
  if (isEntries(value)) return encodeAttributes(value)
  if (typeof value === 'object') return encodeAttributes(value.flagged)
  const bytes = new Uint8Array(sizeOf(kind))
  const view = viewOf(bytes)
  if (bytes.length === 1) view.setUint8(0, Number(value))
  else if (bytes.length === 4) view.setUint32(0, Number(value), true)
  else view.setBigUint64(0, BigInt(value), true)
  return bytes
}

export const encodeAttributes = (entries: Entries): Uint8Array => {
  const parts = entries.map(([name, value]) => {
    const { number, kind } = table[name]!
    const isFlagged = typeof value === 'object' && 'flagged' in value
    return { type: number | (isFlagged ? NLA_F_NESTED : 0), bytes: payload(kind, value) }
  })
  const encoded = new Uint8Array(parts.reduce((sum, { bytes }) => sum + padded(HEADER + bytes.length), 0))
  const view = viewOf(encoded)
  let at = 0
  for (const { type, bytes } of parts) {
    view.setUint16(at, HEADER + bytes.length, true)
    view.setUint16(at + 2, type, true)
    encoded.set(bytes, at + HEADER)
    at += padded(HEADER + bytes.length)
  }
  return encoded
}

// ---- reading ----

interface Raw {
  /** With NLA_F_NESTED. */
  readonly type: number
  readonly bytes: Uint8Array
}

/** Attributes up to the first malformed one. `unreadBytes`: bytes from the malformed one on. */
const split = (bytes: Uint8Array): { readonly raw: Raw[]; readonly unreadBytes: number } => {
  const view = viewOf(bytes)
  const raw: Raw[] = []
  let at = 0
  while (bytes.length - at >= HEADER) {
    const length = view.getUint16(at, true)
    if (length < HEADER || length > bytes.length - at) break
    raw.push({ type: view.getUint16(at + 2, true), bytes: bytes.subarray(at + HEADER, at + length) })
    at = Math.min(at + padded(length), bytes.length)
  }
  return { raw, unreadBytes: bytes.length - at }
}

const textOf = (bytes: Uint8Array): string => {
  const end = bytes.indexOf(0)
  return decoder.decode(end < 0 ? bytes : bytes.subarray(0, end))
}

const decodeValue = (kind: NldevKind, bytes: Uint8Array): number | bigint | string | Uint8Array => {
  const view = viewOf(bytes)
  switch (kind) {
    case 'u8':
      return view.getUint8(0)
    case 'u32':
      return view.getUint32(0, true)
    case 's32':
      return view.getInt32(0, true)
    case 'u64':
      return view.getBigUint64(0, true)
    case 's64':
      return view.getBigInt64(0, true)
    case 'text':
      return textOf(bytes)
    default:
      return bytes
  }
}

/** Why an attribute of a request is refused, as by Linux's validate_nla. */
type Problem = readonly [code: 'EINVAL' | 'ERANGE', reason: string] | undefined

const textProblem = (name: string, bytes: Uint8Array, maxBytes = Number.POSITIVE_INFINITY): Problem => {
  const tooLong = `attribute ${name} has more than ${maxBytes} characters`
  if (!bytes.subarray(0, maxBytes + 1).includes(0)) {
    const isTooLong = bytes.length > maxBytes
    return ['EINVAL', isTooLong ? tooLong : `attribute ${name} is a text without NUL at its end`]
  }
  const length = bytes.at(-1) === 0 ? bytes.length - 1 : bytes.length
  return length > maxBytes ? ['ERANGE', tooLong] : undefined
}

/** Problems that Linux reports only for some commands (`NldevCommand.isStrict`). */
const strictProblem = (name: NldevAttributeName, type: number, length: number): Problem => {
  const { kind } = table[name]!
  const isFlagged = (type & NLA_F_NESTED) !== 0
  if (isFlagged !== (kind === 'nested') && kind !== 'address')
    return ['EINVAL', `attribute ${name}: NLA_F_NESTED ${isFlagged ? 'is not expected' : 'is missing'}`]
  const size = sizeOf(kind)
  if (size > 0 && length !== size) return ['EINVAL', `attribute ${name} has ${length} bytes; ${size} are right`]
  return kind === 'address' ? ['EINVAL', `attribute ${name} is not for requests`] : undefined
}

const problemOf = (name: NldevAttributeName, bytes: Uint8Array): Problem => {
  const { kind, maxBytes } = table[name]!
  if (kind === 'text') return textProblem(name, bytes, maxBytes)
  const size = kind === 'address' ? SOCKADDR_STORAGE_BYTES : sizeOf(kind)
  if (bytes.length < size) return ['ERANGE', `attribute ${name} has ${bytes.length} bytes; ${size} are right`]
  return kind === 'nested' && bytes.length > 0 && bytes.length < HEADER
    ? ['ERANGE', `attribute ${name} has ${bytes.length} bytes, less than a nested attribute`]
    : undefined
}

/**
 * The attributes of a request; of several with one name, the last. Throws CallError as Linux's parser does: ERANGE
 * for a truncated number or nested attribute, and for a text with a NUL within the maximum but bytes beyond it;
 * otherwise EINVAL.
 *
 * `strict`: also refuses unknown attributes, too long numbers, a missing or unexpected NLA_F_NESTED, and bytes at the
 * end that are not an attribute.
 */
export const readAttributes = (bytes: Uint8Array, strict: boolean): Attributes => {
  const { raw, unreadBytes } = split(bytes)
  const found: Record<string, unknown> = {}
  for (const { type, bytes: value } of raw) {
    const name = byNumber[type & NLA_TYPE_MASK]
    if (name === undefined) {
      if (strict) throw callError.EINVAL`attribute ${type & NLA_TYPE_MASK} is unknown`
      continue
    }
    const problem = (strict ? strictProblem(name, type, value.length) : undefined) ?? problemOf(name, value)
    if (problem !== undefined) throw new CallError(...problem)
    found[name] = decodeValue(table[name]!.kind, value)
  }
  if (strict && unreadBytes > 0) throw callError.EINVAL`${unreadBytes} bytes at the end are not an attribute`
  return found
}

/** All attributes of a message, with nested ones decoded, for tests. Omits unknown attributes and truncated numbers. */
export const decodeAttributes = (bytes: Uint8Array): Entries =>
  split(bytes).raw.flatMap(({ type, bytes: value }): Entry[] => {
    const name = byNumber[type & NLA_TYPE_MASK]
    if (name === undefined || value.length < sizeOf(table[name]!.kind)) return []
    const { kind } = table[name]!
    if (kind !== 'nested') return [[name, decodeValue(kind, value)]]
    const inner = decodeAttributes(value)
    return [[name, type & NLA_F_NESTED ? { flagged: inner } : inner]]
  })
