/*
 * A traced call decoded by the declarations of spec/: class, method and the values of both messages, as far as they can
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

/** No bytes for what is not base64. */
export const fromBase64 = (text: string): Uint8Array => {
  try {
    return Uint8Array.from(atob(text), char => char.charCodeAt(0))
  } catch {
    return new Uint8Array(0)
  }
}

/**
 * What comes with a record's messages: memory that they point to, by address, what an answer has written if that is
 * apart, and methods that are a driver's own.
 */
export interface RecordContext {
  readonly memory?: ReadonlyMap<bigint, Uint8Array> | undefined
  readonly written?: ReadonlyMap<bigint, Uint8Array> | undefined
  readonly declared?: readonly Declaration[] | undefined
}

/** A method by its numbers, with a driver's attributes; undefined if nobody knows it. */
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
 * The call that two messages are; undefined for an unknown class or method. `most` bytes are shown of what cannot be
 * read.
 */
export const decodeMessages = (
  classId: number,
  call: number,
  message: Uint8Array,
  answer: Uint8Array,
  most: number,
  { memory, written = memory, declared }: RecordContext = {},
): DecodedCall | undefined => {
  const found = methodOf(classId, call, declared)
  if (found === undefined) return undefined
  return {
    ...found,
    args: readMessage(message, found.in, 'in', most, memory),
    result: readMessage(answer, found.out, 'out', most, written),
  }
}

/** The same of a record; undefined too if its call was refused before it was decoded. */
export const decodeRecord = ({ call }: TraceRecord, most: number): DecodedCall | undefined => {
  if (call === undefined) return undefined
  const memory = new Map(call.memory?.map(([address, bytes]) => [BigInt(address), fromBase64(bytes)]))
  const { classId, call: number, message, answer, declared } = call
  return decodeMessages(classId, number, fromBase64(message), fromBase64(answer), most, { memory, declared })
}

const isCreate = (found: DecodedCall['class'], name: string): boolean => name === 'create' && found.identity !== 'fixed'

/** The object that is called: none for creates, and fixed ones that are always object 0 go without saying. */
export const objectOf = ({ class: found, name, args }: DecodedCall): number | undefined =>
  isCreate(found, name) || (found.identity !== 'handle' && args.object === 0) ? undefined : args.object

/** The object that was made, if it has a handle. */
export const createdOf = ({ class: found, name, result }: DecodedCall): number | undefined =>
  isCreate(found, name) && found.identity === 'handle' ? result.object : undefined
