/*
 * The bytes of a call as the program made it (`userdma trace --abi`): the dialect; the command, or the object and
 * method with the names of the attributes, under Linux's names; structs of ib_user_verbs.h; and the memory that was
 * read and written. layout-text.ts shows messages of the object dialect and calls of drivers. Undecodable calls are
 * shown in the same way. Never throws.
 */
import { CallError } from '../../spec/errno.ts'
import { linuxCall } from '../../spec/linux/coverage.ts'
import { InvokeWrite, UHW_IN, UHW_OUT } from '../../spec/linux/ioctl.ts'
import { requestStruct, responseStruct } from '../../spec/linux/names.ts'
import { EXTENDED } from '../../spec/linux/write.ts'
import { findCommand } from '../../uapi/linux/command.ts'
import { findMethod } from '../../uapi/linux/ioctl-message.ts'
import { viewOf } from '../../uapi/scalar.ts'
import type { TraceRecord } from '../../uapi/tool.ts'
import { bytesText } from '../bytes.ts'
import { createdOf, decodeRecord } from '../decode.ts'
import type { Style } from '../values.ts'
import { driverLines, objectJson, objectLines } from './layout-text.ts'
import { hex, type Piece, pieceOf, placeText } from './piece.ts'
import { fdText, type Numbers, structLines } from './struct.ts'

/** A command's number and name; the number alone if Linux has no such command. */
const commandText = (number: number): string => {
  const found = linuxCall('write', number)
  const shown = number >= EXTENDED ? `ex ${number & 0xff}` : String(number)
  return found === undefined ? shown : `${shown} ${found.name}`
}

const responseText = (number: number): string => {
  const found = linuxCall('write', number)
  return found === undefined ? 'response' : `struct ${responseStruct(found.name)}`
}

// ---- fields ----

/** Context of a call that helps to decode its structs. */
interface Known {
  /** Undefined: the call was refused before its class was known. */
  readonly className: string | undefined
  readonly created: number | undefined
  readonly numbers: Numbers
}

const knownOf = (record: TraceRecord): Known => {
  const decoded = decodeRecord(record, 0)
  return {
    className: decoded?.class.name,
    created: decoded === undefined || record.ret < 0 ? undefined : createdOf(decoded),
    numbers: new Map((record.descriptors ?? []).map(({ attribute, fd }) => [attribute, fd])),
  }
}

/** Undefined if neither Linux nor userdma has such a call. */
const ifThere = <T>(find: () => T): T | undefined => {
  try {
    return find()
  } catch (error) {
    if (error instanceof CallError) return undefined
    throw error
  }
}

const indented = (lines: readonly string[]): string[] => lines.map(line => `  ${line}`)

/** The class of a call, or one of its possible classes. */
const classIn = ({ className }: Known, classes: readonly string[]): string =>
  className !== undefined && classes.includes(className) ? className : classes[0]!

/** Fields of a command's request or response. */
const commandFields = (
  number: number | undefined,
  direction: 'in' | 'out',
  bytes: Uint8Array,
  known: Known,
  style: Style,
): string[] => {
  const found = number === undefined ? undefined : ifThere(() => findCommand(number))
  const compiled = found?.[direction]?.(classIn(known, found.command.classes))
  return compiled === undefined ? [] : structLines(compiled, bytes, style, known.numbers)
}

// ---- write ----

/** Bytes before the request of a basic and of an extended command. */
const HEADERS = [8, 24]

const writeLines = (pieces: readonly Piece[], out: readonly Piece[], style: Style, record: TraceRecord): string[] => {
  const message = pieces[0]!
  const { bytes } = message
  const known = knownOf(record)
  const number = bytes.length < 4 ? undefined : viewOf(bytes).getUint32(0, true)
  const found = number === undefined ? undefined : linuxCall('write', number)
  const struct = found === undefined ? '' : ` struct ${requestStruct(found.name)}`
  const name = number === undefined ? '' : ` ${commandText(number)}${struct}`
  const answer = number === undefined ? 'response' : responseText(number)
  const request = bytes.subarray(HEADERS[number !== undefined && number >= EXTENDED ? 1 : 0])
  return [
    `write${name} ${placeText(message, style)}`,
    ...indented(commandFields(number, 'in', request, known, style)),
    ...out.flatMap((piece, i) => [
      `  out ${i === 0 ? answer : 'driver'} ${placeText(piece, style)}`,
      ...(i === 0 ? indented(indented(commandFields(number, 'out', piece.bytes, known, style))) : []),
    ]),
  ]
}

// ---- ioctl ----

const IOCTL_HEADER = 24
const ATTRIBUTE = 16

interface IoctlAttribute {
  readonly id: number
  readonly length: number
  readonly flags: number
  readonly data: bigint
  readonly name: string
}

interface IoctlMessage {
  readonly name: string
  readonly object: number
  readonly method: number
  readonly driver: number
  readonly attributes: readonly IoctlAttribute[]
  /** Of INVOKE_WRITE. */
  readonly command: number | undefined
}

const attributeName = (names: readonly string[], id: number): string =>
  id === UHW_IN ? 'UHW_IN' : id === UHW_OUT ? 'UHW_OUT' : (names[id] ?? `attribute ${hex(id)}`)

const ioctlMessage = (bytes: Uint8Array): IoctlMessage | undefined => {
  if (bytes.length < IOCTL_HEADER) return undefined
  const view = viewOf(bytes)
  const object = view.getUint16(2, true)
  const method = view.getUint16(4, true)
  const found = linuxCall('ioctl', object, method)
  const count = Math.min(view.getUint16(6, true), Math.floor((bytes.length - IOCTL_HEADER) / ATTRIBUTE))
  const attributes = Array.from({ length: count }, (_, i): IoctlAttribute => {
    const at = IOCTL_HEADER + i * ATTRIBUTE
    const id = view.getUint16(at, true)
    return {
      id,
      length: view.getUint16(at + 2, true),
      flags: view.getUint16(at + 4, true),
      data: view.getBigUint64(at + 8, true),
      name: attributeName(found?.attributes ?? [], id),
    }
  })
  const command = found?.carriesCommand ? attributes.find(({ id }) => id === InvokeWrite.WRITE_CMD)?.data : undefined
  return {
    name: found?.name ?? 'unknown',
    object,
    method,
    driver: view.getUint32(16, true),
    attributes,
    command: command === undefined ? undefined : Number(command & 0xffffffffn),
  }
}

const MANDATORY = 1
const INLINE = 8

/** The struct in an attribute of INVOKE_WRITE. */
const structText = (command: number | undefined, id: number): string => {
  const found = command === undefined ? undefined : linuxCall('write', command)
  if (found === undefined) return ''
  if (id === InvokeWrite.CORE_IN) return ` struct ${requestStruct(found.name)}`
  return id === InvokeWrite.CORE_OUT ? ` ${responseText(found.number)}` : ''
}

/** The eight bytes inside the attribute. */
const inlineBytes = (data: bigint, length: number): Uint8Array => {
  const bytes = new Uint8Array(INLINE)
  viewOf(bytes).setBigUint64(0, data, true)
  return bytes.subarray(0, length)
}

const ioctlLines = (pieces: readonly Piece[], out: readonly Piece[], style: Style, record: TraceRecord): string[] => {
  const { address, bytes, length } = pieces[0]!
  const message = ioctlMessage(bytes)
  if (message === undefined) return [`ioctl ${placeText(pieces[0]!, style)}`]
  const { name, object, method, driver, command, attributes } = message
  const known = knownOf(record)
  const table = ifThere(() => findMethod(object, method))
  /** The value of an attribute: a memory range, or the bytes themselves. */
  const held = ({ length, data }: IoctlAttribute, isOut: boolean): Piece | Uint8Array | undefined =>
    (isOut ? out : pieces).find(one => one.address === data) ??
    (isOut || length === 0 || length > INLINE ? undefined : inlineBytes(data, length))
  const fields = (id: number, holds: Piece | Uint8Array | undefined): string[] => {
    if (holds === undefined) return []
    const bytes = holds instanceof Uint8Array ? holds : holds.bytes
    if (command !== undefined && id === InvokeWrite.CORE_IN) return commandFields(command, 'in', bytes, known, style)
    if (command !== undefined && id === InvokeWrite.CORE_OUT) return commandFields(command, 'out', bytes, known, style)
    const found = table?.attributes.get(id)
    if (found === undefined || found.spec.cells.length === 0) return []
    return structLines(found.layout(classIn(known, table?.spec.classes ?? [])), bytes, style, known.numbers)
  }
  const linesOf = (one: IoctlAttribute): string[] => {
    const { id, length, data, flags, name } = one
    const kind = table?.attributes.get(id)?.spec.kind
    const isOut = kind === 'out' || kind === 'list' || (kind === undefined && id === UHW_OUT)
    const holds = held(one, isOut)
    const value = (): string => {
      if (command !== undefined && id === InvokeWrite.WRITE_CMD) return commandText(command)
      // The result of a create, which the program finds in the attribute.
      if (kind === 'newHandle' && known.created !== undefined) return `${hex(data)}, then ${known.created}`
      if (kind === 'newFd' && known.numbers.has('object'))
        return `${hex(data)}, then ${fdText(known.numbers, 'object')}`
      if (holds instanceof Uint8Array) return `${length} bytes: ${hex(data)}`
      if (holds !== undefined) return `${isOut ? 'out ' : ''}${placeText(holds, style)}`
      return length === 0 ? hex(data) : `${length} bytes at ${hex(data)}`
    }
    const optional = (flags & MANDATORY) === 0 ? ' (optional)' : ''
    return [`${name}${structText(command, id)}${optional} ${value()}`, ...indented(fields(id, holds))]
  }
  return [
    `ioctl ${name} (object ${object}, method ${method}, driver ${driver}) at ${hex(address)}, ${length} bytes`,
    ...indented(attributes.flatMap(linesOf)),
  ]
}

// ---- any ----

const umadLines = (pieces: readonly Piece[], out: readonly Piece[], style: Style): string[] => [
  'umad',
  ...pieces.map(piece => `  in ${placeText(piece, style)}`),
  ...out.map(piece => `  out ${placeText(piece, style)}`),
]

const lines = { write: writeLines, ioctl: ioctlLines, umad: umadLines, object: objectLines, driver: driverLines }

/** Lines below the call's line, indented by four; none if the record has no bytes. */
export const rawLines = (record: TraceRecord, style: Style): string[] => {
  const { raw, dialect } = record
  const [pieces, out] = [raw?.in.map(pieceOf) ?? [], raw?.out.map(pieceOf) ?? []]
  // A read(2) passes no message.
  if (pieces.length === 0 && ((dialect !== 'driver' && dialect !== 'umad') || out.length === 0)) return []
  return lines[dialect](pieces, out, style, record).map(line => `    ${line}`)
}

const pieceJson = ({ address, bytes, length }: Piece): Record<string, unknown> => ({
  address: hex(address),
  length,
  bytes: bytesText(bytes, Number.POSITIVE_INFINITY).replace('(no bytes)', ''),
})

/**
 * A traced call for `JSON.stringify`: names of the call, messages laid out, and the memory read (`in`) and written
 * (`out`).
 */
export const rawJson = (record: TraceRecord): Record<string, unknown> => {
  const { raw, dialect } = record
  const pieces = raw?.in.map(pieceOf) ?? []
  const [message] = pieces
  const ioctl = dialect === 'ioctl' && message !== undefined ? ioctlMessage(message.bytes) : undefined
  const number =
    dialect === 'write' && message !== undefined && message.bytes.length >= 4
      ? viewOf(message.bytes).getUint32(0, true)
      : ioctl?.command
  const command = number === undefined ? undefined : linuxCall('write', number)
  const out = raw?.out.map(pieceOf) ?? []
  return {
    ...(dialect === 'object' && objectJson(pieces, out, record)),
    ...(ioctl !== undefined && { ioctl: ioctl.name }),
    ...(command !== undefined && { command: command.name, struct: requestStruct(command.name) }),
    in: pieces.map(pieceJson),
    out: out.map(pieceJson),
  }
}
