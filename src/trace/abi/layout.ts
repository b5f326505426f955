/*
 * Messages of the object dialect as they are in memory (R2, R3, R6; `userdma trace --abi`): header; attributes with
 * ids, flags and lengths; fields of records with offsets; entries of chains with their messages; of the answer the
 * outputs. Of refused messages the readable part is laid out, the rest is shown as bytes; nothing throws.
 *
 * `splitMessage` finds the parts; layout-text.ts shows them.
 */

import { Interface } from '../../spec/classes/device/interface.ts'
import { AttributeFlag, CommonAttribute } from '../../spec/classes/ids.ts'
import type { AnyValue, Kind } from '../../spec/schema/schema.ts'
import { type ChainEntry, readableEntries } from '../../uapi/object/chain.ts'
import { HEADER, INDIRECT, WRITTEN_SHIFT } from '../../uapi/object/format.ts'
import { viewOf } from '../../uapi/scalar.ts'
import type { Declaration } from '../../uapi/tool.ts'
import { methodOf } from '../decode.ts'
import { itemsOf, readValue } from '../message.ts'
import type { Piece } from './piece.ts'

/** A message to lay out, with its context. */
export interface Source {
  readonly bytes: Uint8Array
  /** The message's actual number of bytes. */
  readonly length: number
  /** Undefined: unknown class or method. */
  readonly call: number | undefined
  readonly answered: boolean
  readonly declared?: readonly Declaration[] | undefined
  /** Memory at an address that an input or output points to. */
  piece(address: bigint, isOut: boolean): Piece | undefined
}

export interface AttributeLayout {
  readonly name: string
  readonly id: number
  readonly flags: number
  readonly isOut: boolean
  /** Undefined: the method has no such attribute. */
  readonly of: Kind | undefined
  /** Address of the value of an indirect attribute. */
  readonly address: bigint | undefined
  /** Bytes of the value, or of the room for it. */
  readonly length: number | bigint
  /** Of an output in the message: bytes that were written, or that are needed. */
  readonly written: number
  /** The known bytes of the value; undefined if there are none, or they were not read. */
  readonly bytes: Uint8Array | undefined
  readonly value: AnyValue | undefined
  readonly chain: ChainParts | undefined
}

export interface MessageParts {
  /** `class.method`; a number in the place of an unknown name. */
  readonly name: string
  readonly call: number | undefined
  readonly length: number
  readonly classId: number
  readonly object: number
  readonly opCtrl: number
  readonly flags: number
  readonly attributes: readonly AttributeLayout[]
  /** Bytes that are not an attribute, and their full number. */
  readonly rest: Uint8Array
  readonly restLength: number
}

export interface EntryParts {
  readonly entry: ChainEntry
  readonly message: MessageParts
}

export interface ChainParts {
  readonly entries: readonly EntryParts[]
  readonly rest: Uint8Array
  readonly restLength: number
  /** Why the rest cannot be split into entries. */
  readonly reason: string | undefined
}

const PREFIX = /^entry \d+ of the chain, at \d+: /

/** The chain in `bytes`. A nested chain is shown as bytes, because one that points to itself would never end. */
const chainParts = (source: Source, bytes: Uint8Array, length: number): ChainParts => {
  const { entries, end, error } = readableEntries(bytes)
  const isCut = length > bytes.length
  return {
    entries: entries.map(entry => {
      const { message, call } = entry
      return { entry, message: messageParts({ ...source, bytes: message, length: message.length, call }, false) }
    }),
    rest: bytes.subarray(end),
    restLength: length - end,
    reason: isCut ? undefined : error?.message.replace(PREFIX, ''),
  }
}

/** The parts of a message that has a header. */
const messageParts = (source: Source, mayChain: boolean): MessageParts => {
  const { bytes, call, answered, declared } = source
  const view = viewOf(bytes)
  const classId = view.getUint16(2, true)
  const method = call === undefined ? undefined : methodOf(classId, call, declared)
  const { items, at, end } = itemsOf(bytes)
  const isChain = mayChain && method !== undefined && classId === Interface.id && method.name === 'chain'
  const attributes = items.map((item): AttributeLayout => {
    const { id, flags, payload, length } = item
    const isOut = (flags & AttributeFlag.OUT) !== 0
    const isFilled = (flags & AttributeFlag.FILLED) !== 0
    const [name, of] = Object.entries(method?.[isOut ? 'out' : 'in'] ?? {})
      .map(([one, attribute]) => [one, attribute.of, attribute.id] as const)
      .find(([, , number]) => number === id) ?? [
      id === CommonAttribute.LEGACY ? 'legacy' : `attribute 0x${id.toString(16)}`,
      undefined,
    ]
    const isIndirect = (flags & AttributeFlag.INDIRECT) !== 0 && length === INDIRECT
    const address = isIndirect ? view.getBigUint64(payload, true) : undefined
    const size = isIndirect ? view.getBigUint64(payload + 8, true) : length
    const written = isOut && !isIndirect ? flags >>> WRITTEN_SHIFT : 0
    const isPresent = !isOut || (answered && isFilled)
    const piece = address === undefined || !isPresent ? undefined : source.piece(address, isOut)
    const inPlace = isOut && written <= length ? written : length
    const value =
      address !== undefined ? piece?.bytes : isPresent ? bytes.subarray(payload, payload + inPlace) : undefined
    const isWhole = value !== undefined && (piece === undefined || piece.length === value.length)
    const holdsChain = isChain && value !== undefined && (name === 'entries' || name === 'results')
    return {
      name,
      id,
      flags,
      isOut,
      of,
      address,
      length: size,
      written,
      bytes: value,
      value: of === undefined || value === undefined || !isWhole ? undefined : readValue(of, value),
      chain: holdsChain ? chainParts(source, value, piece?.length ?? value.length) : undefined,
    }
  })
  const length = view.getUint16(0, true)
  const className = method?.class.name ?? 'unknown'
  return {
    name: method === undefined ? className : `${className}.${method.name}`,
    call,
    length,
    classId,
    object: view.getUint32(4, true),
    opCtrl: view.getUint32(8, true),
    flags: view.getUint32(12, true),
    attributes: answered ? attributes.filter(({ isOut }) => isOut) : attributes,
    rest: bytes.subarray(at, end),
    // The tracer may have kept fewer bytes than there were.
    restLength: Math.max(end, Math.min(length, source.length)) - at,
  }
}

/** Undefined if there are fewer bytes than a header. */
export const splitMessage = (source: Source): MessageParts | undefined =>
  source.bytes.length < HEADER ? undefined : messageParts(source, true)
