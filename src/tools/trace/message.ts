/*
 * Reads messages of the object dialect for the tracer (docs/reference/object-dialect.md). Nothing is refused, and
 * nothing throws, whatever the bytes are: readable parts become values, other parts stay bytes.
 */
import { AttributeFlag, CommonAttribute } from '../../spec/classes/ids.ts'
import { CallError } from '../../spec/errno.ts'
import { type AnyValue, type Attributes, type Kind, recordSize, sizeOf } from '../../spec/schema/schema.ts'
import { ATTRIBUTE, HEADER, INDIRECT_BYTES, type Item, itemAt, WRITTEN_SHIFT } from '../../uapi/object/format.ts'
import { readRecord, readScalar, viewOf } from '../../uapi/scalar.ts'
import { bytesText, MAX_BYTES } from './bytes.ts'

/** The values in a message. */
export interface ReadMessage {
  /** The object in the header; undefined: no header. */
  readonly object: number | undefined
  readonly values: Readonly<Record<string, AnyValue>>
  /** Names of values that are numbers of chain entries. */
  readonly chained: ReadonlySet<string>
  /** The unreadable parts as text. */
  readonly unreadable: readonly string[]
}

/** The attributes of a message with a header, up to the first that does not fit. Bytes `at` to `end` are the rest. */
export const itemsOf = (bytes: Uint8Array): { items: readonly Item[]; at: number; end: number } => {
  const view = viewOf(bytes)
  const end = Math.min(bytes.length, Math.max(HEADER, view.getUint16(0, true)))
  const items: Item[] = []
  let at = HEADER
  try {
    for (; at + ATTRIBUTE <= end; at = items[items.length - 1]!.next) items.push(itemAt('', view, at, end))
  } catch (error) {
    if (!(error instanceof CallError)) throw error
  }
  return { items, at, end }
}

/** The value of an attribute; undefined: wrong length. Short records are zero-extended (R4). */
export const readValue = (type: Kind, bytes: Uint8Array): AnyValue | undefined => {
  switch (type.kind) {
    case 'blob':
      return bytes.slice()
    case 'record': {
      const extended = new Uint8Array(Math.max(recordSize(type.fields), bytes.length))
      extended.set(bytes)
      return readRecord(viewOf(extended), 0, type.fields, '')
    }
    case 'list': {
      const size = recordSize(type.fields)
      if (bytes.length % size !== 0) return undefined
      const view = viewOf(bytes)
      return Array.from({ length: bytes.length / size }, (_, i) => readRecord(view, i * size, type.fields, ''))
    }
    default:
      return bytes.length === sizeOf(type) ? readScalar(viewOf(bytes), 0, bytes.length, type, '') : undefined
  }
}

/**
 * Reads the inputs of a message, or the outputs of an answer. `attributes`: the method's, in this direction. Outputs
 * without a value are omitted. The text of an unreadable part has at most `maxBytes` bytes. `memory`: the memory to
 * which indirect values point, by address.
 */
export const readMessage = (
  bytes: Uint8Array,
  attributes: Attributes,
  direction: 'in' | 'out',
  maxBytes: number = MAX_BYTES,
  memory: ReadonlyMap<bigint, Uint8Array> = new Map(),
): ReadMessage => {
  if (bytes.length < HEADER)
    return {
      object: undefined,
      values: {},
      chained: new Set(),
      unreadable: bytes.length > 0 ? [bytesText(bytes, maxBytes)] : [],
    }
  const view = viewOf(bytes)
  const object = view.getUint32(4, true)
  const values: Record<string, AnyValue> = {}
  const chained = new Set<string>()
  const unreadable: string[] = []
  const names = new Map(
    Object.entries(attributes).map(([name, attribute]) => [attribute.id, { name, type: attribute.type }]),
  )
  const { items, at, end } = itemsOf(bytes)
  for (const { id, flags, payload: offset, length } of items) {
    const isOut = (flags & AttributeFlag.OUT) !== 0
    const isOfDirection = direction === 'out' ? isOut && (flags & AttributeFlag.FILLED) !== 0 : !isOut
    if (isOfDirection && id !== CommonAttribute.LEGACY) {
      const inMessage = bytes.subarray(offset, offset + length)
      const declared = names.get(id)
      const name = declared?.name ?? `attribute 0x${id.toString(16)}`
      const isIndirect = (flags & AttributeFlag.INDIRECT) !== 0 && inMessage.length >= INDIRECT_BYTES
      const address = isIndirect ? view.getBigUint64(offset, true) : 0n
      const pointed = isIndirect ? memory.get(address) : undefined
      if (isIndirect && pointed === undefined)
        unreadable.push(`${name} at 0x${address.toString(16)}+${view.getBigUint64(offset + 8, true)}`)
      else {
        // In an answer, the upper half of the flags is the number of bytes written.
        const written = flags >>> WRITTEN_SHIFT
        const inline = direction === 'out' && written <= inMessage.length ? inMessage.subarray(0, written) : inMessage
        const payload = pointed ?? inline
        const value = declared === undefined ? undefined : readValue(declared.type, payload)
        if (declared === undefined || value === undefined) unreadable.push(`${name} ${bytesText(payload, maxBytes)}`)
        else {
          values[declared.name] = value
          const isReference = declared.type.kind === 'ref' || declared.type.kind === 'fd'
          if (isReference && (flags & AttributeFlag.CHAINED) !== 0) chained.add(declared.name)
        }
      }
    }
  }
  if (at < end) unreadable.push(`undecodable ${bytesText(bytes.subarray(at, end), maxBytes)}`)
  return { object, values, chained, unreadable }
}
