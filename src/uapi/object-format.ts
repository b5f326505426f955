/*
 * The format of the object dialect (design.md section 3), beneath both sides of it: how a message is laid out, which
 * method a call number is, how a value of a kind lies in an attribute.
 */
import { CallError } from '../spec/errno.ts'
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
} from '../spec/schema.ts'
import { isZero } from './caller.ts'
import { encodeRecords, readRecord, readScalar, viewOf, writeRecord, writeScalar } from './scalar.ts'

/** Bytes of the header of a message, and of an attribute. */
export const HEADER = 16
export const ATTRIBUTE = 8
/** Bytes of an indirect payload: {u64 address, u64 length}. */
export const INDIRECT = 16
/** Where the flags of a filled output have the number of bytes written. */
export const WRITTEN = 16

export const pad = (length: number): number => (length + 7) & ~7

// ---- the carrier ----

const MAGIC = 0xdb

/** The ioctl request of a call number: `_IOWR(0xdb, call, u64)`; its argument is the address of the message. */
export const ioctlRequest = (call: number): number => ((3 << 30) | (8 << 16) | (MAGIC << 8) | call) >>> 0

/** The call number of an ioctl request, undefined if it is not one of the object dialect. */
export const callOfRequest = (request: number): number | undefined =>
  ioctlRequest(request & 0xff) === request >>> 0 ? request & 0xff : undefined

// ---- methods by number ----

export interface Named {
  readonly name: string
  readonly method: Method
  readonly in: ReadonlyMap<number, [string, Attribute]>
  readonly out: ReadonlyMap<number, [string, Attribute]>
}

const byId = (attributes: Attributes): ReadonlyMap<number, [string, Attribute]> =>
  new Map(Object.entries(attributes).map(([name, attribute]) => [attribute.id, [name, attribute]]))

const numbered = new WeakMap<ObjectClass, ReadonlyMap<number, Named>>()

/** The method of a class behind a call number. */
export const methodByCall = (cls: ObjectClass, call: number): Named | undefined => {
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

export const creates = (method: Method): boolean => method.call === CREATE || method.call === CREATE_FD

// ---- values ----

/** Bytes of one value, unpadded. */
export const payloadOf = (of: Kind, value: AnyValue): Uint8Array => {
  if (of.kind === 'blob' || of.kind === 'bytes') return value as Uint8Array
  if (of.kind === 'list') return encodeRecords(of.fields, value as AnyRecord[])
  const bytes = new Uint8Array(sizeOf(of))
  const view = viewOf(bytes)
  if (of.kind === 'record') writeRecord(view, 0, of.fields, value as AnyRecord)
  else writeScalar(view, 0, bytes.length, of, value)
  return bytes
}

/** The value in a payload that the other side has sent. */
export const valueIn = (where: string, of: Kind, payload: Uint8Array): AnyValue => {
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
        throw new CallError('EINVAL', `${where}: it must have ${size} bytes and has ${payload.length}`)
      return readScalar(viewOf(payload), 0, size, of, where)
    }
  }
}

// ---- walking a message ----

export interface Item {
  readonly id: number
  readonly flags: number
  /** Where its header and its payload begin, and the bytes of the payload. */
  readonly at: number
  readonly payload: number
  readonly length: number
}

/** The attributes of a message. Throws CallError EINVAL if they do not lie in it. */
export function* items(where: string, message: Uint8Array): Generator<Item> {
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

export const indirect = (where: string, message: Uint8Array, item: Item): { address: bigint; length: bigint } => {
  if (item.length !== INDIRECT)
    throw new CallError('EINVAL', `${where}: an indirect payload must have ${INDIRECT} bytes and has ${item.length}`)
  const view = viewOf(message)
  return { address: view.getBigUint64(item.payload, true), length: view.getBigUint64(item.payload + 8, true) }
}
