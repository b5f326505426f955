/*
 * The object dialect (R1–R6, design.md section 3 "fixed here"): messages of a header and attributes ⇄ calls and results, for both
 * sides, from the classes' declarations alone.
 *
 * Header {u16 length, u16 class_id, u32 object_id, u32 op_ctrl, u32 flags}; attribute {u16 length with its header, u16 id, u32 flags},
 * payload padded to 8; little-endian. An indirect payload is {u64 address, u64 length}. An answer is the message itself, changed in
 * place: object_id, the payloads of outputs and in their flags `filled` and, in bits 16–31, how many bytes were written (of an
 * indirect one: in its length). Attributes keep their length, so that an answered message can still be walked.
 * Errors: no such class or method EOPNOTSUPP; unknown mandatory attribute EPROTONOSUPPORT; room too small ENOSPC, with what is
 * needed; a record's unknown tail that is not zero E2BIG; malformed, missing or out of limits EINVAL.
 */
import { AttributeFlag, CommonAttribute, MessageFlag, OpCtrl } from '../spec/classes/ids.ts'
import { CallError } from '../spec/errno.ts'
import {
  type AnyRecord,
  type AnyValue,
  type AnyValues,
  type Attribute,
  type Attributes,
  CREATE,
  CREATE_FD,
  type Kind,
  type Method,
  type ObjectClass,
  recordSize,
  sizeOf,
} from '../spec/schema.ts'
import type { Answer, Call, CallerView, Decoded, Install, Result } from './call.ts'
import { answering, descriptorOf, isZero, refuse } from './caller.ts'
import { checkValue, encodeRecords, readRecord, readScalar, viewOf, writeRecord, writeScalar } from './scalar.ts'

export const HEADER = 16
export const ATTRIBUTE = 8
const INDIRECT = 16
const { MANDATORY, OUT, FILLED, INDIRECT: IS_INDIRECT } = AttributeFlag
const WRITTEN = 16

const pad = (length: number): number => (length + 7) & ~7

// ---- the carrier ----

const MAGIC = 0xdb

/** The ioctl request of a call number: `_IOWR(0xdb, call, u64)`; its argument is the address of the message. */
export const ioctlRequest = (call: number): number => ((3 << 30) | (8 << 16) | (MAGIC << 8) | call) >>> 0

/** The call number of an ioctl request, undefined if it is not one of the object dialect. */
export const callOfRequest = (request: number): number | undefined =>
  ioctlRequest(request & 0xff) === request >>> 0 ? request & 0xff : undefined

// ---- methods by number ----

interface Named {
  readonly name: string
  readonly method: Method
  readonly in: ReadonlyMap<number, [string, Attribute]>
  readonly out: ReadonlyMap<number, [string, Attribute]>
}

const byId = (attributes: Attributes): ReadonlyMap<number, [string, Attribute]> =>
  new Map(Object.entries(attributes).map(([name, attribute]) => [attribute.id, [name, attribute]]))

const numbered = new WeakMap<ObjectClass, ReadonlyMap<number, Named>>()

/** The method of a class behind a call number. */
const methodByCall = (cls: ObjectClass, call: number): Named | undefined => {
  let calls = numbered.get(cls)
  if (calls === undefined) {
    calls = new Map(
      Object.entries(cls.methods).map(([name, method]) => [
        method.call,
        { name, method, in: byId(method.in), out: byId(method.out) },
      ]),
    )
    numbered.set(cls, calls)
  }
  return calls.get(call)
}

const creates = (method: Method): boolean => method.call === CREATE || method.call === CREATE_FD

// ---- values ----

/** Bytes of one value, unpadded. */
const payloadOf = (of: Kind, value: AnyValue): Uint8Array => {
  if (of.kind === 'blob' || of.kind === 'bytes') return value as Uint8Array
  if (of.kind === 'list') return encodeRecords(of.fields, value as AnyRecord[])
  const bytes = new Uint8Array(sizeOf(of))
  const view = viewOf(bytes)
  if (of.kind === 'record') writeRecord(view, 0, of.fields, value as AnyRecord)
  else writeScalar(view, 0, bytes.length, of, value)
  return bytes
}

/** The value in a payload that the other side has sent. */
const valueIn = (where: string, of: Kind, payload: Uint8Array): AnyValue => {
  switch (of.kind) {
    case 'blob':
      if (payload.length > of.max)
        throw new CallError('EINVAL', `${where}: ${payload.length} bytes, at most ${of.max} are allowed`)
      return payload.slice()
    case 'list': {
      const size = recordSize(of.fields)
      const count = payload.length / size
      if (!Number.isInteger(count) || count > of.max)
        throw new CallError('EINVAL', `${where}: ${payload.length} bytes are not 0 to ${of.max} records of ${size}`)
      const view = viewOf(payload)
      return Array.from({ length: count }, (_, i) => readRecord(view, i * size, of.fields, `${where}[${i}]`))
    }
    case 'record': {
      const size = recordSize(of.fields)
      let bytes = payload
      if (payload.length < size) {
        bytes = new Uint8Array(size)
        bytes.set(payload)
      } else if (!isZero(payload.subarray(size)))
        throw new CallError(
          'E2BIG',
          `${where}: it has ${payload.length} bytes, those after the ${size} known ones are not 0`,
        )
      return readRecord(viewOf(bytes), 0, of.fields, where)
    }
    default: {
      const size = sizeOf(of)
      if (payload.length !== size)
        throw new CallError('EINVAL', `${where}: it has ${size} bytes, not ${payload.length}`)
      return readScalar(viewOf(payload), 0, size, of, where)
    }
  }
}

// ---- walking a message ----

interface Item {
  readonly id: number
  readonly flags: number
  /** Where its header and its payload begin, and the bytes of the payload. */
  readonly at: number
  readonly payload: number
  readonly length: number
}

/** The attributes of a message. Throws CallError EINVAL if they do not lie in it. */
function* items(where: string, message: Uint8Array): Generator<Item> {
  const view = viewOf(message)
  for (let at = HEADER; at < message.length; ) {
    if (at + ATTRIBUTE > message.length)
      throw new CallError('EINVAL', `${where}: the message ends within an attribute's header`)
    const length = view.getUint16(at, true)
    const id = view.getUint16(at + 2, true)
    if (length < ATTRIBUTE || at + length > message.length)
      throw new CallError(
        'EINVAL',
        `${where}: attribute 0x${id.toString(16)} at ${at} has length ${length}, ${message.length - at} bytes are left`,
      )
    yield { id, flags: view.getUint32(at + 4, true), at, payload: at + ATTRIBUTE, length: length - ATTRIBUTE }
    at += pad(length)
  }
}

const indirect = (where: string, message: Uint8Array, item: Item): { address: bigint; length: bigint } => {
  if (item.length !== INDIRECT)
    throw new CallError('EINVAL', `${where}: an indirect payload has ${INDIRECT} bytes, not ${item.length}`)
  const view = viewOf(message)
  return { address: view.getBigUint64(item.payload, true), length: view.getBigUint64(item.payload + 8, true) }
}

/** Longest payload that lies elsewhere, for kinds that may grow. */
const LONGEST = 1 << 20

// ---- server: message → call, result → message ----

/** A message made a call. */
export interface ObjectMessage {
  readonly call: Call
  readonly legacy: Uint8Array | undefined
  /**
   * The message with the outcome in it. `installs` have the offset of the number in the message (or an address, if `elsewhere`). Indirect
   * outputs are written by `copyOut`. Throws CallError.
   */
  answer(result: Result): { message: Uint8Array; installs: Placed[] }
  /** The message with what ENOSPC needs, or unchanged but for `answered`. */
  refuse(error: CallError): Uint8Array
}

export interface Placed {
  readonly descriptor: Install['descriptor']
  readonly offset: number
}

interface Place {
  readonly name: string
  readonly attribute: Attribute
  readonly item: Item
}

const spaceError = (where: string, needed: number, room: number | bigint): CallError =>
  new CallError('ENOSPC', `${where}: it needs ${needed} bytes, there is room for ${room}`)

/** Decodes one message of call number `call`. Throws CallError. */
export const decodeMessage = (view: CallerView, call: number, bytes: Uint8Array): ObjectMessage => {
  if (bytes.length < HEADER)
    throw new CallError('EINVAL', `a message has at least ${HEADER} bytes, not ${bytes.length}`)
  const header = viewOf(bytes)
  const length = header.getUint16(0, true)
  if (length < HEADER || length > bytes.length || length % 8 !== 0)
    throw new CallError(
      'EINVAL',
      `the message says that it has ${length} bytes; a multiple of 8 from ${HEADER} to ${bytes.length} is right`,
    )
  const cls = view.schema.classById(header.getUint16(2, true))
  if (cls === undefined) throw new CallError('EOPNOTSUPP', `this device has no class ${header.getUint16(2, true)}`)
  const named = methodByCall(cls, call)
  if (named === undefined) throw new CallError('EOPNOTSUPP', `class ${cls.name} of this device has no method ${call}`)
  const where = `${cls.name}.${named.name}`
  const object = header.getUint32(4, true)
  if (header.getUint32(8, true) !== OpCtrl.ATTRIBUTES || (header.getUint32(12, true) & ~MessageFlag.ANSWERED) !== 0)
    throw new CallError('EOPNOTSUPP', `${where}: op_ctrl or flags of the header are unknown`)
  if (object !== 0 && creates(named.method))
    throw new CallError('EINVAL', `${where}: object_id is ${object}; it is 0 for what is yet to be made`)
  if (!view.hasContext && !(cls.name === 'device' && named.name === 'open'))
    throw new CallError('EINVAL', `${where}: the descriptor has no context yet: device.open comes first`)

  const message = bytes.subarray(0, length)
  const args: AnyValues = {}
  const places: Place[] = []
  const seen = new Set<number>()
  let legacy: Uint8Array | undefined
  for (const item of items(where, message)) {
    const { id, flags } = item
    const isOut = (flags & OUT) !== 0
    if ((flags & ~(MANDATORY | OUT | FILLED | IS_INDIRECT) & 0xffff) !== 0)
      throw new CallError(
        'EINVAL',
        `${where}: attribute 0x${id.toString(16)} has unknown flags 0x${flags.toString(16)}`,
      )
    if (seen.has(id)) throw new CallError('EINVAL', `${where}: attribute 0x${id.toString(16)} is there twice`)
    seen.add(id)
    const found = (isOut ? named.out : named.in).get(id)
    if (found === undefined) {
      if (id === CommonAttribute.LEGACY && !isOut && (flags & IS_INDIRECT) === 0)
        legacy = message.slice(item.payload, item.payload + item.length)
      else if ((isOut ? named.in : named.out).has(id))
        throw new CallError(
          'EINVAL',
          `${where}: attribute 0x${id.toString(16)} goes ${isOut ? 'in' : 'out'}, not ${isOut ? 'out' : 'in'}`,
        )
      else if (flags & MANDATORY)
        throw new CallError('EPROTONOSUPPORT', `${where}: the mandatory attribute 0x${id.toString(16)} is unknown`)
      continue
    }
    const [name, attribute] = found
    if (isOut) {
      if (flags & IS_INDIRECT) indirect(`${where}: attribute ${name}`, message, item)
      places.push({ name, attribute, item })
      continue
    }
    const path = `${where}: attribute ${name}`
    let payload = message.subarray(item.payload, item.payload + item.length)
    if (flags & IS_INDIRECT) {
      const { address, length: size } = indirect(path, message, item)
      const limit = Math.max(sizeOf(attribute.of), attribute.of.kind === 'record' ? LONGEST : 0)
      if (size > BigInt(limit)) throw new CallError('EINVAL', `${path}: ${size} bytes, at most ${limit} are taken`)
      payload = view.copyIn(address, Number(size))
    }
    const value = valueIn(path, attribute.of, payload)
    checkValue(path, attribute.of, value, true)
    args[name] = value
  }
  for (const name in named.method.in)
    if (!named.method.in[name].optional && args[name] === undefined)
      throw new CallError('EINVAL', `${where}: attribute ${name} is missing`)

  // Bytes needed, by place, once an answer did not fit.
  const needed = new Map<Item, number>()
  return {
    call: { class: cls, methodName: named.name, method: named.method, object, args },
    legacy,
    answer: result => {
      const answered = message.slice()
      const out = viewOf(answered)
      const installs: Placed[] = []
      const indirects: [bigint, Uint8Array][] = []
      let short: CallError | undefined
      for (const { name, attribute, item } of places) {
        const path = `${where}: attribute ${name}`
        const descriptor = attribute.of.kind === 'fd' ? descriptorOf(result, name) : undefined
        const value = descriptor === undefined ? result.out[name] : 0xffffffff
        if (value === undefined) continue
        const payload = payloadOf(attribute.of, value)
        if (item.flags & IS_INDIRECT) {
          const { address, length: room } = indirect(path, message, item)
          if (descriptor !== undefined) throw new CallError('EINVAL', `${path}: a descriptor's number is not indirect`)
          if (BigInt(payload.length) > room) {
            short ??= spaceError(path, payload.length, room)
            needed.set(item, payload.length)
            continue
          }
          indirects.push([address, payload])
          out.setBigUint64(item.payload + 8, BigInt(payload.length), true)
          out.setUint32(item.at + 4, item.flags | FILLED, true)
          continue
        }
        if (payload.length > item.length) {
          short ??= spaceError(path, payload.length, item.length)
          needed.set(item, payload.length)
          continue
        }
        answered.fill(0, item.payload, item.payload + item.length)
        answered.set(payload, item.payload)
        out.setUint32(item.at + 4, ((item.flags & 0xffff) | FILLED | (payload.length << WRITTEN)) >>> 0, true)
        if (descriptor !== undefined) installs.push({ descriptor, offset: item.payload })
      }
      if (short !== undefined) throw short
      for (const [address, payload] of indirects) view.copyOut(address, payload)
      const own = descriptorOf(result, 'object')
      if (own !== undefined) installs.unshift({ descriptor: own, offset: 4 })
      else if (result.object !== undefined) out.setUint32(4, result.object, true)
      out.setUint32(12, MessageFlag.ANSWERED, true)
      return { message: answered, installs }
    },
    refuse: () => {
      const answered = message.slice()
      const out = viewOf(answered)
      for (const [item, bytes] of needed) {
        if (item.flags & IS_INDIRECT) out.setBigUint64(item.payload + 8, BigInt(bytes), true)
        else out.setUint32(item.at + 4, ((item.flags & 0xffff) | (Math.min(bytes, 0xffff) << WRITTEN)) >>> 0, true)
      }
      out.setUint32(12, MessageFlag.ANSWERED, true)
      return answered
    },
  }
}

/** Decodes the message at `address` in the caller's memory, of call number `call` (an ioctl's, `callOfRequest`). */
export const decodeObject = (view: CallerView, call: number, address: bigint): Decoded | Answer =>
  answering((): Decoded => {
    const length = viewOf(view.copyIn(address, 8)).getUint16(0, true)
    if (length < HEADER) throw new CallError('EINVAL', `a message has at least ${HEADER} bytes, not ${length}`)
    const decoded = decodeMessage(view, call, view.copyIn(address, length))
    const failed = (error: CallError): Answer => {
      try {
        view.copyOut(address, decoded.refuse(error))
      } catch (fault) {
        if (!(fault instanceof CallError)) throw fault
      }
      return refuse(error)
    }
    return {
      call: decoded.call,
      legacy: () => decoded.legacy,
      answer: outcome => {
        if (outcome instanceof CallError) return failed(outcome)
        try {
          const { message, installs } = decoded.answer(outcome)
          view.copyOut(address, message)
          return {
            ret: 0,
            installs: installs.map(({ descriptor, offset }) => ({
              descriptor,
              address: address + BigInt(offset),
              width: 4,
            })),
          }
        } catch (error) {
          if (error instanceof CallError) return failed(error)
          throw error
        }
      },
    }
  })

// ---- client: call → message, message → result ----

/** Room for an output: bytes in the message, or memory elsewhere. */
export type OutputRoom = number | { readonly address: bigint; readonly length: number }

/** Room for outputs of which there can be many, where a caller says nothing. */
const LIST_ROOM = 1024

/** Inputs that do not fit the message lie where `place` puts them. */
export interface EncodeOptions {
  readonly legacy?: Uint8Array | undefined
  /** By attribute; all outputs get room otherwise, lists and blobs 1 KiB. `0`: not wanted. */
  readonly rooms?: { readonly [attribute: string]: OutputRoom }
  /** By attribute: the address at which the caller has put the value's bytes. */
  readonly elsewhere?: { readonly [attribute: string]: bigint }
}

/**
 * The message of a call. Arguments are checked as the server checks them. Throws CallError EINVAL, and EMSGSIZE if the message would have
 * more than 65,528 bytes.
 */
export const encodeCall = (call: Call, options: EncodeOptions = {}): Uint8Array => {
  const where = `${call.class.name}.${call.methodName}`
  const parts: { id: number; flags: number; payload: Uint8Array }[] = []
  const add = (id: number, flags: number, payload: Uint8Array): void => {
    parts.push({ id, flags, payload })
  }
  const pointer = (address: bigint, length: number): Uint8Array => {
    const bytes = new Uint8Array(INDIRECT)
    viewOf(bytes).setBigUint64(0, address, true)
    viewOf(bytes).setBigUint64(8, BigInt(length), true)
    return bytes
  }
  for (const [name, { id, of, optional }] of Object.entries(call.method.in)) {
    const value = call.args[name]
    if (value === undefined) {
      if (optional) continue
      throw new CallError('EINVAL', `${where}: attribute ${name} is missing`)
    }
    checkValue(`${where}: attribute ${name}`, of, value, true)
    const payload = payloadOf(of, value)
    const address = options.elsewhere?.[name]
    if (address === undefined) add(id, MANDATORY, payload)
    else add(id, MANDATORY | IS_INDIRECT, pointer(address, payload.length))
  }
  for (const [name, { id, of }] of Object.entries(call.method.out)) {
    const some = of.kind === 'list' || of.kind === 'blob'
    const room = options.rooms?.[name] ?? (some ? Math.min(sizeOf(of), LIST_ROOM) : sizeOf(of))
    if (room === 0) continue
    if (typeof room === 'number') add(id, OUT, new Uint8Array(room))
    else add(id, OUT | IS_INDIRECT, pointer(room.address, room.length))
  }
  if (options.legacy !== undefined) add(CommonAttribute.LEGACY, 0, options.legacy)

  const length = parts.reduce((sum, { payload }) => sum + ATTRIBUTE + pad(payload.length), HEADER)
  if (length > 0xffff)
    throw new CallError('EMSGSIZE', `${where}: the message would have ${length} bytes, at most 65,528 are possible`)
  const message = new Uint8Array(length)
  const view = viewOf(message)
  view.setUint16(0, length, true)
  view.setUint16(2, call.class.id, true)
  view.setUint32(4, call.object, true)
  let at = HEADER
  for (const { id, flags, payload } of parts) {
    view.setUint16(at, ATTRIBUTE + payload.length, true)
    view.setUint16(at + 2, id, true)
    view.setUint32(at + 4, flags, true)
    message.set(payload, at + ATTRIBUTE)
    at += ATTRIBUTE + pad(payload.length)
  }
  return message
}

/**
 * The result in an answered message. `copyIn` reads indirect outputs. Numbers of descriptors appear as values. Throws CallError EINVAL if
 * the message is not an answer to `call`.
 */
export const decodeResult = (
  call: Call,
  message: Uint8Array,
  copyIn?: (address: bigint, length: number) => Uint8Array,
): Result => {
  const where = `${call.class.name}.${call.methodName}`
  if (message.length < HEADER)
    throw new CallError('EINVAL', `${where}: an answer has at least ${HEADER} bytes, not ${message.length}`)
  const named = methodByCall(call.class, call.method.call)
  const out: AnyValues = {}
  for (const item of items(where, message)) {
    const found = item.flags & OUT && item.flags & FILLED ? named?.out.get(item.id) : undefined
    if (found === undefined) continue
    const [name, { of }] = found
    const path = `${where}: attribute ${name}`
    let payload: Uint8Array
    if (item.flags & IS_INDIRECT) {
      const { address, length } = indirect(path, message, item)
      if (copyIn === undefined) continue
      payload = copyIn(address, Number(length))
    } else {
      const written = item.flags >>> WRITTEN
      if (written > item.length)
        throw new CallError('EINVAL', `${path}: ${written} bytes written into a room of ${item.length}`)
      payload = message.subarray(item.payload, item.payload + written)
    }
    out[name] = valueIn(path, of, payload)
  }
  return creates(call.method) ? { object: viewOf(message).getUint32(4, true), out } : { out }
}
