/*
 * Parses a message of Linux's ioctl dialect. As in the kernel (test/fixtures/abi/raw.out), first the header is checked,
 * then the attributes in the caller's order, then missing attributes.
 *
 * Errors of an attribute:
 * - EPROTONOSUPPORT: unknown and mandatory;
 * - EOPNOTSUPP: nonzero bytes after the known ones, a number that the enumeration does not have;
 * - ENOENT: a handle without object;
 * - EBADF: a negative descriptor;
 * - EINVAL: duplicate or missing, a wrong length, a reserved field that is set, a handle of another class, a descriptor
 *   of more than 32 bits, a new object before GET_CONTEXT.
 */
import { AttributeFlag } from '../../spec/classes/ids.ts'
import type { LinuxAbi } from '../../spec/drivers/linux-abi.ts'
import { CallError, callError } from '../../spec/errno.ts'
import {
  DRIVER_OBJECTS,
  driverAttributes,
  type IoctlAttribute,
  type IoctlMethod,
  ioctlMethods,
} from '../../spec/linux/ioctl.ts'
import { layout } from '../../spec/linux/layout.ts'
import { because } from '../../spec/reason.ts'
import type { CallerView } from '../call.ts'
import { lacksMethod } from '../object/lacking.ts'
import { viewOf } from '../scalar.ts'
import { hasMethodOnDevice, isZero, layoutByClass, type UserBuffer } from './caller.ts'
import type { CompiledLayout } from './cells.ts'
import { linuxCall } from './coverage.ts'

/** Offsets of the fields of struct ib_uverbs_ioctl_hdr, and the struct's size. */
export const IoctlHeader = {
  length: 0,
  object: 2,
  method: 4,
  attributeCount: 6,
  /** u64. */
  reserved1: 8,
  driverId: 16,
  /** u32. */
  reserved2: 20,
  bytes: 24,
} as const
/**
 * Offsets of the fields of struct ib_uverbs_attr, and the struct's size. The first byte of `reserved` is an `enum`'s;
 * `data`: u64.
 */
export const IoctlAttr = { id: 0, length: 2, flags: 4, reserved: 6, data: 8, bytes: 16 } as const
/** Maximum bytes of a message: one page. */
const MAX_MESSAGE = 4096
/** Inputs of up to this many bytes are in the attribute's `data`. For longer inputs, `data` is an address. */
export const INLINE_BYTES = 8

// ---- the compiled table ----

/** An attribute of a method, with the layout of its struct for each class. */
interface CompiledAttribute {
  readonly spec: IoctlAttribute
  readonly layout: (className: string) => CompiledLayout
}
interface CompiledMethod {
  readonly spec: IoctlMethod
  readonly attributes: ReadonlyMap<number, CompiledAttribute>
}

const compileMethod = (spec: IoctlMethod): CompiledMethod => {
  const all = spec.hasDriverAttributes ? [...spec.attributes, ...driverAttributes] : spec.attributes
  const attributes = all.map(attribute => {
    const struct = layout(attribute.max, attribute.cells)
    const direction = attribute.kind === 'out' ? 'out' : 'in'
    // without `spec.method`, attributes have no cells, and their layouts are not used
    const compiled = layoutByClass(spec.name, spec.classes, struct, spec.method ?? '', direction, spec.driverClass)
    return [attribute.id, { spec: attribute, layout: compiled }] as const
  })
  return { spec, attributes: new Map(attributes) }
}

/** Compiled methods of drivers. */
const driverMethods = new WeakMap<IoctlMethod, CompiledMethod>()

/** A method of the driver's own, or in place of Linux's; undefined: Linux's. Throws CallError EPROTONOSUPPORT. */
const findDriverMethod = (
  abi: LinuxAbi | undefined,
  object: number,
  number: number,
  onName?: (name: string) => void,
): CompiledMethod | undefined => {
  const spec = abi?.methods?.find(one => one.object === object && one.number === number)
  if (spec === undefined) {
    if (object < DRIVER_OBJECTS && number < DRIVER_OBJECTS) return undefined
    throw callError.EPROTONOSUPPORT`object ${object} method ${number}: the driver has no such method`
  }
  onName?.(spec.name)
  let compiled = driverMethods.get(spec)
  if (compiled === undefined) {
    compiled = compileMethod(spec)
    driverMethods.set(spec, compiled)
  }
  return compiled
}

const methods = new Map(ioctlMethods.map(spec => [(spec.object << 16) | spec.number, compileMethod(spec)]))

/**
 * The method of Linux's {object, method}. Throws CallError EPROTONOSUPPORT for an unknown method, as Linux does.
 * `onName` gets Linux's name of the method.
 */
export const findMethod = (object: number, number: number, onName?: (name: string) => void): CompiledMethod => {
  const known = linuxCall('ioctl', object, number)
  if (known === undefined)
    throw callError.EPROTONOSUPPORT`object ${object} method ${number}: the core of Linux 7.3 has no such method`
  onName?.(known.name.slice(known.name.indexOf('.') + 1))
  const found = methods.get((object << 16) | number)
  if (found !== undefined) return found
  throw callError.EPROTONOSUPPORT`${known.name}: ${known.absent}`
}

/** As on Linux, methods that the driver lacks, or that need an object of a class that it lacks, do not exist. */
const requireOnDevice = (view: CallerView, { name, classes, method, attributes }: IoctlMethod): void => {
  if (method !== undefined && !hasMethodOnDevice(view, classes, method))
    throw callError.EPROTONOSUPPORT`${name}: ${lacksMethod(classes[0]!, method)}`
  const needed = attributes.find(
    ({ kind, mandatory, classes }) =>
      kind === 'handle' && mandatory && classes.every(cls => view.schema.classByName(cls) === undefined),
  )
  if (needed !== undefined)
    throw callError.EPROTONOSUPPORT`${name}: this device has no objects of class ${needed.classes[0]}`
}

// ---- attributes of one message ----

/** An attribute of a message. */
export interface PassedAttribute {
  readonly compiled: CompiledAttribute
  /** Position among all attributes of the message. */
  readonly index: number
  readonly length: number
  /** Pointer, handle or number. */
  readonly data: bigint
  /** The 8 bytes of `data`. */
  readonly inline: Uint8Array
  /** Of an `enum`: its number. Otherwise 0. */
  readonly element: number
}

export interface Message {
  readonly view: CallerView
  /** Of `bytes` in the caller. */
  readonly address: bigint
  readonly bytes: Uint8Array
  readonly method: CompiledMethod
  /** Known attributes, by id. */
  readonly passed: Map<number, PassedAttribute>
  /** By index of an attribute: the memory at its address, if it was read. */
  readonly memory: Map<number, Uint8Array>
}

/** Offset of an attribute in the message. */
export const offsetOf = (index: number): number => IoctlHeader.bytes + index * IoctlAttr.bytes
/** The caller's memory for an output. */
export const bufferOf = (attribute: PassedAttribute): UserBuffer => ({
  address: attribute.data,
  length: attribute.length,
})

/** The input bytes of an attribute. */
export const bytesOf = (message: Message, attribute: PassedAttribute): Uint8Array => {
  if (attribute.length <= INLINE_BYTES) return attribute.inline.subarray(0, attribute.length)
  let bytes = message.memory.get(attribute.index)
  if (bytes === undefined) {
    bytes = message.view.copyIn(attribute.data, attribute.length)
    message.memory.set(attribute.index, bytes)
  }
  return bytes
}

const wrongLength = (where: string, length: number, { min, max, isExtensible }: IoctlAttribute): CallError => {
  const range = max === min ? `${min}` : `${min} to ${max}`
  return callError.EINVAL`${where} has ${length} bytes; ${isExtensible ? `at least ${min}` : range} are right`
}

export const checkHandle = (view: CallerView, where: string, handle: bigint, classes: readonly string[]): void => {
  if (classes.every(name => view.schema.classByName(name) === undefined))
    throw callError.EINVAL`${where}: this device has no objects that it could name`
  // Linux takes the handle as a signed number
  if (BigInt.asIntN(64, handle) < 0n) throw callError.EINVAL`${where}: ${BigInt.asIntN(64, handle)} is not a handle`
  const cls = handle <= 0xffffffffn ? view.classOf(Number(handle)) : undefined
  if (cls === undefined) throw callError.ENOENT`${where}: there is no object with handle ${handle}`
  if (!classes.includes(cls.name))
    throw callError.EINVAL`${where}: handle ${handle} is of class ${cls.name}, not ${classes.join(' or ')}`
}

/** Throws CallError; the order of the checks is the kernel's. `reserved`: without the number of an `enum`. */
const checkAttribute = (message: Message, attribute: PassedAttribute, reserved: number): void => {
  const { spec } = attribute.compiled
  const where = `${message.method.spec.name}: attribute ${spec.id}`
  if (
    spec.kind === 'in' &&
    spec.isExtensible &&
    attribute.length > spec.max &&
    !isZero(bytesOf(message, attribute).subarray(spec.max))
  )
    throw callError.EOPNOTSUPP`${where}: bytes after the first ${spec.max} are not 0`
  if (attribute.length < spec.min || (!spec.isExtensible && attribute.length > spec.max))
    throw wrongLength(where, attribute.length, spec)
  if (spec.kind === 'enum' && attribute.element >= spec.allowed)
    throw callError.EOPNOTSUPP`${where}: ${attribute.element} is not in 0 to ${spec.allowed - 1}`
  if (reserved !== 0) throw callError.EINVAL`${where}: its reserved field is set`
  if (spec.kind === 'handle' || spec.kind === 'destroy') checkHandle(message.view, where, attribute.data, spec.classes)
  else if (spec.kind === 'fd') {
    const fd = BigInt.asIntN(64, attribute.data)
    if (fd !== BigInt.asIntN(32, fd)) throw callError.EINVAL`${where}: ${fd} is not a file descriptor`
    if (fd < 0n) throw callError.EBADF`${where}: ${fd} is not a file descriptor`
  } else if ((spec.kind === 'newHandle' || spec.kind === 'newFd') && !message.view.hasContext)
    throw callError.EINVAL`the descriptor has no context yet: call GET_CONTEXT first`
}

const PAGE_BYTES = 4096
/** Bytes that are read with the header: most messages are shorter. */
const FIRST_READ = 256

/**
 * The beginning of the message at `address`: the header, and usually the attributes, which saves a second system call.
 * What follows the header in its page can be read if the header can, except in a memory file that ends there.
 */
const readBeginning = (view: CallerView, address: bigint): Uint8Array => {
  const inPage = PAGE_BYTES - Number(address & BigInt(PAGE_BYTES - 1))
  const most = Math.min(FIRST_READ, inPage)
  if (most > IoctlHeader.bytes)
    try {
      return view.copyIn(address, most)
    } catch (error) {
      if (!(error instanceof CallError)) throw error
    }
  return view.copyIn(address, IoctlHeader.bytes)
}

/** Reads header and attributes of the message at `address`. `onName` gets the method's name. Throws CallError. */
export const readMessage = (view: CallerView, address: bigint, onName?: (name: string) => void): Message => {
  const beginning = readBeginning(view, address)
  const header = viewOf(beginning)
  const length = header.getUint16(IoctlHeader.length, true)
  const count = header.getUint16(IoctlHeader.attributeCount, true)
  if (length > MAX_MESSAGE || length !== offsetOf(count))
    throw callError.EINVAL`a message of ${count} attributes has ${offsetOf(count)} bytes (at most ${MAX_MESSAGE}), not ${length}`
  if (header.getBigUint64(IoctlHeader.reserved1, true) !== 0n || header.getUint32(IoctlHeader.reserved2, true) !== 0)
    throw callError.EPROTONOSUPPORT`a reserved field of the header is set`
  const driver = header.getUint32(IoctlHeader.driverId, true)
  if (driver !== view.schema.driverId)
    throw callError.EINVAL`the message is for driver ${driver}, the device has driver ${view.schema.driverId}`
  const object = header.getUint16(IoctlHeader.object, true)
  const number = header.getUint16(IoctlHeader.method, true)
  const method = findDriverMethod(view.schema.linux, object, number, onName) ?? findMethod(object, number, onName)
  requireOnDevice(view, method.spec)
  const bytes = length <= beginning.length ? beginning.subarray(0, length) : view.copyIn(address, length)
  const message: Message = { view, address, bytes, method, passed: new Map(), memory: new Map() }
  const all = viewOf(bytes)
  for (let index = 0; index < count; index++) {
    const at = offsetOf(index)
    const id = all.getUint16(at + IoctlAttr.id, true)
    const compiled = method.attributes.get(id)
    if (compiled === undefined) {
      if (all.getUint16(at + IoctlAttr.flags, true) & AttributeFlag.MANDATORY)
        throw callError.EPROTONOSUPPORT`${method.spec.name}: the mandatory attribute ${id} is unknown`
      continue
    }
    if (message.passed.has(id)) throw callError.EINVAL`${method.spec.name}: attribute ${id} is passed twice`
    const reserved = all.getUint16(at + IoctlAttr.reserved, true)
    const element = compiled.spec.kind === 'enum' ? reserved & 0xff : 0
    const attribute: PassedAttribute = {
      compiled,
      index,
      element,
      length: all.getUint16(at + IoctlAttr.length, true),
      data: all.getBigUint64(at + IoctlAttr.data, true),
      inline: bytes.subarray(at + IoctlAttr.data, at + IoctlAttr.bytes),
    }
    checkAttribute(message, attribute, reserved - element)
    message.passed.set(id, attribute)
  }
  for (const { spec } of method.attributes.values())
    if (spec.mandatory && !message.passed.has(spec.id))
      throw callError.EINVAL`${method.spec.name}: attribute ${spec.id} is missing`
  return message
}

/** The number in `data` of attribute `id`, which must be present. Throws CallError EINVAL above `max`. */
export const constantOf = (message: Message, id: number, max: bigint): number => {
  const { data } = message.passed.get(id)!
  if (data > max) throw callError.EINVAL`${message.method.spec.name}: attribute ${id}: ${data} is above ${max}`
  return Number(data)
}

/**
 * The flags in an attribute of 4 or 8 bytes. Throws CallError: EINVAL for other lengths and unknown flags, EOPNOTSUPP
 * for the `absentFlags` of the driver. `allowed`: flags that are known.
 */
export const flagsOf = (
  message: Message,
  attribute: PassedAttribute,
  className: string,
  allowed: number = attribute.compiled.spec.allowed,
): number => {
  const { spec } = attribute.compiled
  const { name, method } = message.method.spec
  const where = `${name}: attribute ${spec.id}`
  if (attribute.length !== 4 && attribute.length !== 8) throw wrongLength(where, attribute.length, spec)
  const flags = attribute.length === 8 ? attribute.data : attribute.data & 0xffffffffn
  const others = flags & ~BigInt(allowed)
  if (others !== 0n) {
    const absent = message.view.schema.linux?.absentFlags?.[`${className}.${method}`] ?? 0
    const error = (others & ~BigInt(absent)) === 0n ? 'EOPNOTSUPP' : 'EINVAL'
    throw new CallError(error, because`${where}: flags 0x${flags.toString(16)}, allowed are 0x${allowed.toString(16)}`)
  }
  return Number(flags)
}
