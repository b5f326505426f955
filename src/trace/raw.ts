/*
 * The bytes of a call as the program made it (`userdma trace --abi`): the dialect, in Linux's own words the command or
 * the object and method with the names of the attributes, structs of ib_user_verbs.h, and what was read from and
 * written to the program's memory. Messages of the object dialect, and calls of drivers, are laid out by
 * layout-text.ts. Calls that could not be decoded are shown in the same way. Never throws.
 */
import { linuxCall } from '../spec/linux/coverage.ts'
import { InvokeWrite, ioctlMethods, UHW_IN, UHW_OUT } from '../spec/linux/ioctl.ts'
import { requestStruct, responseStruct } from '../spec/linux/names.ts'
import { EXTENDED } from '../spec/linux/write.ts'
import { viewOf } from '../uapi/scalar.ts'
import type { TraceRecord } from '../uapi/tool.ts'
import { bytesText } from './bytes.ts'
import { driverLines, objectJson, objectLines } from './layout-text.ts'
import { hex, type Piece, pieceOf, placeText } from './piece.ts'
import type { Style } from './values.ts'

/** A command's number and name; the name is missing if Linux has no such command. */
const commandText = (number: number): string => {
  const found = linuxCall('write', number)
  const shown = number >= EXTENDED ? `ex ${number & 0xff}` : String(number)
  return found === undefined ? shown : `${shown} ${found.name}`
}

const responseText = (number: number): string => {
  const found = linuxCall('write', number)
  return found === undefined ? 'response' : `struct ${responseStruct(found.name)}`
}

// ---- write ----

const writeLines = ([message]: readonly Piece[], out: readonly Piece[], style: Style): string[] => {
  const { bytes } = message
  const number = bytes.length < 4 ? undefined : viewOf(bytes).getUint32(0, true)
  const found = number === undefined ? undefined : linuxCall('write', number)
  const struct = found === undefined ? '' : ` struct ${requestStruct(found.name)}`
  const name = number === undefined ? '' : ` ${commandText(number)}${struct}`
  const answer = number === undefined ? 'response' : responseText(number)
  return [
    `write${name} ${placeText(message, style)}`,
    ...out.map((piece, i) => `  out ${i === 0 ? answer : 'driver'} ${placeText(piece, style)}`),
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

/** Attributes that come out, by object and method. */
const OUTPUTS = new Map(
  ioctlMethods.map(({ object, number, attributes }) => [
    `${object} ${number}`,
    [UHW_OUT, ...attributes.filter(({ kind }) => kind === 'out' || kind === 'list').map(({ id }) => id)],
  ]),
)

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
  const command = found?.carries ? attributes.find(({ id }) => id === InvokeWrite.WRITE_CMD)?.data : undefined
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

/** The struct that an attribute of INVOKE_WRITE holds. */
const structText = (command: number | undefined, id: number): string => {
  const found = command === undefined ? undefined : linuxCall('write', command)
  if (found === undefined) return ''
  if (id === InvokeWrite.CORE_IN) return ` struct ${requestStruct(found.name)}`
  return id === InvokeWrite.CORE_OUT ? ` ${responseText(found.number)}` : ''
}

const ioctlLines = (pieces: readonly Piece[], out: readonly Piece[], style: Style): string[] => {
  const [{ address, bytes, length }] = pieces
  const message = ioctlMessage(bytes)
  if (message === undefined) return [`ioctl ${placeText(pieces[0], style)}`]
  const { name, object, method, driver, command, attributes } = message
  const comesOut = new Set(OUTPUTS.get(`${object} ${method}`) ?? [UHW_OUT])
  const shown = ({ id, length, data }: IoctlAttribute): string => {
    if (command !== undefined && id === InvokeWrite.WRITE_CMD) return commandText(command)
    const isOut = comesOut.has(id)
    const piece = (isOut ? out : pieces).find(one => one.address === data)
    if (piece !== undefined) return `${isOut ? 'out ' : ''}${placeText(piece, style)}`
    if (length > INLINE || isOut) return `${length} bytes at ${hex(data)}`
    return length === 0 ? hex(data) : `${length} bytes: ${hex(data)}`
  }
  return [
    `ioctl ${name} (object ${object}, method ${method}, driver ${driver}) at ${hex(address)}, ${length} bytes`,
    ...attributes.map(one => {
      const optional = (one.flags & MANDATORY) === 0 ? ' (optional)' : ''
      return `  ${one.name}${structText(command, one.id)}${optional} ${shown(one)}`
    }),
  ]
}

// ---- any ----

const lines = { write: writeLines, ioctl: ioctlLines, object: objectLines, driver: driverLines }

/** Lines below that of the call, indented by four; none if the record has no bytes. */
export const rawLines = (record: TraceRecord, style: Style): string[] => {
  const { raw, dialect } = record
  const [pieces, out] = [raw?.in.map(pieceOf) ?? [], raw?.out.map(pieceOf) ?? []]
  if (pieces.length === 0 && (dialect !== 'driver' || out.length === 0)) return []
  return lines[dialect](pieces, out, style, record).map(line => `    ${line}`)
}

const pieceJson = ({ address, bytes, length }: Piece): Record<string, unknown> => ({
  address: hex(address),
  length,
  bytes: bytesText(bytes, Number.POSITIVE_INFINITY).replace('(no bytes)', ''),
})

/** The same for `JSON.stringify`: names of the call, messages laid out; `in` and `out`, memory read and written. */
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
