/*
 * Parses a message of Linux's ioctl dialect as the kernel does: header, then each attribute in the caller's order, so
 * that of several mistakes the same one is reported (raw.out): unknown mandatory EPROTONOSUPPORT, duplicate EINVAL,
 * wrong length EINVAL, a missing handle ENOENT, a handle of another class EINVAL; then missing attributes, EINVAL.
 * ioctl.ts interprets the attributes.
 */
import { AttributeFlag } from '../../spec/classes/ids.ts'
import { CallError } from '../../spec/errno.ts'
import { linuxCall } from '../../spec/linux/coverage.ts'
import { driverAttributes, type IoctlAttribute, type IoctlMethod, ioctlMethods } from '../../spec/linux/ioctl.ts'
import { layout } from '../../spec/linux/layout.ts'
import { lacksMethod } from '../../spec/schema/lacking.ts'
import type { CallerView } from '../call.ts'
import { viewOf } from '../scalar.ts'
import { compiledFor, isZero, onDevice, type Room } from './caller.ts'
import type { CompiledLayout } from './cells.ts'

export const HEADER = 24
export const ATTRIBUTE = 16
/** A message has at most one page. */
const LONGEST = 4096
/** Values up to this length are inline. */
export const INLINE = 8

// ---- the compiled table ----

export interface CompiledAttribute {
  readonly spec: IoctlAttribute
  readonly layout: (className: string) => CompiledLayout
}
export interface CompiledMethod {
  readonly spec: IoctlMethod
  readonly attributes: ReadonlyMap<number, CompiledAttribute>
}

const compileMethod = (spec: IoctlMethod): CompiledMethod => {
  const all = spec.driver ? [...spec.attributes, ...driverAttributes] : spec.attributes
  const attributes = all.map(attribute => {
    const struct = layout(attribute.max, attribute.cells)
    const direction = attribute.kind === 'out' ? 'out' : 'in'
    // A method that no device has uses the declaration of one that returns the same values.
    const compiled = compiledFor(spec.name, spec.classes, struct, spec.method ?? 'open', direction)
    return [attribute.id, { spec: attribute, layout: compiled }] as const
  })
  return { spec, attributes: new Map(attributes) }
}

const methods = new Map(ioctlMethods.map(spec => [(spec.object << 16) | spec.number, compileMethod(spec)]))

/**
 * The method of Linux's {object, method}. EPROTONOSUPPORT if there is none, as for every object or method that Linux or
 * its driver lacks. `name` receives Linux's name of it, if it has one.
 */
export const findMethod = (object: number, number: number, name?: (name: string) => void): CompiledMethod => {
  const known = linuxCall('ioctl', object, number)
  if (known === undefined)
    throw new CallError('EPROTONOSUPPORT', `object ${object} method ${number}: Linux has no such method`)
  name?.(known.name.slice(known.name.indexOf('.') + 1))
  const found = methods.get((object << 16) | number)
  if (found !== undefined) return found
  throw new CallError('EPROTONOSUPPORT', `${known.name}: ${known.absent}`)
}

/** Linux hides methods that a device's driver lacks, or that need an object which it cannot have: EPROTONOSUPPORT. */
const requireOnDevice = (view: CallerView, { name, classes, method, attributes }: IoctlMethod): void => {
  if (method !== undefined && !onDevice(view, classes, method))
    throw new CallError('EPROTONOSUPPORT', `${name}: ${lacksMethod(classes[0]!, method)}`)
  const needed = attributes.find(
    ({ kind, mandatory, classes }) =>
      kind === 'handle' && mandatory && classes.every(cls => view.schema.className(cls) === undefined),
  )
  if (needed !== undefined)
    throw new CallError('EPROTONOSUPPORT', `${name}: this device has no objects of class ${needed.classes[0]}`)
}

// ---- attributes of one message ----

export interface Given {
  readonly compiled: CompiledAttribute
  readonly index: number
  readonly length: number
  /** Pointer, handle or number. */
  readonly data: bigint
  /** Its 8 bytes. */
  readonly inline: Uint8Array
}

/** One message: its bytes, their address, and its attributes by id. */
export interface Message {
  readonly view: CallerView
  readonly address: bigint
  readonly bytes: Uint8Array
  readonly method: CompiledMethod
  readonly given: Map<number, Given>
  /** The memory that the attribute at an index points to, if it was read. */
  readonly memory: Map<number, Uint8Array>
}

export const offsetOf = (index: number): number => HEADER + index * ATTRIBUTE
export const roomOf = (given: Given): Room => ({ address: given.data, length: given.length })

/** The input bytes of an attribute. */
export const bytesOf = (message: Message, given: Given): Uint8Array => {
  if (given.length <= INLINE) return given.inline.subarray(0, given.length)
  let bytes = message.memory.get(given.index)
  if (bytes === undefined) {
    bytes = message.view.copyIn(given.data, given.length)
    message.memory.set(given.index, bytes)
  }
  return bytes
}

const wrongLength = (where: string, length: number, { min, max, grows }: IoctlAttribute): CallError =>
  new CallError(
    'EINVAL',
    `${where} has ${length} bytes; ${grows ? 'at least ' : ''}${min}${!grows && max !== min ? ` to ${max}` : ''} are right`,
  )

const checkHandle = (view: CallerView, where: string, handle: bigint, classes: readonly string[]): void => {
  if (classes.every(name => view.schema.className(name) === undefined))
    throw new CallError('EINVAL', `${where}: this device has no objects that it could name`)
  const cls = handle <= 0xffffffffn ? view.classOf(Number(handle)) : undefined
  if (cls === undefined) throw new CallError('ENOENT', `${where}: there is no object with handle ${handle}`)
  if (!classes.includes(cls.name))
    throw new CallError(
      'EINVAL',
      `${where}: handle ${handle} is of class ${cls.name}, not ${classes.join(' or ') || 'the right one'}`,
    )
}

/** Checks one attribute as the kernel does before it reads the next. */
const checkAttribute = (message: Message, given: Given, reserved: number): void => {
  const { spec } = given.compiled
  const where = `${message.method.spec.name}: attribute ${spec.id}`
  if (
    spec.kind === 'in' &&
    spec.grows &&
    given.length > spec.max &&
    !isZero(bytesOf(message, given).subarray(spec.max))
  )
    throw new CallError('EOPNOTSUPP', `${where}: bytes after the first ${spec.max} are not 0`)
  if (given.length < spec.min || (!spec.grows && given.length > spec.max)) throw wrongLength(where, given.length, spec)
  if (reserved !== 0) throw new CallError('EINVAL', `${where}: its reserved field is set`)
  if (spec.kind === 'handle' || spec.kind === 'destroy') checkHandle(message.view, where, given.data, spec.classes)
  else if (spec.kind === 'fd') {
    const fd = BigInt.asIntN(64, given.data)
    if (fd !== BigInt.asIntN(32, fd)) throw new CallError('EINVAL', `${where}: ${fd} is not a file descriptor`)
    if (fd < 0n) throw new CallError('EBADF', `${where}: ${fd} is not a file descriptor`)
  } else if ((spec.kind === 'newHandle' || spec.kind === 'newFd') && !message.view.hasContext)
    throw new CallError('EINVAL', 'the descriptor has no context yet: call GET_CONTEXT first')
}

/**
 * Reads header and attributes of the message at `address`. `name` receives the method's name as soon as it is known.
 */
export const readMessage = (view: CallerView, address: bigint, name?: (name: string) => void): Message => {
  const header = viewOf(view.copyIn(address, HEADER))
  const length = header.getUint16(0, true)
  const count = header.getUint16(6, true)
  if (length > LONGEST || length !== HEADER + count * ATTRIBUTE)
    throw new CallError(
      'EINVAL',
      `a message of ${count} attributes has ${HEADER + count * ATTRIBUTE} bytes (at most ${LONGEST}), not ${length}`,
    )
  if (header.getBigUint64(8, true) !== 0n || header.getUint32(20, true) !== 0)
    throw new CallError('EPROTONOSUPPORT', 'a reserved field of the header is set')
  const driver = header.getUint32(16, true)
  if (driver !== view.schema.driverId)
    throw new CallError('EINVAL', `the message is for driver ${driver}, the device has driver ${view.schema.driverId}`)
  const method = findMethod(header.getUint16(2, true), header.getUint16(4, true), name)
  requireOnDevice(view, method.spec)
  const bytes = view.copyIn(address, length)
  const message: Message = { view, address, bytes, method, given: new Map(), memory: new Map() }
  const all = viewOf(bytes)
  for (let index = 0; index < count; index++) {
    const at = offsetOf(index)
    const id = all.getUint16(at, true)
    const compiled = method.attributes.get(id)
    if (compiled === undefined) {
      if (all.getUint16(at + 4, true) & AttributeFlag.MANDATORY)
        throw new CallError('EPROTONOSUPPORT', `${method.spec.name}: the mandatory attribute ${id} is unknown`)
      continue
    }
    if (message.given.has(id)) throw new CallError('EINVAL', `${method.spec.name}: attribute ${id} is passed twice`)
    const given: Given = {
      compiled,
      index,
      length: all.getUint16(at + 2, true),
      data: all.getBigUint64(at + 8, true),
      inline: bytes.subarray(at + 8, at + 16),
    }
    checkAttribute(message, given, all.getUint16(at + 6, true))
    message.given.set(id, given)
  }
  for (const { spec } of method.attributes.values())
    if (spec.mandatory && !message.given.has(spec.id))
      throw new CallError('EINVAL', `${method.spec.name}: attribute ${spec.id} is missing`)
  return message
}

/** An inline unsigned constant of 8 bytes, at most `max`. */
export const constant = (message: Message, id: number, max: bigint): number => {
  const { data } = message.given.get(id)!
  if (data > max) throw new CallError('EINVAL', `${message.method.spec.name}: attribute ${id}: ${data} is above ${max}`)
  return Number(data)
}

export const flagsOf = (message: Message, given: Given): number => {
  const { spec } = given.compiled
  const where = `${message.method.spec.name}: attribute ${spec.id}`
  if (given.length !== 4 && given.length !== 8) throw wrongLength(where, given.length, spec)
  const flags = given.length === 8 ? given.data : given.data & 0xffffffffn
  if ((flags & ~BigInt(spec.allowed)) !== 0n)
    throw new CallError('EINVAL', `${where}: flags 0x${flags.toString(16)}, allowed are 0x${spec.allowed.toString(16)}`)
  return Number(flags)
}
