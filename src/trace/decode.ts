/*
 * Decodes a traced call by the declarations of spec/: class, method and the values of both messages, as far as they can
 * be read. The record (uapi/tool.ts) has every call in the object dialect, so one decoder serves all dialects.
 */
import { classes } from '../spec/classes.ts'
import { RxeAttributes } from '../spec/drivers/rxe.ts'
import type { Attributes, Method, ObjectClass } from '../spec/schema/schema.ts'
import type { Declaration, TraceRecord } from '../uapi/tool.ts'
import { type ReadMessage, readMessage } from './message.ts'

export interface DecodedCall {
  readonly class: Pick<ObjectClass, 'name' | 'id' | 'identity'>
  readonly name: string
  readonly in: Attributes
  readonly out: Attributes
  readonly args: ReadMessage
  readonly result: ReadMessage
}

type Added = { readonly in?: Attributes; readonly out?: Attributes }
const driverAttributes: Readonly<Record<string, Readonly<Record<string, Added>>>> = RxeAttributes

const byId = new Map(classes.map(c => [c.id, c]))

/** Empty if the text is not base64. */
export const fromBase64 = (text: string): Uint8Array => {
  try {
    return Uint8Array.from(atob(text), char => char.charCodeAt(0))
  } catch {
    return new Uint8Array(0)
  }
}

/**
 * Context of a record's messages: memory that they point to, by address; the separate output buffer of an answer; and a
 * driver's own methods.
 */
export interface RecordContext {
  readonly memory?: ReadonlyMap<bigint, Uint8Array> | undefined
  readonly written?: ReadonlyMap<bigint, Uint8Array> | undefined
  readonly declared?: readonly Declaration[] | undefined
}

/** A method by its numbers, with a driver's attributes; undefined if unknown. */
export const methodOf = (classId: number, call: number, declared: readonly Declaration[] = []) => {
  const own = declared.find(one => one.classId === classId && one.call === call)
  if (own !== undefined) {
    const { class: name, identity } = own
    return { class: { name, id: classId, identity }, name: own.method, in: own.in, out: own.out }
  }
  const found = byId.get(classId)
  const entry = found && Object.entries<Method>(found.methods).find(([, method]) => method.call === call)
  if (found === undefined || entry === undefined) return undefined
  const [name, method] = entry
  const added = driverAttributes[found.name]?.[name]
  return { class: found, name, in: { ...method.in, ...added?.in }, out: { ...method.out, ...added?.out } }
}

/**
 * The call of two messages; undefined for an unknown class or method. At most `maxBytes` bytes of an unreadable part
 * are shown.
 */
export const decodeMessages = (
  classId: number,
  call: number,
  message: Uint8Array,
  answer: Uint8Array,
  maxBytes: number,
  { memory, written = memory, declared }: RecordContext = {},
): DecodedCall | undefined => {
  const found = methodOf(classId, call, declared)
  if (found === undefined) return undefined
  return {
    ...found,
    args: readMessage(message, found.in, 'in', maxBytes, memory),
    result: readMessage(answer, found.out, 'out', maxBytes, written),
  }
}

/** The call in a record; also undefined if the call was refused before it was decoded. */
export const decodeRecord = ({ call }: TraceRecord, maxBytes: number): DecodedCall | undefined => {
  if (call === undefined) return undefined
  const memory = new Map(call.memory?.map(([address, bytes]) => [BigInt(address), fromBase64(bytes)]))
  const { classId, call: number, message, answer, declared } = call
  return decodeMessages(classId, number, fromBase64(message), fromBase64(answer), maxBytes, { memory, declared })
}

const isCreate = (found: DecodedCall['class'], name: string): boolean => name === 'create' && found.identity !== 'fixed'

/** The call's object; omitted for creates, and for fixed objects, which are always object 0. */
export const objectOf = ({ class: found, name, args }: DecodedCall): number | undefined =>
  isCreate(found, name) || (found.identity !== 'handle' && args.object === 0) ? undefined : args.object

/** The new object, if it has a handle. */
export const createdOf = ({ class: found, name, result }: DecodedCall): number | undefined =>
  isCreate(found, name) && found.identity === 'handle' ? result.object : undefined
