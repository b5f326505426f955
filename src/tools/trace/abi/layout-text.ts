/*
 * Bytes of calls for `userdma trace --abi`: calls of the object dialect as lines and as JSON, calls on a driver's
 * descriptor as lines.
 */

import { hex, hexBytes } from '../../../base/text.ts'
import { AttributeFlag, ChainEntryFlag, MessageFlag } from '../../../spec/classes/ids.ts'
import { CtxArguments, CtxInterface, CtxSend } from '../../../spec/drivers/ctx.ts'
import type { TraceRecord } from '../../../spec/records.ts'
import { type AnyRecord, type Fields, recordSize, sizeOf } from '../../../spec/schema/schema.ts'
import { callOfRequest } from '../../../uapi/object/format.ts'
import { bytesText } from '../bytes.ts'

import { readValue } from '../message.ts'
import { type Style, valueJson, valueText } from '../values.ts'
import { type AttributeLayout, type ChainParts, type MessageParts, type MessageSource, splitMessage } from './layout.ts'
import { limitedBytes, type MemoryRange, memoryText } from './memory-range.ts'
import { fdText, type NewDescriptors } from './struct.ts'

export const indented = (lines: readonly string[]): string[] => lines.map(line => `  ${line}`)

/** Names of the set bits, then the unknown bits as a number. */
const bitNames = (table: Readonly<Record<string, number>>, value: number): string[] => {
  const known = Object.values(table).reduce((bits, bit) => bits | bit, 0)
  const names = Object.keys(table).filter(name => (value & table[name]!) !== 0)
  const unknownBits = (value & ~known) >>> 0
  return unknownBits === 0 ? names : [...names, hex(unknownBits)]
}
const bitsText = (table: Readonly<Record<string, number>>, value: number): string =>
  bitNames(table, value).join('|') || '0'

// ---- attributes ----

/** Names of flags in lower case, and unknown bits as a number. An input is `mandatory` or `optional`. */
const flagWords = ({ flags, isOut }: AttributeLayout): string[] => {
  // Bits 16 to 31 are the number of bytes written or needed, in an answer.
  const { MANDATORY, ...others } = AttributeFlag
  const words = bitNames(others, flags & 0xffff & ~MANDATORY).map(name => name.toLowerCase())
  if ((flags & MANDATORY) !== 0) return ['mandatory', ...words]
  return isOut ? words : ['optional', ...words]
}

/**
 * Lines `+offset name value` of the nonzero fields of a record, or of all if `style.showsZeros`; then the bytes after
 * the last known field.
 */
const fieldLines = (fields: Fields, value: AnyRecord, bytes: Uint8Array, style: Style): string[] => {
  const shown = Object.entries(fields).filter(([, { offset, type }]) => {
    const size = sizeOf(type)
    return (
      offset + size <= bytes.length &&
      (style.showsZeros || bytes.subarray(offset, offset + size).some(byte => byte !== 0))
    )
  })
  const lines = shown
    .slice(0, style.fields)
    .map(([name, { offset, type }]) => `+${offset} ${name} ${valueText(name, type, value[name]!, style)}`)
  const hiddenFields = shown.length - lines.length
  const tail = bytes.subarray(recordSize(fields))
  return [
    ...lines,
    ...(hiddenFields > 0 ? [`… ${hiddenFields} more fields`] : []),
    ...(tail.length > 0 ? [`+${recordSize(fields)} unknown ${bytesText(tail, style.bytes)}`] : []),
  ]
}

const valueLines = ({ name, type, value, bytes, chain }: AttributeLayout, style: Style): string[] => {
  if (chain !== undefined) return chainLines(chain, style)
  if (type === undefined || value === undefined || bytes === undefined) return []
  if (type.kind === 'record') return fieldLines(type.fields, value as AnyRecord, bytes, style)
  if (type.kind !== 'list') return []
  const records = value as readonly AnyRecord[]
  const size = recordSize(type.fields)
  const lines = records.slice(0, style.records).map((entry, i) => {
    const text = valueText(name, { kind: 'record', fields: type.fields }, entry, style)
    return `+${i * size} ${name}[${i}] ${text}`
  })
  return records.length > lines.length ? [...lines, `… ${records.length - lines.length} more`] : lines
}

/** Whether the value is the number of the chain entry that creates the object. */
const isEntryNumber = ({ flags, type }: AttributeLayout): boolean =>
  (flags & AttributeFlag.CHAINED) !== 0 && (type?.kind === 'ref' || type?.kind === 'fd')

/** The value after its bytes; '' if the text is the bytes. */
const scalarText = (attribute: AttributeLayout, style: Style): string => {
  const { name, type, value, bytes } = attribute
  if (
    type === undefined ||
    value === undefined ||
    bytes === undefined ||
    type.kind === 'record' ||
    type.kind === 'list'
  )
    return ''
  if (isEntryNumber(attribute)) return ` = entry ${value}`
  const text = valueText(name, type, value, style)
  return text === bytesText(bytes, style.bytes) ? '' : ` = ${text}`
}

/** `, then fd N`: the number of a new descriptor, which the program gets instead of the value in the answer. */
const newDescriptorText = (name: string, newDescriptors: NewDescriptors): string =>
  newDescriptors.has(name) ? `, then ${fdText(newDescriptors, name)}` : ''

/** `isAnswer`: as in `MessageSource`. */
const attributeLines = (
  attribute: AttributeLayout,
  isAnswer: boolean,
  style: Style,
  newDescriptors: NewDescriptors,
): string[] => {
  const { name, id, flags, type, address, length, written, bytes, isOut } = attribute
  const label = name.startsWith('attribute ') ? name : `${name} ${hex(id)}`
  const addressText = address === undefined ? '' : ` at ${hex(address)}`
  const begin = `${label} ${flagWords(attribute).join(' ')}`
  if (bytes === undefined) {
    // The memory of an input or of a filled output was not traced.
    if (!isOut || (isAnswer && (flags & AttributeFlag.FILLED) !== 0)) return [`${begin}, ${length} bytes${addressText}`]
    if (!isAnswer) return [`${begin}, room for ${length} bytes${addressText}`]
    // If the output did not fit, `written` is the number of bytes that it needs.
    return [
      `${begin}${addressText}, ${written === 0 ? `not filled, ${length} bytes` : `needs ${written} bytes, has ${length}`}`,
    ]
  }
  const isUndecodable = type !== undefined && attribute.value === undefined && attribute.chain === undefined
  const isShort = typeof length === 'bigint' && length > bytes.length
  const count = isOut && address === undefined ? `${bytes.length} of ${length}` : String(length)
  const text = limitedBytes(bytes, isShort ? Number(length) : bytes.length, style)
  const value = newDescriptors.has(name) ? newDescriptorText(name, newDescriptors) : scalarText(attribute, style)
  const note = isUndecodable && !isShort ? ' (undecodable)' : value
  return [`${begin}${addressText}, ${count} bytes: ${text}${note}`, ...indented(valueLines(attribute, style))]
}

// ---- messages and chains ----

/** `newDescriptor`: text after the object. */
const headerText = ({ length, classId, object, opCtrl, flags, call }: MessageParts, newDescriptor = ''): string =>
  `length ${length}, class ${classId}${call === undefined ? '' : `, call ${call}`}, object ${object}${newDescriptor}, ` +
  `op_ctrl ${opCtrl}, flags ${bitsText(MessageFlag, flags)}`

/**
 * The bytes after the last readable part, at most one line. `length`: their number, of which the tracer may have kept
 * fewer.
 */
const undecodedLines = (undecoded: Uint8Array, length: number, style: Style): string[] => {
  if (undecoded.length === 0) return length > 0 ? [`… ${length} bytes more`] : []
  return [`${length > undecoded.length ? 'cut off' : 'undecodable'} ${limitedBytes(undecoded, length, style)}`]
}

const NO_DESCRIPTORS: NewDescriptors = new Map()

const bodyLines = (
  { attributes, undecoded, undecodedLength }: MessageParts,
  isAnswer: boolean,
  style: Style,
  newDescriptors: NewDescriptors = NO_DESCRIPTORS,
): string[] => [
  ...attributes.flatMap(attribute => attributeLines(attribute, isAnswer, style, newDescriptors)),
  ...undecodedLines(undecoded, undecodedLength, style),
]

const chainLines = ({ entries, undecoded, undecodedLength, reason }: ChainParts, style: Style): string[] => {
  const shown = entries.slice(0, style.records).flatMap(({ entry, message }, index) => {
    const { call, ref } = entry
    const flags = bitsText(ChainEntryFlag, ref === undefined ? 0 : ChainEntryFlag.OBJECT)
    const head = `entry ${index} ${message.name}: call ${call}, flags ${flags}, ref ${ref ?? 0}`
    return [
      `${head}, size ${entry.message.length}; ${headerText({ ...message, call: undefined })}`,
      ...indented(bodyLines(message, (message.flags & MessageFlag.ANSWERED) !== 0, style)),
    ]
  })
  const hiddenEntries = entries.length - Math.min(entries.length, style.records)
  const reasonText = reason === undefined ? '' : ` (${reason})`
  return [
    ...shown,
    ...(hiddenEntries > 0 ? [`… ${hiddenEntries} more entries`] : []),
    ...undecodedLines(undecoded, undecodedLength, style).map(text => `${text}${reasonText}`),
  ]
}

// ---- a call ----

interface SplitCall {
  readonly request: MessageParts | undefined
  readonly answer: MessageParts | undefined
  /** Memory that is no message, and to which no message points. */
  readonly others: { readonly in: readonly MemoryRange[]; readonly out: readonly MemoryRange[] }
}

const splitCall = (
  inputs: readonly MemoryRange[],
  out: readonly MemoryRange[],
  { call, request: ioctlRequest }: TraceRecord,
): SplitCall => {
  const message = inputs[0]!
  const used = new Set<MemoryRange>([message])
  const source = {
    call: ioctlRequest === undefined ? call?.call : callOfRequest(ioctlRequest),
    declared: call?.declared,
    memoryAt: (address: bigint, isOut: boolean): MemoryRange | undefined => {
      const found = (isOut ? out : inputs).find(range => range.address === address)
      if (found !== undefined) used.add(found)
      return found
    },
  }
  const split = ({ bytes, length }: MemoryRange, isAnswer: boolean): MessageParts | undefined =>
    splitMessage({ ...source, bytes, length, isAnswer } satisfies MessageSource)
  const request = split(message, false)
  const answerMemory = request === undefined ? undefined : out.find(({ address }) => address === message.address)
  const answer = answerMemory === undefined ? undefined : split(answerMemory, true)
  if (answerMemory !== undefined && answer !== undefined) used.add(answerMemory)
  const others = (ranges: readonly MemoryRange[]): MemoryRange[] => ranges.filter(range => !used.has(range))
  return { request, answer, others: { in: others(inputs), out: others(out) } }
}

/** A call of the object dialect: message, answer, and other memory read or written. */
export const objectLines = (
  inputs: readonly MemoryRange[],
  out: readonly MemoryRange[],
  style: Style,
  record: TraceRecord,
): string[] => {
  const { request, answer, others } = splitCall(inputs, out, record)
  const message = inputs[0]!
  const newDescriptors = new Map((record.descriptors ?? []).map(({ attribute, fd }) => [attribute, fd]))
  const head =
    request === undefined
      ? [`object ${memoryText(message, style)}`]
      : [
          `object ${request.name} at ${hex(message.address)}, ${message.length} bytes: ${headerText(request)}`,
          ...indented(bodyLines(request, false, style)),
        ]
  const answerLines =
    answer === undefined
      ? []
      : [
          `answer ${headerText(answer, newDescriptorText('object', newDescriptors))}`,
          ...indented(bodyLines(answer, true, style, newDescriptors)),
        ]
  return [
    ...head,
    ...indented(answerLines),
    ...others.in.map(memory => `  in ${memoryText(memory, style)}`),
    ...others.out.map(memory => `  out ${memoryText(memory, style)}`),
  ]
}

// ---- calls on a driver's descriptor ----

/** Interfaces whose write(2) has a CtxSend before its data. */
const sendInterfaces: readonly string[] = [CtxInterface.V1, CtxInterface.V2]

/** The fields at the beginning of the argument of a driver's ioctl, or of written data; undefined: unknown. */
const driverFields = ({ request, attempt = '' }: TraceRecord): Fields | undefined => {
  if (request !== undefined) return CtxArguments[request]
  // `attempt` of a write or mmap on a driver's descriptor begins with its interface: `ctx.userdma.2: write(27)`.
  const interfaceName = attempt.slice(0, attempt.indexOf(':'))
  return sendInterfaces.includes(interfaceName) ? CtxSend : undefined
}

const driverMemoryLines = (memory: MemoryRange, fields: Fields | undefined, style: Style): string[] => {
  const head = fields === undefined ? undefined : memory.bytes.subarray(0, recordSize(fields))
  if (fields === undefined || head === undefined || head.length < recordSize(fields)) return []
  const value = readValue({ kind: 'record', fields }, head) as AnyRecord
  const data = memory.bytes.subarray(head.length)
  const length = memory.length - head.length
  return [
    ...fieldLines(fields, value, head, style),
    ...(length > 0 ? [`+${head.length} data, ${length} bytes: ${limitedBytes(data, length, style)}`] : []),
  ]
}

/** A call on a driver's descriptor: request, and memory read and written, with fields. */
export const driverLines = (
  inputs: readonly MemoryRange[],
  out: readonly MemoryRange[],
  style: Style,
  record: TraceRecord,
): string[] => {
  const fields = driverFields(record)
  const lines = (direction: 'in' | 'out') => (memory: MemoryRange) => [
    `${direction} ${memoryText(memory, style)}`,
    ...indented(driverMemoryLines(memory, fields, style)),
  ]
  const request = record.request === undefined ? '' : ` request ${hex(record.request)}`
  return [`driver${request}`, ...indented([...inputs.flatMap(lines('in')), ...out.flatMap(lines('out'))])]
}

// ---- as JSON ----

/** The value of an attribute, decoded if possible. */
const contentJson = (attribute: AttributeLayout): Record<string, unknown> => {
  const { type, bytes, value, chain } = attribute
  if (chain !== undefined)
    return { entries: chain.entries.map(({ entry, message }) => ({ ref: entry.ref ?? null, ...messageJson(message) })) }
  if (type !== undefined && value !== undefined)
    return { value: isEntryNumber(attribute) ? { entry: value } : valueJson(type, value) }
  return bytes === undefined ? {} : { bytes: hexBytes(bytes) }
}

const attributeJson = (attribute: AttributeLayout): Record<string, unknown> => {
  const { name, id, address, length, written, chain } = attribute
  return {
    name,
    id,
    flags: flagWords(attribute),
    length: Number(length),
    ...(address !== undefined && { address: hex(address) }),
    ...(written !== 0 && { written }),
    ...contentJson(attribute),
    ...(chain !== undefined && chain.undecoded.length > 0 && { undecoded: hexBytes(chain.undecoded) }),
  }
}

const messageJson = ({
  attributes,
  undecoded,
  undecodedLength: _length,
  flags,
  ...header
}: MessageParts): Record<string, unknown> => ({
  ...header,
  flags: bitNames(MessageFlag, flags),
  attributes: attributes.map(attributeJson),
  ...(undecoded.length > 0 && { undecoded: hexBytes(undecoded) }),
})

/** `message` and `answer` of a call of the object dialect. */
export const objectJson = (
  inputs: readonly MemoryRange[],
  out: readonly MemoryRange[],
  record: TraceRecord,
): Record<string, unknown> => {
  if (inputs.length === 0) return {}
  const { request, answer } = splitCall(inputs, out, record)
  return {
    ...(request !== undefined && { message: messageJson(request) }),
    ...(answer !== undefined && { answer: messageJson(answer) }),
  }
}
