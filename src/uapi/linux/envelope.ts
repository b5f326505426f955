/*
 * All encodings of a call in Linux's dialects (R41), for calls that did not come from these dialects. An encoding is a
 * LEGACY attribute (legacy.ts); `encodeLinux` turns it and the call into bytes.
 *
 * Outputs, and inputs of more than 8 bytes, are in memory from a given address on. INFO_HANDLES and QUERY_GID_TABLE are
 * omitted, because their arguments are derived from buffer lengths (ioctl.ts).
 */

import { AttributeFlag } from '../../spec/classes/ids.ts'
import {
  InvokeWrite,
  type IoctlAttribute,
  type IoctlMethod,
  ioctlMethods,
  UHW_IN,
  UHW_OUT,
} from '../../spec/linux/ioctl.ts'
import type { Cell } from '../../spec/linux/layout.ts'
import { LinuxObject } from '../../spec/linux/names.ts'
import { EXTENDED, type WriteCommand, writeCommands } from '../../spec/linux/write.ts'
import type { AnyValues } from '../../spec/schema/schema.ts'
import type { Call, Schema } from '../call.ts'
import { payloadOf } from '../object/format.ts'
import { viewOf } from '../scalar.ts'
import { driverRequest } from './caller.ts'
import { attributeOf, isAttributeValue } from './cells.ts'
import { findMethod, INLINE_BYTES, IoctlAttr, IoctlHeader, offsetOf } from './ioctl-message.ts'
import { EntryPoint, packLegacy } from './legacy.ts'
import { tailFits, tailSize } from './tail.ts'
import { requestStart, WriteHeader } from './write.ts'

/** One encoding of a call. */
export interface Encoding {
  /** Linux's name of the command or method. */
  readonly name: string
  /** A write command, a command in an ioctl INVOKE_WRITE, or an ioctl method. */
  readonly form: 'write' | 'invoke' | 'ioctl'
  readonly legacy: Uint8Array
}

/** The driver of the device that a call is for. */
type CallDriver = Pick<Schema, 'driverId' | 'linux'>

const pointerTo = (address: bigint): Uint8Array => {
  const bytes = new Uint8Array(8)
  viewOf(bytes).setBigUint64(0, address, true)
  return bytes
}

const noBytes = new Uint8Array()

/**
 * The driver's part of the request, and bytes of the response's. In rxe's MODIFY_SRQ, the request has the response's
 * address, `memoryAddress`.
 */
const driverParts = (
  hasDriverBytes: boolean,
  call: Call,
  driver: CallDriver,
  memoryAddress: bigint,
): { input: Uint8Array; output: number } => {
  if (!hasDriverBytes) return { input: noBytes, output: 0 }
  const part = driver.linux?.layouts[`${call.class.name}.${call.methodName}`]
  if (part?.input === 'pointer') return { input: pointerTo(memoryAddress), output: 0 }
  return {
    input: driverRequest(driver.linux, call),
    output: part === undefined ? 0 : Math.max(part.minBytes ?? 0, part.out.size),
  }
}

/** Whether the call has the arguments that a command or method implies. */
const matchesImplied = (impliedArguments: AnyValues | undefined, call: Call): boolean =>
  Object.entries(impliedArguments ?? {}).every(([name, value]) => call.args[name] === value)

// ---- commands ----

const requestSize = ({ in: layout, isExtended }: WriteCommand, call: Call): number => {
  const size = layout.size + tailSize(layout, call)
  return isExtended ? (size + 7) & ~7 : size
}

const legacyWrite = (command: WriteCommand, call: Call, driver: CallDriver, memoryAddress: bigint): Uint8Array => {
  const start = requestStart(command.isExtended)
  const { input, output } = driverParts(command.hasDriverBytes, call, driver, memoryAddress)
  const size = requestSize(command, call)
  const bytes = new Uint8Array(start + size + input.length)
  const view = viewOf(bytes)
  bytes.set(input, start + size)
  view.setUint32(WriteHeader.command, (command.number + (command.isExtended ? EXTENDED : 0)) >>> 0, true)
  const responseSize = command.out?.size ?? 0
  if (command.isExtended) {
    view.setUint16(WriteHeader.inWords, size / 8, true)
    view.setUint16(WriteHeader.outWords, responseSize / 8, true)
    view.setUint16(WriteHeader.providerInWords, input.length / 8, true)
    view.setUint16(WriteHeader.providerOutWords, output / 8, true)
  } else {
    view.setUint16(WriteHeader.inWords, bytes.length / 4, true)
    view.setUint16(WriteHeader.outWords, (responseSize + output) / 4, true)
  }
  if (command.out !== undefined) view.setBigUint64(WriteHeader.response, memoryAddress, true)
  return packLegacy({ entryPoint: EntryPoint.WRITE, parts: [bytes] })
}

// ---- ioctls ----

/** An attribute of an ioctl's message: an input, an output, or neither (a handle, a descriptor, flags). */
interface EncodedAttribute {
  readonly id: number
  readonly length: number
  /** The bytes of an input. If there are more than INLINE_BYTES, the attribute has their address. */
  readonly in?: Uint8Array
  /** Whether the attribute has the address of an output buffer. */
  readonly isPointer?: boolean
}

/** The LEGACY attribute for an ioctl. `memoryAddress`: where the memory of the attributes begins. */
const packIoctl = (
  object: number,
  method: number,
  driverId: number,
  memoryAddress: bigint,
  attributes: readonly EncodedAttribute[],
): Uint8Array => {
  const bytes = new Uint8Array(offsetOf(attributes.length))
  const view = viewOf(bytes)
  view.setUint16(IoctlHeader.length, bytes.length, true)
  view.setUint16(IoctlHeader.object, object, true)
  view.setUint16(IoctlHeader.method, method, true)
  view.setUint16(IoctlHeader.attributeCount, attributes.length, true)
  view.setUint32(IoctlHeader.driverId, driverId, true)
  const parts: Uint8Array[] = [bytes]
  let next = memoryAddress
  attributes.forEach(({ id, length, in: input, isPointer }, i) => {
    const at = offsetOf(i)
    const dataAt = at + IoctlAttr.data
    view.setUint16(at + IoctlAttr.id, id, true)
    view.setUint16(at + IoctlAttr.length, length, true)
    view.setUint16(at + IoctlAttr.flags, AttributeFlag.MANDATORY, true)
    if (input !== undefined && length <= INLINE_BYTES) bytes.set(input, dataAt)
    else if (input !== undefined || isPointer === true) {
      view.setBigUint64(dataAt, next, true)
      next += BigInt((length + 7) & ~7)
      if (input !== undefined) parts.push(input)
    }
  })
  return packLegacy({ entryPoint: EntryPoint.IOCTL, parts })
}

/** Method number of the object DEVICE. */
const INVOKE_WRITE = 0

const legacyInvoke = (command: WriteCommand, call: Call, driver: CallDriver, memoryAddress: bigint): Uint8Array => {
  const { input, output } = driverParts(command.hasDriverBytes, call, driver, memoryAddress)
  const number = new Uint8Array(8)
  viewOf(number).setUint32(0, (command.number + (command.isExtended ? EXTENDED : 0)) >>> 0, true)
  const size = requestSize(command, call)
  return packIoctl(LinuxObject.DEVICE, INVOKE_WRITE, driver.driverId, memoryAddress, [
    { id: InvokeWrite.CORE_IN, length: size, in: new Uint8Array(size) },
    ...(command.out === undefined ? [] : [{ id: InvokeWrite.CORE_OUT, length: command.out.size, isPointer: true }]),
    { id: InvokeWrite.WRITE_CMD, length: 8, in: number },
    ...(input.length === 0 ? [] : [{ id: UHW_IN, length: input.length, in: input }]),
    ...(output === 0 ? [] : [{ id: UHW_OUT, length: output, isPointer: true }]),
  ])
}

/** Whether an attribute is only for other classes of the ioctl: the call's method has none of its values. */
const isForeign = ({ kind, cells }: IoctlAttribute, { method }: Call): boolean => {
  const attributes = kind === 'out' ? method.out : method.in
  return cells.length > 0 && cells.every(cell => isAttributeValue(cell) && attributes[attributeOf(cell)] === undefined)
}

/** Whether an input carries only optional arguments, and the call has none of them. */
const isAbsent = ({ kind, cells }: IoctlAttribute, { method, args }: Call): boolean =>
  kind === 'in' &&
  cells.length > 0 &&
  cells.every(
    cell =>
      isAttributeValue(cell) &&
      method.in[attributeOf(cell)]?.optional === true &&
      args[attributeOf(cell)] === undefined,
  )

const MAX_OUTPUT_BYTES = 1024

/** Whether a call has an argument for every mandatory handle and descriptor of an ioctl. */
const hasMandatoryReferences = ({ attributes }: IoctlMethod, { args, method }: Call): boolean =>
  attributes
    .filter(({ kind, mandatory }) => mandatory && (kind === 'handle' || kind === 'fd'))
    .every(({ name }) => method.in[name] === undefined || args[name] !== undefined)

/** Whether a call has enough records for each list of an ioctl. */
const hasRecords = ({ attributes }: IoctlMethod, { args, method }: Call): boolean =>
  attributes.every(
    ({ kind, name, min }) => kind !== 'records' || payloadOf(method.in[name]!.type, args[name]!).length >= min,
  )

/** Names of the arguments that the groups of `choices` imply. */
const impliedByChoices = ({ choices = [] }: IoctlMethod): string[] =>
  choices.flatMap(({ impliedArguments }) => Object.keys(impliedArguments))

/** Ids of the attributes of other choices than the call's. Undefined: no choice has the call's arguments. */
const otherChoices = (entry: IoctlMethod, call: Call): readonly number[] | undefined => {
  const { choices, attributes } = entry
  if (choices === undefined) return []
  const names = impliedByChoices(entry)
  const descriptors = attributes.filter(
    ({ id, kind }) => kind === 'fd' && choices.some(one => one.attributes.includes(id)),
  )
  const flags = attributes.filter(({ kind }) => kind === 'flags').map(({ name }) => Number(call.args[name] ?? 0))
  const chosen = choices.find(
    choice =>
      flags.every(value => (value & ~(choice.allowedFlags ?? -1)) === 0) &&
      names.every(name => call.args[name] === choice.impliedArguments[name]) &&
      descriptors.every(({ id, name }) => choice.attributes.includes(id) === (call.args[name] !== undefined)),
  )
  return chosen && choices.filter(choice => choice !== chosen).flatMap(choice => choice.attributes)
}

const canExpress = (entry: IoctlMethod, call: Call): boolean =>
  entry.classes.includes(call.class.name) &&
  entry.method === call.methodName &&
  entry.converter === undefined &&
  matchesImplied(entry.impliedArguments, call) &&
  otherChoices(entry, call) !== undefined &&
  hasMandatoryReferences(entry, call) &&
  hasRecords(entry, call)

/** Empty if the attribute is not passed. `driver`: see `driverParts`. */
const encodedAttributes = (
  attribute: IoctlAttribute,
  call: Call,
  driver: { readonly input: Uint8Array; readonly output: number },
): EncodedAttribute[] => {
  const { id, kind, name, mandatory, cells, max } = attribute
  if (id === UHW_IN) return driver.input.length === 0 ? [] : [{ id, length: driver.input.length, in: driver.input }]
  if (id === UHW_OUT) return driver.output === 0 ? [] : [{ id, length: driver.output, isPointer: true }]
  if (!mandatory && (isForeign(attribute, call) || isAbsent(attribute, call))) return []
  if (kind === 'in') return cells.length === 0 ? [] : [{ id, length: max, in: new Uint8Array(max) }]
  if (kind === 'out' || kind === 'list') return [{ id, length: Math.min(max, MAX_OUTPUT_BYTES), isPointer: true }]
  if (kind === 'records')
    return [{ id, length: payloadOf(call.method.in[name]!.type, call.args[name]!).length, isPointer: true }]
  const isArgument = kind === 'fd' || kind === 'handle' || kind === 'flags' || kind === 'enum'
  if (isArgument && !mandatory && call.args[name] === undefined) return []
  // an argument, or the object that the call creates or destroys
  return [{ id, length: kind === 'flags' ? 4 : 0 }]
}

const legacyIoctl = (spec: IoctlMethod, call: Call, driver: CallDriver, memoryAddress: bigint): Uint8Array => {
  const parts = driverParts(spec.hasDriverAttributes, call, driver, memoryAddress)
  const others = otherChoices(spec, call) ?? []
  const attributes = [...findMethod(spec.object, spec.number).attributes.values()].filter(
    ({ spec: { id } }) => !others.includes(id),
  )
  const encoded = attributes.flatMap(({ spec: attribute }) => encodedAttributes(attribute, call, parts))
  return packIoctl(spec.object, spec.number, driver.driverId, memoryAddress, encoded)
}

// ---- all of them ----

/** All encodings of a call to a device of `driver`, with memory from `memoryAddress` on. */
export const encodings = (call: Call, driver: CallDriver, memoryAddress: bigint): Encoding[] => [
  ...writeCommands
    .filter(
      entry =>
        entry.classes.includes(call.class.name) &&
        entry.method === call.methodName &&
        matchesImplied(entry.impliedArguments, call) &&
        tailFits(entry.in, call),
    )
    .flatMap((entry): Encoding[] => [
      { name: entry.name, form: 'write', legacy: legacyWrite(entry, call, driver, memoryAddress) },
      { name: entry.name, form: 'invoke', legacy: legacyInvoke(entry, call, driver, memoryAddress) },
    ]),
  ...ioctlMethods
    .filter(entry => canExpress(entry, call))
    .map(
      (entry): Encoding => ({
        name: entry.name,
        form: 'ioctl',
        legacy: legacyIoctl(entry, call, driver, memoryAddress),
      }),
    ),
]

// ---- arguments of an encoding ----

const attributesOf = (cells: readonly Cell[]): string[] => cells.map(attributeOf)

/** Names of the arguments that a command or method of Linux can carry to a RoCE device. */
export const expressibleArguments = ({ form, name }: Pick<Encoding, 'form' | 'name'>): ReadonlySet<string> => {
  if (form === 'ioctl') {
    const method = ioctlMethods.find(method => method.name === name)!
    const { attributes, impliedArguments = {} } = method
    const inputs = attributes.filter(({ kind }) => kind !== 'out' && kind !== 'list')
    return new Set([
      ...inputs.flatMap(entry => [entry.name, ...attributesOf(entry.cells)]),
      ...Object.keys(impliedArguments),
      ...impliedByChoices(method),
    ])
  }
  const { in: layout, impliedArguments = {} } = writeCommands.find(command => command.name === name)!
  return new Set([
    ...attributesOf(layout.cells.filter(({ link = 'roce' }) => link === 'roce')),
    ...Object.keys(impliedArguments),
    ...(layout.tail === undefined ? [] : [layout.tail]),
    ...(layout.tailSpecs === undefined ? [] : [layout.tailSpecs.counters]),
  ])
}
