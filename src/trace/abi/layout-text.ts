/*
 * The layout of calls of the object dialect, and of calls on a driver's descriptor, as lines and as JSON (`userdma
 * trace --abi`). layout.ts computes the layout; spec/ has the names.
 */
import { AttributeFlag, ChainEntryFlag, MessageFlag } from '../../spec/classes/ids.ts'
import { CtxArguments, CtxInterface, CtxSend } from '../../spec/drivers/ctx.ts'
import { type AnyRecord, type Fields, recordSize, sizeOf } from '../../spec/schema/schema.ts'
import { callOfRequest } from '../../uapi/object/format.ts'
import type { TraceRecord } from '../../uapi/tool.ts'
import { bytesText } from '../bytes.ts'
import { readValue } from '../message.ts'
import { type Style, valueJson, valueText } from '../values.ts'
import { type AttributeLayout, type ChainParts, type MessageParts, type Source, splitMessage } from './layout.ts'
import { hex, type Piece, placeText, someBytes } from './piece.ts'

const indented = (lines: readonly string[]): string[] => lines.map(line => `  ${line}`)

/** Names of the set bits, then the remaining bits as a number. */
const bitNames = (table: Readonly<Record<string, number>>, value: number): string[] => {
  const known = Object.values(table).reduce((all, bit) => all | bit, 0)
  const names = Object.keys(table).filter(name => (value & table[name]!) !== 0)
  const rest = (value & ~known) >>> 0
  return rest === 0 ? names : [...names, hex(rest)]
}
const bitsText = (table: Readonly<Record<string, number>>, value: number): string =>
  bitNames(table, value).join('|') || '0'

// ---- attributes ----

/**
 * Flags of an attribute: `mandatory`, `optional` of an input; `out`, `filled`, `indirect`, `chained`; unknown bits as a
 * number.
 */
const flagWords = ({ flags, isOut }: AttributeLayout): string[] => {
  // These bits hold the number of bytes written.
  const { MANDATORY, ...others } = AttributeFlag
  const words = bitNames(others, flags & 0xffff & ~MANDATORY).map(name => name.toLowerCase())
  if ((flags & MANDATORY) !== 0) return ['mandatory', ...words]
  return isOut ? words : ['optional', ...words]
}

/** Fields of a record in `bytes`, each with its offset; bytes beyond the known fields follow. */
const fieldLines = (fields: Fields, value: AnyRecord, bytes: Uint8Array, style: Style): string[] => {
  const shown = Object.entries(fields).filter(([, { offset, of }]) => {
    const size = sizeOf(of)
    return (
      offset + size <= bytes.length && (style.zeros || bytes.subarray(offset, offset + size).some(byte => byte !== 0))
    )
  })
  const lines = shown
    .slice(0, style.fields)
    .map(([name, { offset, of }]) => `+${offset} ${name} ${valueText(name, of, value[name]!, style)}`)
  const more = shown.length - lines.length
  const tail = bytes.subarray(recordSize(fields))
  return [
    ...lines,
    ...(more > 0 ? [`… ${more} more fields`] : []),
    ...(tail.length > 0 ? [`+${recordSize(fields)} unknown ${bytesText(tail, style.bytes)}`] : []),
  ]
}

const valueLines = ({ name, of, value, bytes, chain }: AttributeLayout, style: Style): string[] => {
  if (chain !== undefined) return chainLines(chain, style)
  if (of === undefined || value === undefined || bytes === undefined) return []
  if (of.kind === 'record') return fieldLines(of.fields, value as AnyRecord, bytes, style)
  if (of.kind !== 'list') return []
  const records = value as readonly AnyRecord[]
  const size = recordSize(of.fields)
  const lines = records
    .slice(0, style.records)
    .map((one, i) => `+${i * size} ${name}[${i}] ${valueText(name, { kind: 'record', fields: of.fields }, one, style)}`)
  return records.length > lines.length ? [...lines, `… ${records.length - lines.length} more`] : lines
}

/** Whether a value is the number of a chain entry. */
const isEntry = ({ flags, of }: AttributeLayout): boolean =>
  (flags & AttributeFlag.CHAINED) !== 0 && (of?.kind === 'ref' || of?.kind === 'fd')

/** A text for the value after its bytes, if it shows more than the bytes do. */
const scalarText = (laid: AttributeLayout, style: Style): string => {
  const { name, of, value, bytes } = laid
  if (of === undefined || value === undefined || bytes === undefined || of.kind === 'record' || of.kind === 'list')
    return ''
  if (isEntry(laid)) return ` = entry ${value}`
  const text = valueText(name, of, value, style)
  return text === bytesText(bytes, style.bytes) ? '' : ` = ${text}`
}

type Numbers = ReadonlyMap<string, number | undefined>

/** The number of a new descriptor, which the program gets in place of the value after the answer. */
const numberText = (name: string, numbers: Numbers): string =>
  numbers.has(name) ? `, then fd ${numbers.get(name) ?? '?'}` : ''

const attributeLines = (laid: AttributeLayout, answered: boolean, style: Style, numbers: Numbers): string[] => {
  const { name, id, of, address, length, written, bytes, isOut } = laid
  const label = name.startsWith('attribute ') ? name : `${name} ${hex(id)}`
  const place = address === undefined ? '' : ` at ${hex(address)}`
  const begin = `${label} ${flagWords(laid).join(' ')}`
  if (bytes === undefined) {
    if (!isOut) return [`${begin}, ${length} bytes${place}`]
    if (!answered) return [`${begin}, room for ${length} bytes${place}`]
    // The length of an indirect value is the number of bytes needed.
    return [
      `${begin}${place}, ${written === 0 ? `not filled, ${length} bytes` : `needs ${written} bytes, has ${length}`}`,
    ]
  }
  const misfits = of !== undefined && laid.value === undefined && laid.chain === undefined
  const isShort = typeof length === 'bigint' && length > bytes.length
  const count = isOut && address === undefined ? `${bytes.length} of ${length}` : String(length)
  const text = someBytes(bytes, Number(length) > bytes.length && isShort ? Number(length) : bytes.length, style)
  const value = numbers.has(name) ? numberText(name, numbers) : scalarText(laid, style)
  const note = misfits && !isShort ? ' (undecodable)' : value
  return [`${begin}${place}, ${count} bytes: ${text}${note}`, ...indented(valueLines(laid, style))]
}

// ---- messages and chains ----

const headerText = ({ length, classId, object, opCtrl, flags, call }: MessageParts, thenFd = ''): string =>
  `length ${length}, class ${classId}${call === undefined ? '' : `, call ${call}`}, object ${object}${thenFd}, ` +
  `op_ctrl ${opCtrl}, flags ${bitsText(MessageFlag, flags)}`

const restText = (rest: Uint8Array, length: number, style: Style): string[] => {
  if (rest.length === 0) return length > 0 ? [`… ${length} bytes more`] : []
  return [`${length > rest.length ? 'cut off' : 'undecodable'} ${someBytes(rest, length, style)}`]
}

const NONE: Numbers = new Map()

const bodyLines = (
  { attributes, rest, restLength }: MessageParts,
  answered: boolean,
  style: Style,
  numbers: Numbers = NONE,
): string[] => [
  ...attributes.flatMap(one => attributeLines(one, answered, style, numbers)),
  ...restText(rest, restLength, style),
]

const chainLines = ({ entries, rest, restLength, reason }: ChainParts, style: Style): string[] => {
  const shown = entries.slice(0, style.records).flatMap(({ entry, message }, index) => {
    const { call, ref } = entry
    const flags = bitsText(ChainEntryFlag, ref === undefined ? 0 : ChainEntryFlag.OBJECT)
    const head = `entry ${index} ${message.name}: call ${call}, flags ${flags}, ref ${ref ?? 0}`
    const { call: _call, ...inner } = message
    return [
      `${head}, size ${entry.message.length}; ${headerText({ ...inner, call: undefined })}`,
      ...indented(bodyLines(message, (message.flags & MessageFlag.ANSWERED) !== 0, style)),
    ]
  })
  const more = entries.length - Math.min(entries.length, style.records)
  const why = reason === undefined ? '' : ` (${reason})`
  return [
    ...shown,
    ...(more > 0 ? [`… ${more} more entries`] : []),
    ...restText(rest, restLength, style).map(text => `${text}${why}`),
  ]
}

// ---- a call ----

interface LaidCall {
  readonly request: MessageParts | undefined
  readonly answer: MessageParts | undefined
  /** Memory to which nothing in the messages points. */
  readonly others: { readonly in: readonly Piece[]; readonly out: readonly Piece[] }
}

const layCall = (pieces: readonly Piece[], out: readonly Piece[], { call, request: number }: TraceRecord): LaidCall => {
  const message = pieces[0]!
  const used = new Set<Piece>([message])
  const source = {
    call: number === undefined ? call?.call : callOfRequest(number),
    declared: call?.declared,
    piece: (address: bigint, isOut: boolean): Piece | undefined => {
      const found = (isOut ? out : pieces).find(one => one.address === address)
      if (found !== undefined) used.add(found)
      return found
    },
  }
  const split = ({ bytes, length }: Piece, answered: boolean): MessageParts | undefined =>
    splitMessage({ ...source, bytes, length, answered } satisfies Source)
  const request = split(message, false)
  const answerPiece = request === undefined ? undefined : out.find(({ address }) => address === message.address)
  const answer = answerPiece === undefined ? undefined : split(answerPiece, true)
  if (answerPiece !== undefined && answer !== undefined) used.add(answerPiece)
  const others = (all: readonly Piece[]): Piece[] => all.filter(one => !used.has(one))
  return { request, answer, others: { in: others(pieces), out: others(out) } }
}

/** A call of the object dialect: the message, its answer, and any other memory read or written. */
export const objectLines = (
  pieces: readonly Piece[],
  out: readonly Piece[],
  style: Style,
  record: TraceRecord,
): string[] => {
  const { request, answer, others } = layCall(pieces, out, record)
  const message = pieces[0]!
  const numbers = new Map((record.descriptors ?? []).map(({ attribute, fd }) => [attribute, fd]))
  const head =
    request === undefined
      ? [`object ${placeText(message, style)}`]
      : [
          `object ${request.name} at ${hex(message.address)}, ${message.length} bytes: ${headerText(request)}`,
          ...indented(bodyLines(request, false, style)),
        ]
  const answerPiece =
    answer === undefined
      ? []
      : [
          `answer ${headerText(answer, numberText('object', numbers))}`,
          ...indented(bodyLines(answer, true, style, numbers)),
        ]
  return [
    ...head,
    ...indented(answerPiece),
    ...others.in.map(piece => `  in ${placeText(piece, style)}`),
    ...others.out.map(piece => `  out ${placeText(piece, style)}`),
  ]
}

// ---- a driver's own ----

const senders: readonly string[] = [CtxInterface.V1, CtxInterface.V2]

/** The argument of a driver's ioctl, or the start of what was written. */
const driverFields = ({ request, attempt = '' }: TraceRecord): Fields | undefined =>
  request !== undefined
    ? CtxArguments[request]
    : senders.includes(attempt.slice(0, attempt.indexOf(':')))
      ? CtxSend
      : undefined

const driverPiece = (piece: Piece, fields: Fields | undefined, style: Style): string[] => {
  const head = fields === undefined ? undefined : piece.bytes.subarray(0, recordSize(fields))
  if (fields === undefined || head === undefined || head.length < recordSize(fields)) return []
  const value = readValue({ kind: 'record', fields }, head) as AnyRecord
  const data = piece.bytes.subarray(head.length)
  const length = piece.length - head.length
  return [
    ...fieldLines(fields, value, head, style),
    ...(length > 0 ? [`+${head.length} data, ${length} bytes: ${someBytes(data, length, style)}`] : []),
  ]
}

/** A call on a driver's descriptor: its name, and what the driver read and wrote, by field where spec/ knows them. */
export const driverLines = (
  pieces: readonly Piece[],
  out: readonly Piece[],
  style: Style,
  record: TraceRecord,
): string[] => {
  const fields = driverFields(record)
  const lines = (way: 'in' | 'out') => (piece: Piece) => [
    `${way} ${placeText(piece, style)}`,
    ...indented(driverPiece(piece, fields, style)),
  ]
  const request = record.request === undefined ? '' : ` request ${hex(record.request)}`
  return [`driver${request}`, ...indented([...pieces.flatMap(lines('in')), ...out.flatMap(lines('out'))])]
}

// ---- as JSON ----

const attributeJson = (laid: AttributeLayout): Record<string, unknown> => {
  const { name, id, of, address, length, written, bytes, value, chain } = laid
  return {
    name,
    id,
    flags: flagWords(laid),
    length: Number(length),
    ...(address !== undefined && { address: hex(address) }),
    ...(written !== 0 && { written }),
    ...(chain !== undefined
      ? { entries: chain.entries.map(({ entry, message }) => ({ ref: entry.ref ?? null, ...messageJson(message) })) }
      : of !== undefined && value !== undefined
        ? { value: isEntry(laid) ? { entry: value } : valueJson(of, value) }
        : bytes !== undefined && { bytes: bytesText(bytes, Number.POSITIVE_INFINITY).replace('(no bytes)', '') }),
    ...(chain !== undefined && chain.rest.length > 0 && { undecoded: bytesText(chain.rest, chain.rest.length) }),
  }
}

const messageJson = ({
  attributes,
  rest,
  restLength: _length,
  flags,
  ...header
}: MessageParts): Record<string, unknown> => ({
  ...header,
  flags: bitNames(MessageFlag, flags),
  attributes: attributes.map(attributeJson),
  ...(rest.length > 0 && { undecoded: bytesText(rest, rest.length) }),
})

/** `message` and `answer` of a call of the object dialect. */
export const objectJson = (
  pieces: readonly Piece[],
  out: readonly Piece[],
  record: TraceRecord,
): Record<string, unknown> => {
  if (pieces.length === 0) return {}
  const { request, answer } = layCall(pieces, out, record)
  return {
    ...(request !== undefined && { message: messageJson(request) }),
    ...(answer !== undefined && { answer: messageJson(answer) }),
  }
}
