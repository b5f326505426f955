/*
 * Linux's ioctl dialect (R42): RDMA_VERBS_IOCTL with {object, method} and attributes, by the table of spec/linux/ioctl.ts.
 *
 * Attributes are checked one after another in the caller's order, as the kernel does, so that of several mistakes the same one is
 * answered: unknown and mandatory EPROTONOSUPPORT, twice EINVAL, wrong length EINVAL, a handle that is not there ENOENT or of another class
 * EINVAL; then what is missing, EINVAL. Named converters: INVOKE_WRITE, the lists of INFO_HANDLES and QUERY_GID_TABLE.
 */

import { AttributeFlag } from '../spec/classes/ids.ts'
import { CallError } from '../spec/errno.ts'
import {
  driverAttributes,
  InvokeWrite,
  type IoctlAttribute,
  type IoctlMethod,
  ioctlMethods,
  RDMA_VERBS_IOCTL,
  UHW_IN,
  UHW_OUT,
} from '../spec/linux/ioctl.ts'
import { layout } from '../spec/linux/layout.ts'
import { LinuxObjectClasses } from '../spec/linux/structs.ts'
import { type AnyRecord, type AnyValues, recordSize } from '../spec/schema.ts'
import type { Answer, Call, CallerView, Decoded, Install, Result } from './call.ts'
import {
  AGAIN,
  answering,
  callOf,
  classNameOf,
  compiledFor,
  declared,
  descriptorOf,
  driverPart,
  fill,
  isZero,
  openAgain,
  type Room,
  refuse,
  writeDriverPart,
} from './caller.ts'
import { type CompiledLayout, type Facts, readCells, residue, writeCells } from './cells.ts'
import { Door, packLegacy } from './legacy.ts'
import { type Commanded, clearRequest, findCommand, readCommand } from './linux-command.ts'
import { encodeRecords, viewOf } from './scalar.ts'

export const HEADER = 24
export const ATTRIBUTE = 16
/** A message has at most one page. */
const LONGEST = 4096
/** Values of at most so many bytes lie in the attribute itself. */
const INLINE = 8
const VALID_OUTPUT = 2

// ---- the table, compiled ----

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
    // A method that no device has takes its declaration from the one that answers the same values.
    const compiled = compiledFor(spec.name, struct, spec.method ?? 'open', direction)
    return [attribute.id, { spec: attribute, layout: compiled }] as const
  })
  return { spec, attributes: new Map(attributes) }
}

const methods = new Map(ioctlMethods.map(spec => [(spec.object << 16) | spec.number, compileMethod(spec)]))

/** The method behind Linux's {object, method}. EPROTONOSUPPORT if there is none, as for every object or method that Linux lacks. */
export const findMethod = (object: number, number: number): CompiledMethod => {
  const found = methods.get((object << 16) | number)
  if (found !== undefined) return found
  throw new CallError('EPROTONOSUPPORT', `object ${object} method ${number} does not exist here`)
}

// ---- attributes of one message ----

interface Given {
  readonly compiled: CompiledAttribute
  readonly index: number
  readonly length: number
  /** Pointer, handle or number. */
  readonly data: bigint
  /** Its 8 bytes. */
  readonly inline: Uint8Array
}

/** One message: its bytes, where they lie, and its attributes by id. */
interface Message {
  readonly view: CallerView
  readonly address: bigint
  readonly bytes: Uint8Array
  readonly method: CompiledMethod
  readonly given: Map<number, Given>
  /** The memory that the attribute of an index points to, once it was read. */
  readonly memory: Map<number, Uint8Array>
}

const offsetOf = (index: number): number => HEADER + index * ATTRIBUTE
const roomOf = (given: Given): Room => ({ address: given.data, length: given.length })

/** The bytes that an attribute brings. */
const bytesOf = (message: Message, given: Given): Uint8Array => {
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
  const cls = handle <= 0xffffffffn ? view.classOf(Number(handle)) : undefined
  if (cls === undefined) throw new CallError('ENOENT', `${where}: there is no object with handle ${handle}`)
  if (!classes.includes(cls.name))
    throw new CallError(
      'EINVAL',
      `${where}: handle ${handle} is of class ${cls.name}, not ${classes.join(' or ') || 'the right one'}`,
    )
}

/** Checks one attribute as the kernel does before it looks at the next. */
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
    if (fd !== BigInt.asIntN(32, fd)) throw new CallError('EINVAL', `${where}: ${fd} is no file descriptor`)
    if (fd < 0n) throw new CallError('EBADF', `${where}: ${fd} is no file descriptor`)
  } else if ((spec.kind === 'newHandle' || spec.kind === 'newFd') && !message.view.hasContext)
    throw new CallError('EINVAL', 'the descriptor has no context yet: GET_CONTEXT comes first')
}

/** Reads header and attributes of the message at `address`. */
const readMessage = (view: CallerView, address: bigint): Message => {
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
  const method = findMethod(header.getUint16(2, true), header.getUint16(4, true))
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
    if (message.given.has(id)) throw new CallError('EINVAL', `${method.spec.name}: attribute ${id} is there twice`)
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

/** An unsigned constant of 8 bytes that must be at most `max`. */
const constant = (message: Message, id: number, max: bigint): number => {
  const { data } = message.given.get(id)!
  if (data > max) throw new CallError('EINVAL', `${message.method.spec.name}: attribute ${id}: ${data} is above ${max}`)
  return Number(data)
}

const flagsOf = (message: Message, given: Given): number => {
  const { spec } = given.compiled
  const where = `${message.method.spec.name}: attribute ${spec.id}`
  if (given.length !== 4 && given.length !== 8) throw wrongLength(where, given.length, spec)
  const flags = given.length === 8 ? given.data : given.data & 0xffffffffn
  if ((flags & ~BigInt(spec.allowed)) !== 0n)
    throw new CallError('EINVAL', `${where}: flags 0x${flags.toString(16)}, allowed are 0x${spec.allowed.toString(16)}`)
  return Number(flags)
}

// ---- from attributes to a call ----

interface Read {
  readonly args: AnyValues
  readonly facts: Facts
  readonly className: string
}

const readAttributes = (message: Message): Read => {
  const { method, given } = message
  const { spec } = method
  const args: AnyValues = {}
  const facts: Facts = {}
  for (const attribute of given.values()) {
    const { kind, name, cells } = attribute.compiled.spec
    if (kind === 'destroy' || (kind === 'handle' && name === 'object')) facts.object = Number(attribute.data)
    else if (kind === 'in' && cells.some(cell => cell.as === 'class'))
      facts.class = constant(message, attribute.compiled.spec.id, 0xffffffffn)
  }
  const className = classNameOf(message.view, spec.classes, facts)
  const missing = [...method.attributes.values()].find(a => a.spec.absent !== undefined && !given.has(a.spec.id))
  if (missing !== undefined)
    throw new CallError(missing.spec.absent!, `${spec.name}: attribute ${missing.spec.id} is missing`)
  for (const attribute of given.values()) {
    const { kind, name, cells, present, id } = attribute.compiled.spec
    if (present !== undefined) throw new CallError(present, `${spec.name}: no device here takes attribute ${id}`)
    if (kind === 'in' && cells.length > 0)
      readCells(attribute.compiled.layout(className), bytesOf(message, attribute), args, facts, true)
    else if ((kind === 'handle' && name !== 'object') || kind === 'fd') args[name] = Number(attribute.data)
    else if (kind === 'flags') {
      const flags = flagsOf(message, attribute)
      if (name !== '') args[name] = flags
    }
  }
  return { args, facts, className }
}

// ---- answers ----

/** What an answer changes in the message itself: flags, new handles; and descriptors that are to be put there. */
interface Changes {
  readonly bytes: Uint8Array
  changed: boolean
  readonly installs: Install[]
}

const markFilled = (changes: Changes, given: Given): void => {
  changes.bytes[offsetOf(given.index) + 4] |= VALID_OUTPUT
  changes.changed = true
}

const writeOutputs = (message: Message, read: Read, result: Result, changes: Changes): void => {
  for (const given of message.given.values()) {
    const { spec, layout: compiled } = given.compiled
    if (spec.kind === 'out' && spec.cells.length > 0) {
      const bytes = new Uint8Array(spec.max)
      writeCells(compiled(read.className), bytes, result.out, {})
      if (spec.grows) fill(message.view, roomOf(given), bytes)
      else message.view.copyOut(given.data, bytes)
      markFilled(changes, given)
    } else if (spec.kind === 'newHandle') {
      viewOf(changes.bytes).setBigUint64(offsetOf(given.index) + 8, BigInt(result.object ?? 0), true)
      changes.changed = true
    } else if (spec.kind === 'newFd') {
      const descriptor = descriptorOf(result, 'object')
      const address = message.address + BigInt(offsetOf(given.index) + 8)
      if (descriptor !== undefined) changes.installs.push({ descriptor, address, width: 8 })
    }
  }
}

/** Runs `body` to write an answer, then writes the message's own changes. */
const writing = (message: Message, ret: Answer, body: (changes: Changes) => void): Answer =>
  answering(() => {
    const changes: Changes = { bytes: message.bytes.slice(), changed: false, installs: [] }
    body(changes)
    const attributes = BigInt(HEADER)
    if (changes.changed) message.view.copyOut(message.address + attributes, changes.bytes.subarray(HEADER))
    return { ...ret, installs: changes.installs }
  })

const SUCCESS: Answer = { ret: 0, installs: [] }

// ---- converters ----

/** INFO_HANDLES and QUERY_GID_TABLE: a list into a room, and how many there are. */
const listCall = (message: Message): { args: AnyValues; write(result: Result, changes: Changes): void } => {
  const { given, view } = message
  const handles = message.method.spec.converter === 'handles'
  const room = given.get(2)!
  const count = given.get(handles ? 1 : 3)!
  const attribute = handles ? 'handles' : 'entries'
  const { of } = declared('device', handles ? 'queryHandles' : 'queryGidTable').out[attribute]
  if (of.kind !== 'list') throw new Error(`${attribute} is no list`)
  const size = recordSize(of.fields)
  const stride = handles ? size : Number(given.get(0)!.data)
  if (stride === 0 || room.length % stride !== 0 || room.length === 0)
    throw new CallError(
      'EINVAL',
      `${message.method.spec.name}: ${room.length} bytes hold no whole number of entries of ${stride}`,
    )
  const max = room.length / stride
  const args: AnyValues = { max }
  if (handles) {
    const object = constant(message, 0, 0xffffn)
    const classes = LinuxObjectClasses[object]
    if (classes === undefined) throw new CallError('EINVAL', `INFO_HANDLES: there is no object ${object}`)
    args.classes = classes.flatMap(name => {
      const cls = view.schema.className(name)
      return cls === undefined ? [] : [{ id: cls.id }]
    })
  }
  return {
    args,
    write: (result, changes) => {
      const entries = (result.out[attribute] as AnyRecord[]).slice(0, max)
      const packed = encodeRecords(of.fields, entries)
      const bytes = new Uint8Array(entries.length * stride)
      for (let i = 0; i < entries.length; i++)
        bytes.set(packed.subarray(i * size, i * size + Math.min(size, stride)), i * stride)
      if (bytes.length > 0) view.copyOut(room.data, bytes)
      markFilled(changes, room)
      const number = new Uint8Array(count.length)
      viewOf(number).setUint32(0, entries.length, true)
      view.copyOut(count.data, number)
      markFilled(changes, count)
    },
  }
}

const invokeWrite = (message: Message): Decoded => {
  const { view, given } = message
  const found = findCommand(constant(message, InvokeWrite.WRITE_CMD, 0xffffffffn))
  const { command } = found
  const core = given.get(InvokeWrite.CORE_IN)
  const response = given.get(InvokeWrite.CORE_OUT)
  const driverIn = given.get(UHW_IN)
  const driverOut = given.get(UHW_OUT)
  if ((core?.length ?? 0) < command.request)
    throw new CallError('ENOSPC', `${command.name}: the request has ${command.request} bytes, not ${core?.length ?? 0}`)
  if ((response?.length ?? 0) < command.response)
    throw new CallError(
      'ENOSPC',
      `${command.name}: the response has ${command.response} bytes, there is room for ${response?.length ?? 0}`,
    )
  const commanded = readCommand(view, found, {
    request: bytesOf(message, core!),
    response: response === undefined ? undefined : roomOf(response),
    driverInput: driverIn?.length ?? 0,
    driverResponse: driverOut === undefined ? undefined : roomOf(driverOut),
  })
  return {
    call: commanded.call,
    legacy: () => legacyOf(message, undefined, commanded),
    answer: outcome => {
      if (outcome instanceof CallError) return refuse(outcome)
      const answer = answering(() => commanded.answer(outcome))
      // A second GET_CONTEXT has filled its response, although it fails.
      if (answer.ret < 0 && answer.reason !== AGAIN.message) return answer
      return writing(message, answer, changes => {
        if (response !== undefined && command.out !== undefined) markFilled(changes, response)
        if (driverOut !== undefined && answer.ret === 0) markFilled(changes, driverOut)
        changes.installs.push(...answer.installs)
      })
    },
  }
}

// ---- what rides beside the call ----

const legacyOf = (message: Message, read: Read | undefined, commanded: Commanded | undefined): Uint8Array => {
  const bytes = message.bytes.slice()
  const memory: Uint8Array[] = []
  for (const given of message.given.values()) {
    const { spec, layout: compiled } = given.compiled
    const at = offsetOf(given.index)
    const inline = bytes.subarray(at + 8, at + 8 + ATTRIBUTE - 8)
    if (spec.kind === 'handle' || spec.kind === 'destroy' || spec.kind === 'fd') inline.fill(0)
    else if (spec.kind === 'flags' && spec.name !== '') inline.fill(0, 0, given.length)
    else if (
      spec.kind === 'in' &&
      (spec.cells.length > 0 || (commanded !== undefined && spec.id === InvokeWrite.CORE_IN))
    ) {
      const target = given.length <= INLINE ? inline.subarray(0, given.length) : bytesOf(message, given).slice()
      if (spec.cells.length > 0) {
        const struct = target.slice(0, spec.max)
        target.set(residue(compiled(read!.className), struct, read!.args, read!.facts))
      } else clearRequest(commanded!, target)
      if (given.length > INLINE) memory.push(target)
    }
  }
  return packLegacy({ door: Door.IOCTL, parts: [bytes, ...memory] })
}

// ---- decoding ----

/** Decodes the ioctl `request` with its argument. A request that is not RDMA_VERBS_IOCTL is ENOTTY. */
export const decodeVerbsIoctl = (view: CallerView, request: number, argument: bigint): Decoded | Answer =>
  answering((): Decoded => {
    if (request >>> 0 !== RDMA_VERBS_IOCTL)
      throw new CallError('ENOTTY', `ioctl 0x${(request >>> 0).toString(16)} is unknown here`)
    const message = readMessage(view, argument)
    const { spec } = message.method
    if (spec.converter === 'invokeWrite') return invokeWrite(message)
    const read = readAttributes(message)
    const list = spec.converter === undefined ? undefined : listCall(message)
    if (spec.method === undefined) {
      if (!view.hasContext) throw new CallError('EINVAL', 'the descriptor has no context yet: GET_CONTEXT comes first')
      throw new CallError('EOPNOTSUPP', `${spec.name}: no device here answers it`)
    }
    const again = openAgain(view, read.className, spec.method)
    const args = list === undefined ? read.args : { ...read.args, ...list.args }
    const call: Call = again
      ? callOf(view, 'device', 'query', 0, {})
      : callOf(view, read.className, spec.method, read.facts.object, args)
    const driverOut = message.given.get(UHW_OUT)
    const part = spec.driver
      ? driverPart(view, call, message.given.get(UHW_IN)?.length ?? 0, driverOut?.length ?? 0)
      : undefined
    return {
      call,
      legacy: () => legacyOf(message, read, undefined),
      answer: outcome => {
        if (outcome instanceof CallError) return refuse(outcome)
        return writing(message, again ? refuse(AGAIN) : SUCCESS, changes => {
          if (driverOut !== undefined && !again) {
            writeDriverPart(view, part, roomOf(driverOut), outcome)
            markFilled(changes, driverOut)
          }
          writeOutputs(message, read, outcome, changes)
          list?.write(outcome, changes)
        })
      },
    }
  })
