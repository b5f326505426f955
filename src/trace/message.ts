/*
 * Reads messages of the object dialect for the tracer (docs/reference/object-dialect.md): like uapi/object/dialect.ts,
 * but it refuses nothing. The readable parts of a refused call are shown, the others as bytes. Nothing here
 * throws, whatever the bytes are.
 */
import { AttributeFlag, CommonAttribute } from '../spec/classes/ids.ts'
import { CallError } from '../spec/errno.ts'
import { type AnyValue, type Attributes, type Kind, recordSize, sizeOf } from '../spec/schema/schema.ts'
import { ATTRIBUTE, HEADER, INDIRECT, type Item, itemAt, WRITTEN_SHIFT } from '../uapi/object/format.ts'
import { readRecord, readScalar, viewOf } from '../uapi/scalar.ts'
import { bytesText, MAX_BYTES } from './bytes.ts'

export interface ReadMessage {
  /** The header's object; undefined if there is no header. */
  readonly object: number | undefined
  readonly values: Readonly<Record<string, AnyValue>>
  /** By name: values that are numbers of chain entries. */
  readonly chained: ReadonlySet<string>
  /** The unreadable part as text. */
  readonly rest: readonly string[]
}

/** Attributes of a message, up to the first that does not fit in it; undecodable bytes are from `at` to `end`. */
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

/** A payload of a kind; undefined if its length does not fit. Records are zero-extended (R4). */
export const readValue = (of: Kind, bytes: Uint8Array): AnyValue | undefined => {
  switch (of.kind) {
    case 'blob':
      return bytes.slice()
    case 'record': {
      const extended = new Uint8Array(Math.max(recordSize(of.fields), bytes.length))
      extended.set(bytes)
      return readRecord(viewOf(extended), 0, of.fields, '')
    }
    case 'list': {
      const size = recordSize(of.fields)
      if (bytes.length % size !== 0) return undefined
      const view = viewOf(bytes)
      return Array.from({ length: bytes.length / size }, (_, i) => readRecord(view, i * size, of.fields, ''))
    }
    default:
      return bytes.length === sizeOf(of) ? readScalar(viewOf(bytes), 0, bytes.length, of, '') : undefined
  }
}

/**
 * The values of a call's message (`attributes` are the method's inputs), or of an answer (its outputs). Outputs without
 * a value are omitted. At most `maxBytes` bytes of an unreadable part are shown; `memory`: the memory that indirect
 * values point to, by address.
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
      rest: bytes.length > 0 ? [bytesText(bytes, maxBytes)] : [],
    }
  const view = viewOf(bytes)
  const object = view.getUint32(4, true)
  const values: Record<string, AnyValue> = {}
  const chained = new Set<string>()
  const rest: string[] = []
  const names = new Map(
    Object.entries(attributes).map(([name, attribute]) => [attribute.id, { name, of: attribute.of }]),
  )
  const { items, at, end } = itemsOf(bytes)
  for (const { id, flags, payload: from, length } of items) {
    const isOut = (flags & AttributeFlag.OUT) !== 0
    const wanted = direction === 'out' ? isOut && (flags & AttributeFlag.FILLED) !== 0 : !isOut
    if (wanted && id !== CommonAttribute.LEGACY) {
      const room = bytes.subarray(from, from + length)
      const known = names.get(id)
      const name = known?.name ?? `attribute 0x${id.toString(16)}`
      const isIndirect = (flags & AttributeFlag.INDIRECT) !== 0 && room.length >= INDIRECT
      const address = isIndirect ? view.getBigUint64(from, true) : 0n
      const piece = isIndirect ? memory.get(address) : undefined
      if (isIndirect && piece === undefined)
        rest.push(`${name} at 0x${address.toString(16)}+${view.getBigUint64(from + 8, true)}`)
      else {
        // The upper half of an answer's flags is the number of bytes written.
        const written = flags >>> WRITTEN_SHIFT
        const inPlace = direction === 'out' && written <= room.length ? room.subarray(0, written) : room
        const payload = piece ?? inPlace
        const value = known === undefined ? undefined : readValue(known.of, payload)
        if (known === undefined || value === undefined) rest.push(`${name} ${bytesText(payload, maxBytes)}`)
        else {
          values[known.name] = value
          const isReference = known.of.kind === 'ref' || known.of.kind === 'fd'
          if (isReference && (flags & AttributeFlag.CHAINED) !== 0) chained.add(known.name)
        }
      }
    }
  }
  if (at < end) rest.push(`undecodable ${bytesText(bytes.subarray(at, end), maxBytes)}`)
  return { object, values, chained, rest }
}
