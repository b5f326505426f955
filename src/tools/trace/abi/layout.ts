/*
 * Splits messages of the object dialect into parts (R2, R3, R6; `userdma trace --abi`): header, attributes, and the
 * entries of chains with their messages. Unreadable parts stay bytes. Nothing throws. layout-text.ts shows the parts.
 */

import { Interface } from '../../../spec/classes/device/interface.ts'
import { AttributeFlag, CommonAttribute } from '../../../spec/classes/ids.ts'
import type { Declaration } from '../../../spec/records.ts'
import type { AnyValue, Kind } from '../../../spec/schema/schema.ts'
import { type ChainEntry, readableEntries } from '../../../uapi/object/chain.ts'
import { HEADER, INDIRECT_BYTES, WRITTEN_SHIFT } from '../../../uapi/object/format.ts'
import { viewOf } from '../../../uapi/scalar.ts'
import { methodOf } from '../decode.ts'
import { itemsOf, readValue } from '../message.ts'
import { limitedRange, type MemoryRange } from './memory-range.ts'

export interface MessageSource {
  readonly bytes: Uint8Array
  /** The length of the message; the tracer may have kept fewer `bytes`. */
  readonly length: number
  /** The call number; undefined: unknown. */
  readonly call: number | undefined
  /** Whether the message has the outputs, after the call. */
  readonly isAnswer: boolean
  readonly declared?: readonly Declaration[] | undefined
  /** The memory of an indirect input or output; undefined: not traced. */
  memoryAt(address: bigint, isOut: boolean): MemoryRange | undefined
}

export interface AttributeLayout {
  readonly name: string
  readonly id: number
  readonly flags: number
  readonly isOut: boolean
  /** The kind of the value; undefined: the method has no such attribute. */
  readonly type: Kind | undefined
  /** The address of an indirect value. */
  readonly address: bigint | undefined
  /** Bytes of the value, or of the space for the value. */
  readonly length: number | bigint
  /** Bytes of an output in the message that were written, or are needed. */
  readonly written: number
  /** Undefined: there is no value, or the value was not traced. */
  readonly bytes: Uint8Array | undefined
  /** Undefined: `bytes` are absent, incomplete or undecodable. */
  readonly value: AnyValue | undefined
  /** The chain in the attribute. */
  readonly chain: ChainParts | undefined
}

export interface MessageParts {
  /** `class.method`, or `unknown`. */
  readonly name: string
  readonly call: number | undefined
  /** Fields of the header (docs/reference/object-dialect.md), from here to `flags`. */
  readonly length: number
  readonly classId: number
  readonly object: number
  readonly opCtrl: number
  readonly flags: number
  readonly attributes: readonly AttributeLayout[]
  /** Bytes after the last readable attribute, and their number; the tracer may have kept fewer. */
  readonly undecoded: Uint8Array
  readonly undecodedLength: number
}

interface EntryParts {
  readonly entry: ChainEntry
  readonly message: MessageParts
}

export interface ChainParts {
  readonly entries: readonly EntryParts[]
  /** As in `MessageParts`. */
  readonly undecoded: Uint8Array
  readonly undecodedLength: number
  /** Why `undecoded` cannot be split into entries. Undefined: it is empty, or the tracer has kept fewer bytes. */
  readonly reason: string | undefined
}

/** The chain in `bytes`. A chain in a chain is not split: a chain that points to itself would never end. */
const chainParts = (source: MessageSource, bytes: Uint8Array, length: number): ChainParts => {
  const { entries, end, reason } = readableEntries(bytes)
  const isCut = length > bytes.length
  return {
    entries: entries.map(entry => {
      const { message, call } = entry
      return { entry, message: messageParts({ ...source, bytes: message, length: message.length, call }, false) }
    }),
    undecoded: bytes.subarray(end),
    undecodedLength: length - end,
    reason: isCut ? undefined : reason,
  }
}

/** The parts of a message with a header. `splitsChain`: whether a chain in the message is split too. */
const messageParts = (source: MessageSource, splitsChain: boolean): MessageParts => {
  const { bytes, call, isAnswer, declared } = source
  const view = viewOf(bytes)
  const classId = view.getUint16(2, true)
  const method = call === undefined ? undefined : methodOf(classId, call, declared)
  const { items, at, end } = itemsOf(bytes)
  const isChain = splitsChain && method !== undefined && classId === Interface.id && method.name === 'chain'
  const attributes = items.map((item): AttributeLayout => {
    const { id, flags, payload, length } = item
    const isOut = (flags & AttributeFlag.OUT) !== 0
    const isFilled = (flags & AttributeFlag.FILLED) !== 0
    const found = Object.entries(method?.[isOut ? 'out' : 'in'] ?? {}).find(([, attribute]) => attribute.id === id)
    const unknownName = id === CommonAttribute.LEGACY ? 'legacy' : `attribute 0x${id.toString(16)}`
    const [name, type] = found === undefined ? [unknownName, undefined] : [found[0], found[1].type]
    const isIndirect = (flags & AttributeFlag.INDIRECT) !== 0 && length === INDIRECT_BYTES
    // An indirect value is an address and a length, 64 bits each.
    const address = isIndirect ? view.getBigUint64(payload, true) : undefined
    const size = isIndirect ? view.getBigUint64(payload + 8, true) : length
    const written = isOut && !isIndirect ? flags >>> WRITTEN_SHIFT : 0
    const isPresent = !isOut || (isAnswer && isFilled)
    const range = address === undefined || !isPresent ? undefined : source.memoryAt(address, isOut)
    const memory = range && limitedRange(range, Number(size))
    const inlineLength = isOut ? Math.min(written, length) : length
    const inlineBytes = isPresent ? bytes.subarray(payload, payload + inlineLength) : undefined
    const value = isIndirect ? memory?.bytes : inlineBytes
    const isWhole = value !== undefined && (memory === undefined || memory.length === value.length)
    const hasChain = isChain && value !== undefined && (name === 'entries' || name === 'results')
    return {
      name,
      id,
      flags,
      isOut,
      type,
      address,
      length: size,
      written,
      bytes: value,
      value: type === undefined || value === undefined || !isWhole ? undefined : readValue(type, value),
      chain: hasChain ? chainParts(source, value, memory?.length ?? value.length) : undefined,
    }
  })
  const length = view.getUint16(0, true)
  const fullEnd = Math.max(end, Math.min(length, source.length))
  return {
    name: method === undefined ? 'unknown' : `${method.class.name}.${method.name}`,
    call,
    length,
    classId,
    object: view.getUint32(4, true),
    opCtrl: view.getUint32(8, true),
    flags: view.getUint32(12, true),
    attributes: isAnswer ? attributes.filter(({ isOut }) => isOut) : attributes,
    undecoded: bytes.subarray(at, end),
    undecodedLength: fullEnd - at,
  }
}

/** Undefined: fewer bytes than a header. */
export const splitMessage = (source: MessageSource): MessageParts | undefined =>
  source.bytes.length < HEADER ? undefined : messageParts(source, true)
