/*
 * A call as the program made it (`userdma trace --abi`): Linux's names of commands, methods and attributes, the fields
 * of structs, and the memory that the call has read and written. layout-text.ts has the object dialect and drivers.
 * Calls that cannot be decoded are shown too. Nothing throws.
 */
import { hex, hexBytes } from '../../../base/text.ts'
import { CallError } from '../../../spec/errno.ts'
import { InvokeWrite, UHW_IN, UHW_OUT } from '../../../spec/linux/ioctl.ts'
import { requestStruct, responseStruct } from '../../../spec/linux/names.ts'
import { absentUcmaCommands, UCMA_HEADER_BYTES, ucmaCommands } from '../../../spec/linux/ucma.ts'
import { COMMAND_MASK, EXTENDED } from '../../../spec/linux/write.ts'
import type { TraceRecord } from '../../../spec/records.ts'
import { findCommand } from '../../../uapi/linux/command.ts'
import { linuxCall } from '../../../uapi/linux/coverage.ts'
import { findMethod } from '../../../uapi/linux/ioctl-message.ts'
import { requestStart, WriteHeader } from '../../../uapi/linux/write.ts'
import { viewOf } from '../../../uapi/scalar.ts'

import { createdOf, decodeRecord } from '../decode.ts'
import type { Style } from '../values.ts'
import { driverLines, indented, objectJson, objectLines } from './layout-text.ts'
import { limitedRange, type MemoryRange, memoryRangeOf, memoryText } from './memory-range.ts'
import { fdText, type NewDescriptors, structLines } from './struct.ts'

/**
 * The number and name of a write command; `ex N` for an extended one, hexadecimal with unknown flags. No name: not a
 * command of Linux.
 */
const commandText = (number: number): string => {
  const found = linuxCall('write', number)
  const hasUnknownFlags = (number & ~(EXTENDED | COMMAND_MASK)) !== 0
  const shown = hasUnknownFlags ? hex(number) : number >= EXTENDED ? `ex ${number & COMMAND_MASK}` : String(number)
  return found === undefined ? shown : `${shown} ${found.name}`
}

const responseText = (number: number): string => {
  const found = linuxCall('write', number)
  return found === undefined ? 'response' : `struct ${responseStruct(found.name)}`
}

// ---- fields ----

interface CallFacts {
  /** Undefined: the call was refused before its class was known. */
  readonly className: string | undefined
  /** The handle of the created object. */
  readonly created: number | undefined
  readonly newDescriptors: NewDescriptors
}

const factsOf = (record: TraceRecord): CallFacts => {
  const decoded = decodeRecord(record, 0)
  return {
    className: decoded?.class.name,
    created: decoded === undefined || record.ret < 0 ? undefined : createdOf(decoded),
    newDescriptors: new Map((record.descriptors ?? []).map(({ attribute, fd }) => [attribute, fd])),
  }
}

/** Undefined if `find` throws a CallError: there is no such call. */
const ifExists = <T>(find: () => T): T | undefined => {
  try {
    return find()
  } catch (error) {
    if (error instanceof CallError) return undefined
    throw error
  }
}

/** The class of a call if it is in `classes`, else the first of `classes`. */
const classAmong = ({ className }: CallFacts, classes: readonly string[]): string =>
  className !== undefined && classes.includes(className) ? className : classes[0]!

/** The fields of the request (`in`) or response (`out`) of a write command. */
const commandFields = (
  number: number | undefined,
  direction: 'in' | 'out',
  bytes: Uint8Array,
  facts: CallFacts,
  style: Style,
): string[] => {
  const found = number === undefined ? undefined : ifExists(() => findCommand(number))
  const compiled = found?.[direction]?.(classAmong(facts, found.command.classes))
  return compiled === undefined ? [] : structLines(compiled, bytes, style, facts.newDescriptors)
}

// ---- write ----

/**
 * The core's part of a request, without headers. In a basic command its length is not known: the result then includes
 * the driver's part, which follows.
 */
const coreRequest = (bytes: Uint8Array, isExtended: boolean): Uint8Array => {
  const start = requestStart(isExtended)
  if (!isExtended || bytes.length < start) return bytes.subarray(start)
  return bytes.subarray(start, start + viewOf(bytes).getUint16(WriteHeader.inWords, true) * 8)
}

/**
 * The address of the core's response, if the message has one. It tells the core's response from the driver's, because
 * either may be written first.
 */
const responseAddress = (bytes: Uint8Array): bigint | undefined =>
  bytes.length < WriteHeader.response + 8 ? undefined : viewOf(bytes).getBigUint64(WriteHeader.response, true)

const writeLines = (
  inputs: readonly MemoryRange[],
  out: readonly MemoryRange[],
  style: Style,
  record: TraceRecord,
): string[] => {
  const message = inputs[0]!
  const { bytes } = message
  const facts = factsOf(record)
  const number = bytes.length < 4 ? undefined : viewOf(bytes).getUint32(0, true)
  const found = number === undefined ? undefined : linuxCall('write', number)
  const struct = found === undefined ? '' : ` struct ${requestStruct(found.name)}`
  const name = number === undefined ? '' : ` ${commandText(number)}${struct}`
  const responseName = number === undefined ? 'response' : responseText(number)
  const request = coreRequest(bytes, number !== undefined && number >= EXTENDED)
  const response = responseAddress(bytes)
  return [
    `write${name} ${memoryText(message, style)}`,
    ...indented(commandFields(number, 'in', request, facts, style)),
    ...out.flatMap(memory => {
      const text = memoryText(memory, style)
      if (memory.address !== response) return [`  out driver ${text}`]
      const fields = commandFields(number, 'out', memory.bytes, facts, style)
      return [`  out ${responseName} ${text}`, ...indented(indented(fields))]
    }),
  ]
}

// ---- ioctl ----

/** Bytes of struct ib_uverbs_ioctl_hdr and of struct ib_uverbs_attr. */
const IOCTL_HEADER = 24
const ATTRIBUTE = 16

interface IoctlAttribute {
  readonly id: number
  readonly length: number
  readonly flags: number
  /** The address of the value, or the value itself. */
  readonly data: bigint
  readonly name: string
}

interface IoctlMessage {
  readonly name: string
  readonly object: number
  readonly method: number
  readonly driver: number
  readonly attributes: readonly IoctlAttribute[]
  /** The number of the write command that INVOKE_WRITE carries. Undefined: another method, or not a u32. */
  readonly command: number | undefined
}

const attributeName = (names: readonly string[], id: number): string =>
  id === UHW_IN ? 'UHW_IN' : id === UHW_OUT ? 'UHW_OUT' : (names[id] ?? `attribute ${hex(id)}`)

/** Undefined: fewer bytes than a header. */
const ioctlMessage = (bytes: Uint8Array): IoctlMessage | undefined => {
  if (bytes.length < IOCTL_HEADER) return undefined
  const view = viewOf(bytes)
  // struct ib_uverbs_ioctl_hdr: length at 0, object_id 2, method_id 4, num_attrs 6, driver_id 16.
  const object = view.getUint16(2, true)
  const method = view.getUint16(4, true)
  const found = linuxCall('ioctl', object, method)
  const count = Math.min(view.getUint16(6, true), Math.floor((bytes.length - IOCTL_HEADER) / ATTRIBUTE))
  const attributes = Array.from({ length: count }, (_, i): IoctlAttribute => {
    const at = IOCTL_HEADER + i * ATTRIBUTE
    // struct ib_uverbs_attr: attr_id at 0, len 2, flags 4, data 8.
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
    command: command === undefined || command > 0xffffffffn ? undefined : Number(command),
  }
}

/** UVERBS_ATTR_F_MANDATORY. */
const MANDATORY = 1
/** Maximum bytes of a value in the attribute itself. */
const INLINE_BYTES = 8

/** The name of the struct in an attribute of INVOKE_WRITE. */
const structText = (command: number | undefined, id: number): string => {
  const found = command === undefined ? undefined : linuxCall('write', command)
  if (found === undefined) return ''
  if (id === InvokeWrite.CORE_IN) return ` struct ${requestStruct(found.name)}`
  return id === InvokeWrite.CORE_OUT ? ` ${responseText(found.number)}` : ''
}

/** The first `length` bytes of a value in the attribute itself. */
const inlineBytes = (data: bigint, length: number): Uint8Array => {
  const bytes = new Uint8Array(INLINE_BYTES)
  viewOf(bytes).setBigUint64(0, data, true)
  return bytes.subarray(0, length)
}

const ioctlLines = (
  inputs: readonly MemoryRange[],
  out: readonly MemoryRange[],
  style: Style,
  record: TraceRecord,
): string[] => {
  const { address, bytes, length } = inputs[0]!
  const message = ioctlMessage(bytes)
  if (message === undefined) return [`ioctl ${memoryText(inputs[0]!, style)}`]
  const { name, object, method, driver, command, attributes } = message
  const facts = factsOf(record)
  const table = ifExists(() => findMethod(object, method))
  /** A memory range, or bytes in the attribute itself; undefined: empty, or not traced. */
  const attributeValueOf = ({ length, data }: IoctlAttribute, isOut: boolean): MemoryRange | Uint8Array | undefined => {
    if (!isOut && length <= INLINE_BYTES) return length === 0 ? undefined : inlineBytes(data, length)
    const range = (isOut ? out : inputs).find(({ address }) => address === data)
    return range && limitedRange(range, length)
  }
  const structLinesOf = (id: number, value: MemoryRange | Uint8Array | undefined): string[] => {
    if (value === undefined) return []
    const bytes = value instanceof Uint8Array ? value : value.bytes
    if (command !== undefined && id === InvokeWrite.CORE_IN) return commandFields(command, 'in', bytes, facts, style)
    if (command !== undefined && id === InvokeWrite.CORE_OUT) return commandFields(command, 'out', bytes, facts, style)
    const found = table?.attributes.get(id)
    if (found === undefined || found.spec.cells.length === 0) return []
    return structLines(found.layout(classAmong(facts, table?.spec.classes ?? [])), bytes, style, facts.newDescriptors)
  }
  const linesOf = (attribute: IoctlAttribute): string[] => {
    const { id, length, data, flags, name } = attribute
    const kind = table?.attributes.get(id)?.spec.kind
    const isOut = kind === 'out' || kind === 'list' || (kind === undefined && id === UHW_OUT)
    const attributeValue = attributeValueOf(attribute, isOut)
    const text = (): string => {
      if (command !== undefined && id === InvokeWrite.WRITE_CMD) return commandText(command)
      // The kernel writes the handle or descriptor of a new object into the attribute.
      if (kind === 'newHandle' && facts.created !== undefined) return `${hex(data)}, then ${facts.created}`
      if (kind === 'newFd' && facts.newDescriptors.has('object'))
        return `${hex(data)}, then ${fdText(facts.newDescriptors, 'object')}`
      if (attributeValue instanceof Uint8Array) return `${length} bytes: ${hex(BigInt.asUintN(8 * length, data))}`
      if (attributeValue !== undefined) return `${isOut ? 'out ' : ''}${memoryText(attributeValue, style)}`
      return length === 0 ? hex(data) : `${length} bytes at ${hex(data)}`
    }
    const optional = (flags & MANDATORY) === 0 ? ' (optional)' : ''
    return [`${name}${structText(command, id)}${optional} ${text()}`, ...indented(structLinesOf(id, attributeValue))]
  }
  return [
    `ioctl ${name} (object ${object}, method ${method}, driver ${driver}) at ${hex(address)}, ${length} bytes`,
    ...indented(attributes.flatMap(linesOf)),
  ]
}

// ---- all dialects ----

/** The name of a command on an rdma_cm file: the first u32 of struct rdma_ucm_cmd_hdr. */
const ucmaName = ({ bytes }: MemoryRange): string | undefined => {
  if (bytes.length < UCMA_HEADER_BYTES) return undefined
  const command = viewOf(bytes).getUint32(0, true)
  const { name } = ucmaCommands.find(({ number }) => number === command) ?? absentUcmaCommands[command] ?? {}
  return name ?? String(command)
}

const rangeLines = (direction: 'in' | 'out', ranges: readonly MemoryRange[], style: Style): string[] =>
  ranges.map(range => `  ${direction} ${memoryText(range, style)}`)

const rdmaCmLines = (inputs: readonly MemoryRange[], out: readonly MemoryRange[], style: Style): string[] => {
  const [message, ...userMemory] = inputs
  const name = ucmaName(message!)
  return [
    `rdma_cm${name === undefined ? '' : ` ${name}`} ${memoryText(message!, style)}`,
    ...rangeLines('in', userMemory, style),
    ...rangeLines('out', out, style),
  ]
}

const messageLines =
  (name: string) =>
  (inputs: readonly MemoryRange[], out: readonly MemoryRange[], style: Style): string[] => [
    name,
    ...rangeLines('in', inputs, style),
    ...rangeLines('out', out, style),
  ]

const linesOfDialect = {
  write: writeLines,
  ioctl: ioctlLines,
  rdma_cm: rdmaCmLines,
  umad: messageLines('umad'),
  event: messageLines('event'),
  netlink: messageLines('netlink'),
  object: objectLines,
  driver: driverLines,
}

/** Lines to print below a call, indented by four spaces; none if the record has no bytes. */
export const rawLines = (record: TraceRecord, style: Style): string[] => {
  const { raw, dialect } = record
  const [inputs, out] = [raw?.in.map(memoryRangeOf) ?? [], raw?.out.map(memoryRangeOf) ?? []]
  // An ioctl of a driver and a read(2) of a message can have outputs without inputs.
  const canLackInputs = ['driver', 'umad', 'event', 'netlink'].includes(dialect)
  const hasOnlyOutputs = inputs.length === 0 && out.length > 0 && canLackInputs
  if (inputs.length === 0 && !hasOnlyOutputs) return []
  return linesOfDialect[dialect](inputs, out, style, record).map(line => `    ${line}`)
}

const memoryJson = ({ address, bytes, length }: MemoryRange): Record<string, unknown> => ({
  address: hex(address),
  length,
  bytes: hexBytes(bytes),
})

/**
 * A call for `JSON.stringify`: names, the parts of messages of the object dialect, and the memory read (`in`) and
 * written (`out`).
 */
export const rawJson = (record: TraceRecord): Record<string, unknown> => {
  const { raw, dialect } = record
  const inputs = raw?.in.map(memoryRangeOf) ?? []
  const [message] = inputs
  const ioctl = dialect === 'ioctl' && message !== undefined ? ioctlMessage(message.bytes) : undefined
  const number =
    dialect === 'write' && message !== undefined && message.bytes.length >= 4
      ? viewOf(message.bytes).getUint32(0, true)
      : ioctl?.command
  const command = number === undefined ? undefined : linuxCall('write', number)
  const out = raw?.out.map(memoryRangeOf) ?? []
  return {
    ...(dialect === 'object' && objectJson(inputs, out, record)),
    ...(ioctl !== undefined && { ioctl: ioctl.name }),
    ...(dialect === 'rdma_cm' && message !== undefined && { command: ucmaName(message) }),
    ...(command !== undefined && { command: command.name, struct: requestStruct(command.name) }),
    in: inputs.map(memoryJson),
    out: out.map(memoryJson),
  }
}
