/*
 * The format of the object dialect (docs/reference/object-dialect.md), for client and server.
 */
import { callError } from '../../spec/errno.ts'
import { because, type Place, the } from '../../spec/reason.ts'
import {
  type AnyRecord,
  type AnyValue,
  type Attribute,
  type Attributes,
  CREATE,
  CREATE_FD,
  type Kind,
  type Method,
  type ObjectClass,
  recordSize,
  sizeOf,
} from '../../spec/schema/schema.ts'
import { type ArgumentShape, type Check, checkOf, shapeOf } from '../argument-check.ts'
import type { Call } from '../call.ts'
import { isZero } from '../linux/caller.ts'
import { readRecord, readScalar, viewOf, writeBytes, writeRecord, writeRecords, writeScalar } from '../scalar.ts'

/** Bytes of the headers of a message and of an attribute. */
export const HEADER = 16
export const ATTRIBUTE = 8
/** Bytes of an indirect payload: {u64 address, u64 length}. */
export const INDIRECT_BYTES = 16
/** Flags of a filled output: from this bit on, the number of written bytes. */
export const WRITTEN_SHIFT = 16

/** Rounds a length up to the alignment of attributes. The length may have more than 32 bits. */
export const pad = (length: number): number => length + (-length & 7)

// ---- ioctl requests ----

/** The type byte of our ioctl requests (_IOC_TYPE). */
const MAGIC = 0xdb

/** `_IOWR(0xdb, call, u64)`. The argument is the address of the message. */
export const ioctlRequest = (call: number): number => ((3 << 30) | (8 << 16) | (MAGIC << 8) | call) >>> 0

/** The call number of an ioctl request; undefined for other requests. */
export const callOfRequest = (request: number): number | undefined =>
  ioctlRequest(request & 0xff) === request >>> 0 ? request & 0xff : undefined

// ---- methods by number ----

/** An attribute of a method. */
export interface Slot {
  readonly name: string
  /** Beginning of error messages. */
  readonly path: Place
  readonly attribute: Attribute
  /** For a received value; refuses unknown bits of flags. */
  readonly check: Check
}

/** `inputs`, `required` and `outputs` are in order of declaration; `in` and `out` have the attributes by id. */
export interface CompiledMethod {
  readonly name: string
  /** class.method, the beginning of error messages. */
  readonly where: Place
  readonly method: Method
  readonly inputs: readonly Slot[]
  readonly required: readonly Slot[]
  /** The argument check of clients. */
  readonly shape: ArgumentShape
  readonly outputs: readonly Slot[]
  readonly in: ReadonlyMap<number, Slot>
  readonly out: ReadonlyMap<number, Slot>
}

const slotsOf = (where: Place, attributes: Attributes): readonly Slot[] =>
  Object.entries(attributes).map(([name, attribute]) => ({
    name,
    path: because`${where}: ${the.attribute(name)}`,
    attribute,
    check: checkOf(attribute.type, true),
  }))

const byId = (slots: readonly Slot[]): ReadonlyMap<number, Slot> =>
  new Map(slots.map(slot => [slot.attribute.id, slot]))

const compileMethod = (cls: ObjectClass, name: string, method: Method): CompiledMethod => {
  const where = the.method(`${cls.name}.${name}`)
  const inputs = slotsOf(where, method.in)
  const outputs = slotsOf(where, method.out)
  const required = inputs.filter(({ attribute }) => !attribute.optional)
  const shape = shapeOf(method.in)
  return { name, where, method, inputs, required, shape, outputs, in: byId(inputs), out: byId(outputs) }
}

/** By class: methods by call number. */
const methodsByCall = new WeakMap<ObjectClass, ReadonlyMap<number, CompiledMethod>>()

export const methodByCall = (cls: ObjectClass, call: number): CompiledMethod | undefined => {
  let calls = methodsByCall.get(cls)
  if (calls === undefined) {
    calls = new Map(
      Object.entries(cls.methods).map(([name, method]) => [method.call, compileMethod(cls, name, method)]),
    )
    methodsByCall.set(cls, calls)
  }
  return calls.get(call)
}

/** The method of a call: the class's, or the call's own, if its declaration differs (versions.ts). */
export const methodOfCall = ({ class: cls, methodName, method }: Call): CompiledMethod => {
  const found = methodByCall(cls, method.call)
  return found?.method === method ? found : compileMethod(cls, methodName, method)
}

export const creates = (method: Method): boolean => method.call === CREATE || method.call === CREATE_FD

// ---- values ----

/** Bytes of an encoded value, without padding. */
export const payloadSize = (type: Kind, value: AnyValue): number => {
  if (type.kind === 'blob' || type.kind === 'bytes') return (value as Uint8Array).length
  if (type.kind === 'list') return recordSize(type.fields) * (value as AnyRecord[]).length
  return sizeOf(type)
}

/** Writes a value of `payloadSize` bytes at `at`, where the bytes must be 0. */
export const writePayload = (view: DataView, at: number, type: Kind, value: AnyValue): void => {
  if (type.kind === 'blob' || type.kind === 'bytes')
    writeBytes(view, at, (value as Uint8Array).length, value as Uint8Array)
  else if (type.kind === 'list') writeRecords(view, at, type.fields, value as AnyRecord[])
  else if (type.kind === 'record') writeRecord(view, at, type.fields, value as AnyRecord)
  else writeScalar(view, at, sizeOf(type), type, value)
}

/** One encoded value, without padding. */
export const payloadOf = (type: Kind, value: AnyValue): Uint8Array => {
  if (type.kind === 'blob' || type.kind === 'bytes') return value as Uint8Array
  const bytes = new Uint8Array(payloadSize(type, value))
  writePayload(viewOf(bytes), 0, type, value)
  return bytes
}

/**
 * Decodes a received value of `length` bytes at `at`. A shorter record is filled with zeros. Throws CallError: E2BIG
 * for a record with nonzero bytes after its known fields, EINVAL for a wrong length of other kinds.
 */
export const valueIn = (where: Place, type: Kind, view: DataView, at: number, length: number): AnyValue => {
  switch (type.kind) {
    case 'blob':
      if (length > type.max) throw callError.EINVAL`${where}: ${length} bytes, at most ${type.max} are allowed`
      return readScalar(view, at, length, type, where)
    case 'list': {
      const size = recordSize(type.fields)
      const count = length / size
      if (!Number.isInteger(count) || count > type.max)
        throw callError.EINVAL`${where}: ${length} bytes are not 0 to ${type.max} records of ${size}`
      return Array.from({ length: count }, (_, i) => readRecord(view, at + i * size, type.fields, where))
    }
    case 'record': {
      const size = recordSize(type.fields)
      if (length === size) return readRecord(view, at, type.fields, where)
      const bytes = new Uint8Array(view.buffer, view.byteOffset + at, length)
      if (!isZero(bytes.subarray(size)))
        throw callError.E2BIG`${where}: it has ${length} bytes, those after the ${size} known ones are not 0`
      const known = new Uint8Array(size)
      known.set(bytes.subarray(0, size))
      return readRecord(viewOf(known), 0, type.fields, where)
    }
    default: {
      const size = sizeOf(type)
      if (length !== size) throw callError.EINVAL`${where}: it must have ${size} bytes and has ${length}`
      return readScalar(view, at, size, type, where)
    }
  }
}

// ---- walking a message ----

/** One attribute of a message. */
export interface Item {
  readonly id: number
  readonly flags: number
  /** Offset of the header. */
  readonly at: number
  /** Offset of the payload. */
  readonly payload: number
  /** Bytes of the payload. */
  readonly length: number
  /** Offset of the next attribute. */
  readonly next: number
}

/**
 * The attribute at `at` of a message of `end` bytes. Throws CallError EINVAL if the attribute extends beyond the
 * message, or is shorter than its header.
 */
export const itemAt = (where: Place, view: DataView, at: number, end: number): Item => {
  if (at + ATTRIBUTE > end) throw callError.EINVAL`${where}: the message ends within an attribute's header`
  const length = view.getUint16(at, true)
  const id = view.getUint16(at + 2, true)
  if (length < ATTRIBUTE || at + length > end)
    throw callError.EINVAL`${where}: attribute 0x${id.toString(16)} at ${at} has length ${length}, ${end - at} bytes are left`
  const payload = at + ATTRIBUTE
  return { id, flags: view.getUint32(at + 4, true), at, payload, length: length - ATTRIBUTE, next: at + pad(length) }
}

/** The address and length in an indirect payload. Throws CallError EINVAL for a payload of another size. */
export const indirect = (where: Place, view: DataView, item: Item): { address: bigint; length: bigint } => {
  if (item.length !== INDIRECT_BYTES)
    throw callError.EINVAL`${where}: an indirect payload must have ${INDIRECT_BYTES} bytes and has ${item.length}`
  return { address: view.getBigUint64(item.payload, true), length: view.getBigUint64(item.payload + 8, true) }
}
