/*
 * Messages of tables (device-plugin.ts) to and from protobuf (https://protobuf.dev/programming-guides/encoding/).
 * Decoding skips unknown fields, as newer kubelets may send them, and accepts each field as proto3 does: the last one
 * of several counts. It throws an Error for bytes that are not of the format.
 */
import { Message } from '../export/protobuf.ts'
import type { Field, MessageOf, MessageTable } from './device-plugin.ts'

const VARINT = 0
const FIXED64 = 1
const LENGTH = 2
const FIXED32 = 5
/** Bytes of the longest varint. */
const MAX_VARINT = 10

type Value = string | boolean | number | Values
interface Values {
  readonly [name: string]: Value | readonly Value[] | undefined
}

const add = (message: Message, { number, type }: Field, value: Value): void => {
  if (typeof value === 'string') message.text(number, value)
  else if (typeof value === 'object') message.message(number, encoded(type as MessageTable, value))
  else message.varint(number, BigInt(value))
}

const encoded = (table: MessageTable, values: Values): Message => {
  const message = new Message()
  for (const [name, field] of Object.entries(table)) {
    const value = values[name]
    if (field.isList) for (const each of (value ?? []) as readonly Value[]) add(message, field, each)
    // Defaults are not sent.
    else if (value) add(message, field, value as Value)
  }
  return message
}

/** The bytes of a message; absent fields have their defaults. */
export const encode = <M extends MessageTable>(table: M, message: Partial<MessageOf<M>>): Buffer =>
  Buffer.from(encoded(table, message as unknown as Values).bytes)

/** Reads the fields of a message, `[number, wire type, value]`; bytes of a text or message, else a bigint. */
function* fieldsOf(bytes: Buffer): Generator<readonly [number: number, wire: number, value: bigint | Buffer]> {
  let at = 0
  const take = (length: number): Buffer => {
    if (length > bytes.length - at) throw new Error(`a field of ${length} bytes at ${at} of ${bytes.length}`)
    at += length
    return bytes.subarray(at - length, at)
  }
  const varint = (): bigint => {
    let value = 0n
    for (let i = 0; i < MAX_VARINT; i++) {
      const byte = take(1)[0]!
      value |= BigInt(byte & 0x7f) << BigInt(7 * i)
      if (byte < 0x80) return BigInt.asUintN(64, value)
    }
    throw new Error(`a number of more than ${MAX_VARINT} bytes at ${at}`)
  }
  while (at < bytes.length) {
    const tag = Number(varint())
    const wire = tag % 8
    const number = Math.floor(tag / 8)
    if (wire === VARINT) yield [number, wire, varint()]
    else if (wire === LENGTH) yield [number, wire, take(Number(varint()))]
    else if (wire === FIXED64 || wire === FIXED32) take(wire === FIXED64 ? 8 : 4)
    else throw new Error(`field ${number} has wire type ${wire}, which no field has`)
  }
}

const valueFrom = (type: Field['type'], value: bigint | Buffer): Value => {
  if (typeof type === 'object') return decoded(type, value as Buffer)
  if (type === 'text') return value.toString()
  return type === 'bool' ? value !== 0n : Number(BigInt.asIntN(64, value as bigint))
}

const DEFAULTS = { text: '', bool: false, int: 0 } as const

const decoded = (table: MessageTable, bytes: Buffer): Values => {
  const values: Record<string, Value | Value[] | undefined> = {}
  const names = new Map<number, string>()
  for (const [name, { number, type, isList }] of Object.entries(table)) {
    names.set(number, name)
    values[name] = isList ? [] : typeof type === 'object' ? undefined : DEFAULTS[type]
  }
  for (const [number, wire, value] of fieldsOf(bytes)) {
    const name = names.get(number)
    if (name === undefined) continue
    const { type, isList } = table[name]!
    if (wire !== (type === 'int' || type === 'bool' ? VARINT : LENGTH))
      throw new Error(`${name} has wire type ${wire}, which is not its own`)
    if (isList) (values[name] as Value[]).push(valueFrom(type, value))
    else values[name] = valueFrom(type, value)
  }
  return values
}

/** The message of the bytes. Throws an Error. */
export const decode = <M extends MessageTable>(table: M, bytes: Uint8Array): MessageOf<M> =>
  decoded(table, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)) as unknown as MessageOf<M>
