/*
 * Codec of session messages, by the tables of spec/session.ts.
 *
 * Readers check the type of a received message, its length, and the length in its header. They never throw: they return
 * a sentence about a malformed message.
 */

import { type MessageField, type MessageLayout, type MessageValues, offsetsOf } from '../spec/message-layout.ts'
import { encodeReason, type Reason } from '../spec/reason.ts'
import { Exchanges, InstallKind, Messages, MessageType, SESSION_VERSION, SessionLimits } from '../spec/session.ts'

export interface MessageBuffer {
  readonly bytes: Uint8Array
  readonly view: DataView
}

/** By default for the longest message. */
export const messageBuffer = (bytes = new Uint8Array(SessionLimits.bytes)): MessageBuffer => ({
  bytes,
  view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
})

/** Requests of fixed size: all except TOOL. */
export type RequestName = keyof typeof Exchanges

type Values<S> = S extends keyof typeof Messages ? MessageValues<(typeof Messages)[S]> : Record<never, never>
type RequestBody<N extends RequestName> = Values<(typeof Exchanges)[N]['request']>
type ReplyBody<N extends RequestName> = Values<(typeof Exchanges)[N]['reply']>
type Intersection<U> = (U extends unknown ? (member: U) => void : never) extends (all: infer I) => void ? I : never
/** The fields of all requests, and of all replies, in one record. */
type AllRequests = Intersection<Values<(typeof Exchanges)[RequestName]['request'] & string>>
type AllReplies = Intersection<ReplyBody<RequestName>>

/** A safe integer may replace a bigint. */
type Writable<T> = { readonly [K in keyof T]: T[K] extends bigint ? bigint | number : T[K] }

/** `type`: one of MessageType, or-ed with REPLY in replies. */
export interface Header extends Omit<MessageValues<typeof Messages.header>, 'size'> {}

/** A copy of the header of a request, whose object the next message overwrites. */
export const headerOf = ({ type, serial, context, fd, pid, tid, stack }: Header): Header => ({
  type,
  serial,
  context,
  fd,
  pid,
  tid,
  stack,
})

/** A received request. Only the fields of `type` are valid. */
export interface Request extends Header, AllRequests {
  /** TOOL: JSON text. */
  text: string
}

/** Where the caller wants the number of a new descriptor; `width`: bytes. */
export interface InstallAt {
  readonly address: bigint
  readonly width: 4 | 8
  /** One of InstallKind; EVENT by default. */
  readonly kind?: number
}

/** A range of the program's memory that the daemon has written, or that peers may write. `length`: bytes. */
export interface WrittenRange {
  readonly address: number
  readonly length: number
  /** A peer has written it. */
  readonly isPeers?: boolean
}

/** Pages of the program over which it maps a range of a context's memory file, or no longer (Messages.mapping). */
export interface MappingNote {
  readonly address: number
  readonly length: number
  readonly offset: number
  /** Number of the context. */
  readonly context: number
  /** One of MappingKind. */
  readonly kind: number
}

/** A received reply. Only the fields of `type` are valid. */
export interface Reply extends Header, AllReplies {
  /** Addresses for the numbers of the descriptors that the reply passes; `installCount` of them. */
  installs: readonly InstallAt[]
  /** `mappingCount` of them. */
  mappings: readonly MappingNote[]
  /** WRITTEN: ranges of the program's memory. */
  ranges: readonly WrittenRange[]
  /** TOOL and TRACE: JSON text. Calls: the reason of a refusal, if the client wants reasons. */
  text: string
}

const NO_INSTALLS: readonly InstallAt[] = Object.freeze([])
const NO_MAPPINGS: readonly MappingNote[] = Object.freeze([])
const NO_RANGES: readonly WrittenRange[] = Object.freeze([])
const HEADER = Messages.header.size

// ---- structs, by their tables ----

type Fields = Record<string, number | bigint | string>
type StructName = keyof typeof Messages

interface Body {
  readonly name: StructName | null
  /** Bytes of the message without its variable part. */
  readonly size: number
  /** With offsets in the message. */
  readonly fields: readonly MessageField[]
}

const bodyOf = (name: StructName | null): Body => {
  if (name === null) return { name, size: HEADER, fields: [] }
  const { fields, size }: MessageLayout = Messages[name]
  return { name, size: HEADER + size, fields: fields.map(field => ({ ...field, offset: HEADER + field.offset })) }
}

const named = Object.entries(Exchanges) as [RequestName, (typeof Exchanges)[RequestName]][]
const requestBodies = new Map<number, Body>(named.map(([name, { request }]) => [MessageType[name], bodyOf(request)]))
const replyBodies = new Map<number, Body>(
  named.map(([name, { reply }]) => [MessageType.REPLY | MessageType[name], bodyOf(reply)]),
)

/** The fields of these structs, with 0 or an empty text, without reserved ones and the header's `size`. */
const emptyFields = (names: readonly (StructName | null)[]): Fields =>
  Object.fromEntries(
    names
      .flatMap((name): readonly MessageField[] => (name === null ? [] : Messages[name].fields))
      .filter(({ name }) => name !== 'reserved' && name !== 'size')
      .map(({ name, type }) => [name, type === 'bytes' ? '' : type.endsWith('64') ? 0n : 0]),
  )

export const newRequest = (): Request =>
  ({ ...emptyFields(['header', ...named.map(([, { request }]) => request)]), fd: -1, text: '' }) as Fields & Request

export const newReply = (): Reply =>
  ({
    ...emptyFields(['header', ...named.map(([, { reply }]) => reply)]),
    fd: -1,
    installs: NO_INSTALLS,
    mappings: NO_MAPPINGS,
    ranges: NO_RANGES,
    text: '',
  }) as Fields & Reply

const encoder = new TextEncoder()
const decoder = new TextDecoder()

const getText = (bytes: Uint8Array, from: number, to: number): string => decoder.decode(bytes.subarray(from, to))

/** The text in a field of `size` bytes at `at`, up to its NUL, if it has one. */
const getTextField = (bytes: Uint8Array, at: number, size: number): string => {
  const end = bytes.indexOf(0, at)
  return getText(bytes, at, end < 0 || end > at + size ? at + size : end)
}

/** Writes NUL-terminated text into a field of `size` bytes at `at`; throws RangeError if it does not fit. */
const putTextField = (bytes: Uint8Array, at: number, size: number, text: string, fieldName: string): void => {
  bytes.fill(0, at, at + size)
  const { read } = encoder.encodeInto(text, bytes.subarray(at, at + size - 1))
  if (read < text.length) throw new RangeError(`${fieldName} "${text}" is longer than ${size - 1} bytes`)
}

// converting a safe integer to a bigint would be slower
const put64 = (view: DataView, at: number, value: number | bigint): void => {
  if (typeof value === 'bigint') view.setBigUint64(at, value, true)
  else {
    view.setUint32(at, value >>> 0, true)
    view.setInt32(at + 4, Math.floor(value / 2 ** 32), true)
  }
}

const getFields = ({ bytes, view }: MessageBuffer, fields: readonly MessageField[], into: Fields): void => {
  for (const { name, type, offset, size } of fields) {
    if (name === 'reserved') continue
    if (type === 'u32') into[name] = view.getUint32(offset, true)
    else if (type === 's32') into[name] = view.getInt32(offset, true)
    else if (type === 'u64') into[name] = view.getBigUint64(offset, true)
    else if (type === 's64') into[name] = view.getBigInt64(offset, true)
    else into[name] = getTextField(bytes, offset, size)
  }
}

/** Absent values are 0, or empty text. */
const putFields = ({ bytes, view }: MessageBuffer, fields: readonly MessageField[], values: Partial<Fields>): void => {
  for (const { name, type, offset, size } of fields) {
    const value = values[name]
    if (type === 'bytes') putTextField(bytes, offset, size, (value as string | undefined) ?? '', name)
    else if (type === 'u64' || type === 's64') put64(view, offset, (value as number | bigint | undefined) ?? 0)
    else view.setUint32(offset, (value as number | undefined) ?? 0, true)
  }
}

// ---- header ----

const {
  type: TYPE,
  size: SIZE,
  serial: SERIAL,
  context: CONTEXT,
  fd: FD,
  pid: PID,
  tid: TID,
  stack: STACK,
} = offsetsOf(Messages.header)

// without a loop over the table, because this is faster
const getHeader = (view: DataView, into: Header): void => {
  into.type = view.getUint32(TYPE, true)
  into.serial = view.getUint32(SERIAL, true)
  into.context = view.getUint32(CONTEXT, true)
  into.fd = view.getInt32(FD, true)
  into.pid = view.getUint32(PID, true)
  into.tid = view.getUint32(TID, true)
  into.stack = view.getUint32(STACK, true)
}

/** Writes the header of a message of `size` bytes; returns `size`. */
const putHeader = ({ view }: MessageBuffer, type: number, size: number, header: Partial<Header>): number => {
  view.setUint32(TYPE, type, true)
  view.setUint32(SIZE, size, true)
  view.setUint32(SERIAL, header.serial ?? 0, true)
  view.setUint32(CONTEXT, header.context ?? 0, true)
  view.setInt32(FD, header.fd ?? -1, true)
  view.setUint32(PID, header.pid ?? 0, true)
  view.setUint32(TID, header.tid ?? 0, true)
  view.setUint32(STACK, header.stack ?? 0, true)
  return size
}

/** What is wrong with a message's header; undefined if it is well-formed. */
const headerFault = (view: DataView, length: number): string | undefined => {
  if (length < HEADER) return `a message of ${length} bytes; the header alone has ${HEADER}`
  const claimed = view.getUint32(SIZE, true)
  if (claimed !== length) return `a message of ${length} bytes has length ${claimed} in its header`
  return undefined
}

// ---- requests ----

/**
 * Reads a request of `length` bytes into `into`. Returns undefined if it is well-formed, otherwise what is wrong: the
 * client speaks another protocol, and its session must be closed.
 */
export const readRequest = (buffer: MessageBuffer, length: number, into: Request): string | undefined => {
  const fault = headerFault(buffer.view, length)
  if (fault) return fault
  getHeader(buffer.view, into)
  const { type } = into
  if (type === MessageType.TOOL) {
    into.text = getText(buffer.bytes, HEADER, length)
    return undefined
  }
  const body = requestBodies.get(type)
  if (body === undefined) return `message type ${type} is not a request`
  if (length !== body.size) return `a message of type ${type} has ${length} bytes; ${body.size} are right`
  getFields(buffer, body.fields, into as Fields & Request)
  return undefined
}

/** Writes a request; returns its length. Absent values are 0 or empty text. Throws RangeError for a too long text. */
export const writeRequest = <N extends RequestName>(
  buffer: MessageBuffer,
  name: N,
  header: Partial<Header>,
  values: Partial<Writable<RequestBody<N>>> = {},
): number => {
  const type = MessageType[name]
  const { fields, size } = requestBodies.get(type) as Body
  putFields(buffer, fields, values as Partial<Fields>)
  return putHeader(buffer, type, size, header)
}

/** Writes HELLO; returns its length. `wants`: HelloWants. Throws RangeError for a tag of more than 63 bytes. */
export const writeHello = (buffer: MessageBuffer, header: Partial<Header>, tag = '', wants = 0): number =>
  writeRequest(buffer, 'HELLO', header, { version: SESSION_VERSION, wants, tag })

/** Writes a message with a text; returns its length, or 0 if the text is too long for one message. */
const putTextMessage = (buffer: MessageBuffer, type: number, header: Partial<Header>, text: string): number => {
  const { read, written } = encoder.encodeInto(text, buffer.bytes.subarray(HEADER))
  return read < text.length ? 0 : putHeader(buffer, type, HEADER + written, header)
}

/** Writes a TOOL request; returns its length, or 0 if the text is too long for one message. */
export const writeTool = (buffer: MessageBuffer, header: Partial<Header>, text: string): number =>
  putTextMessage(buffer, MessageType.TOOL, header, text)

// ---- replies: `request` is the header of the request ----

/** Writes the reply to a request; returns its length. Absent values are 0 or empty text. */
const writeReply = <N extends RequestName>(
  buffer: MessageBuffer,
  request: Header,
  values: Partial<Writable<ReplyBody<N>>>,
): number => {
  const type = MessageType.REPLY | request.type
  const { fields, size } = replyBodies.get(type) as Body
  putFields(buffer, fields, values as Partial<Fields>)
  return putHeader(buffer, type, size, request)
}

/** Writes the reply to HELLO; returns its length. Throws RangeError for a root of more than 239 bytes. */
export const writeHelloReply = (
  buffer: MessageBuffer,
  request: Header,
  reply: { readonly error: number; readonly root: string },
): number => writeReply<'HELLO'>(buffer, request, { version: SESSION_VERSION, ...reply })

/** Writes the reply to OPEN or ATTACH; returns its length. `error`: 0 or an errno. */
export const writeOpenReply = (
  buffer: MessageBuffer,
  request: Header,
  reply: Partial<Writable<ReplyBody<'OPEN'>>>,
): number => writeReply<'OPEN'>(buffer, request, reply)

/** Maximum bytes of a reason. */
const MAX_REASON = 1024
const NO_BYTES = new Uint8Array(0)

const CALL_REPLY = HEADER + Messages.callReply.size
const INSTALL = Messages.install.size
const { address: INSTALL_ADDRESS, width: INSTALL_WIDTH, kind: INSTALL_KIND } = offsetsOf(Messages.install)
const MAPPING = Messages.mapping.size
const {
  address: MAPPING_ADDRESS,
  length: MAPPING_LENGTH,
  offset: MAPPING_OFFSET,
  context: MAPPING_CONTEXT,
  kind: MAPPING_KIND,
} = offsetsOf(Messages.mapping)

/**
 * Writes a `callReply` (spec/session.ts, Exchanges); returns its length. `ret`: ≥ 0, or a negative errno. `reason`: of
 * a refusal, of at most MAX_REASON bytes. Throws RangeError for more than SessionLimits.descriptors installs, or more
 * mappings than SessionLimits.mappings of both kinds.
 */
export const writeCallReply = (
  buffer: MessageBuffer,
  request: Header,
  ret: number,
  installs: readonly InstallAt[] = NO_INSTALLS,
  reason?: Reason,
  mappings: readonly MappingNote[] = NO_MAPPINGS,
): number => {
  const { bytes, view } = buffer
  const count = installs.length
  if (mappings.length > 2 * SessionLimits.mappings)
    throw new RangeError(`${mappings.length} mappings in one reply; at most ${2 * SessionLimits.mappings} are allowed`)
  if (count > SessionLimits.descriptors)
    throw new RangeError(`${count} descriptors in one reply; at most ${SessionLimits.descriptors} are allowed`)
  for (let i = 0, at = CALL_REPLY; i < count; i++, at += INSTALL) {
    view.setBigUint64(at + INSTALL_ADDRESS, installs[i]!.address, true)
    view.setUint32(at + INSTALL_WIDTH, installs[i]!.width, true)
    view.setUint32(at + INSTALL_KIND, installs[i]!.kind ?? InstallKind.EVENT, true)
  }
  let end = CALL_REPLY + count * INSTALL
  for (const { address, length, offset, context, kind } of mappings) {
    put64(view, end + MAPPING_ADDRESS, address)
    put64(view, end + MAPPING_LENGTH, length)
    put64(view, end + MAPPING_OFFSET, offset)
    view.setUint32(end + MAPPING_CONTEXT, context, true)
    view.setUint32(end + MAPPING_KIND, kind, true)
    end += MAPPING
  }
  const text = reason === undefined ? NO_BYTES : encodeReason(reason, MAX_REASON)
  bytes.set(text, end)
  // `callReply` has the same fields for all calls, for example IOCTL.
  writeReply<'IOCTL'>(buffer, request, { ret, installCount: count, mappingCount: mappings.length })
  view.setUint32(SIZE, end + text.length, true)
  return end + text.length
}

/** As much of a text as fits into a field of so many bytes. */
const cutTo = (text: string, { size }: MessageField): string =>
  text.slice(0, encoder.encodeInto(text, new Uint8Array(size - 1)).read)

/** Writes the reply to FAULT; returns its length. `ret`: an id, or a negative errno. `why` is cut to its field. */
export const writeFaultReply = (buffer: MessageBuffer, request: Header, ret: number, why = ''): number =>
  writeReply<'FAULT'>(buffer, request, { ret, why: cutTo(why, Messages.faultReply.fields[1]!) })

/**
 * Writes the reply to FINDINGS; returns its length. `ret`: a number, or a negative errno. The text is cut to its field.
 */
export const writeFindingReply = (
  buffer: MessageBuffer,
  request: Header,
  ret: number,
  finding?: { readonly id: string; readonly severity: string; readonly device: string; readonly text: string },
): number =>
  writeReply<'FINDINGS'>(buffer, request, {
    ret,
    findingId: finding?.id ?? '',
    severity: finding?.severity ?? '',
    foundDevice: cutTo(finding?.device ?? '', Messages.findingReply.fields[3]!),
    sentence: cutTo(finding?.text ?? '', Messages.findingReply.fields[4]!),
  })

const RANGE = Messages.writtenRange.size
const { address: RANGE_ADDRESS, length: RANGE_LENGTH, isPeers: RANGE_IS_PEERS } = offsetsOf(Messages.writtenRange)

/** Writes the reply to WRITTEN; returns its length. `ranges`: at most SessionLimits.ranges. */
export const writeWrittenReply = (buffer: MessageBuffer, request: Header, ranges: readonly WrittenRange[]): number => {
  let end = writeCallReply(buffer, request, ranges.length)
  for (const { address, length, isPeers } of ranges) {
    buffer.view.setBigUint64(end + RANGE_ADDRESS, BigInt(address), true)
    buffer.view.setBigUint64(end + RANGE_LENGTH, BigInt(length), true)
    buffer.view.setBigUint64(end + RANGE_IS_PEERS, isPeers ? 1n : 0n, true)
    end += RANGE
  }
  buffer.view.setUint32(SIZE, end, true)
  return end
}

/** Writes the reply to TOOL; returns its length, or 0 if the text is too long for one message. */
export const writeToolReply = (buffer: MessageBuffer, request: Header, text: string): number =>
  putTextMessage(buffer, MessageType.REPLY | MessageType.TOOL, request, text)

/** Writes a TRACE message; returns its length, or 0 if the text is too long for one message. */
export const writeTrace = (buffer: MessageBuffer, text: string): number =>
  putTextMessage(buffer, MessageType.TRACE, {}, text)

const getInstalls = (view: DataView, count: number): readonly InstallAt[] =>
  Array.from({ length: count }, (_, i) => {
    const at = CALL_REPLY + i * INSTALL
    return {
      address: view.getBigUint64(at + INSTALL_ADDRESS, true),
      width: view.getUint32(at + INSTALL_WIDTH, true) === 8 ? 8 : 4,
      kind: view.getUint32(at + INSTALL_KIND, true),
    }
  })

const getMappings = (view: DataView, from: number, count: number): readonly MappingNote[] =>
  Array.from({ length: count }, (_, i) => {
    const at = from + i * MAPPING
    return {
      address: Number(view.getBigUint64(at + MAPPING_ADDRESS, true)),
      length: Number(view.getBigUint64(at + MAPPING_LENGTH, true)),
      offset: Number(view.getBigUint64(at + MAPPING_OFFSET, true)),
      context: view.getUint32(at + MAPPING_CONTEXT, true),
      kind: view.getUint32(at + MAPPING_KIND, true),
    }
  })

const getRanges = (view: DataView, count: number): readonly WrittenRange[] =>
  Array.from({ length: count }, (_, i) => {
    const at = CALL_REPLY + i * RANGE
    return {
      address: Number(view.getBigUint64(at + RANGE_ADDRESS, true)),
      length: Number(view.getBigUint64(at + RANGE_LENGTH, true)),
      isPeers: view.getUint32(at + RANGE_IS_PEERS, true) !== 0,
    }
  })

/**
 * Reads a reply or TRACE message of `length` bytes into `into`. Returns undefined if it is well-formed, otherwise what
 * is wrong.
 */
export const readReply = (buffer: MessageBuffer, length: number, into: Reply): string | undefined => {
  const { bytes, view } = buffer
  const fault = headerFault(view, length)
  if (fault) return fault
  getHeader(view, into)
  const { type } = into
  if (type === MessageType.TRACE || type === (MessageType.REPLY | MessageType.TOOL)) {
    into.text = getText(bytes, HEADER, length)
    return undefined
  }
  const body = replyBodies.get(type)
  if (body === undefined) return `message type ${type} is not a reply`
  if (length < body.size) return `a reply of type ${type} has ${length} bytes; ${body.size} are needed`
  getFields(buffer, body.fields, into as Fields & Reply)
  if (body.name !== 'callReply') return undefined
  if (type === (MessageType.REPLY | MessageType.WRITTEN) && into.ret >= 0n) {
    const ranges = Number(into.ret)
    if (length !== CALL_REPLY + ranges * RANGE) return `a reply of ${length} bytes announces ${ranges} ranges`
    into.ranges = getRanges(view, ranges)
    return undefined
  }
  const mappingsAt = CALL_REPLY + into.installCount * INSTALL
  const end = mappingsAt + into.mappingCount * MAPPING
  if (length < end || (length > end && into.ret >= 0n))
    return `a reply of ${length} bytes announces ${into.installCount} installs and ${into.mappingCount} mappings`
  into.text = getText(bytes, end, length)
  into.mappings = into.mappingCount === 0 ? NO_MAPPINGS : getMappings(view, mappingsAt, into.mappingCount)
  into.installs = into.installCount === 0 ? NO_INSTALLS : getInstalls(view, into.installCount)
  return undefined
}
