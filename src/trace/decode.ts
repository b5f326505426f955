/*
 * A traced call decoded by the declarations of spec/: class, method and the values of both messages, as far as they can
 * be read. The record (uapi/tool.ts) has every call in the object dialect, so one decoder serves all dialects.
 */
import { classes } from '../spec/classes.ts'
import { RxeAttributes } from '../spec/drivers/rxe.ts'
import type { Attributes, Method, ObjectClass } from '../spec/schema.ts'
import type { TraceRecord } from '../uapi/tool.ts'
import { type ReadMessage, readMessage } from './message.ts'

export interface DecodedCall {
  readonly class: ObjectClass
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

/** Memory that messages point to, by address. */
export type Memory = ReadonlyMap<bigint, Uint8Array>
const NO_MEMORY: Memory = new Map()

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
  memory: Memory = NO_MEMORY,
): DecodedCall | undefined => {
  const found = byId.get(classId)
  const entry = found && Object.entries<Method>(found.methods).find(([, method]) => method.call === call)
  if (found === undefined || entry === undefined) return undefined
  const [name, method] = entry
  const added = driverAttributes[found.name]?.[name]
  const inputs = { ...method.in, ...added?.in }
  const outputs = { ...method.out, ...added?.out }
  return {
    class: found,
    name,
    in: inputs,
    out: outputs,
    args: readMessage(message, inputs, 'in', most, memory),
    result: readMessage(answer, outputs, 'out', most, memory),
  }
}

/** The same of a record; undefined too if its call was refused before it was decoded. */
export const decodeRecord = ({ call }: TraceRecord, most: number): DecodedCall | undefined => {
  if (call === undefined) return undefined
  const memory = new Map(call.memory?.map(([address, bytes]) => [BigInt(address), fromBase64(bytes)]))
  return decodeMessages(call.classId, call.call, fromBase64(call.message), fromBase64(call.answer), most, memory)
}

const isCreate = (found: ObjectClass, name: string): boolean => name === 'create' && found.identity !== 'fixed'

/** The object that is called: none for creates, and fixed ones that are always object 0 go without saying. */
export const objectOf = ({ class: found, name, args }: DecodedCall): number | undefined =>
  isCreate(found, name) || (found.identity !== 'handle' && args.object === 0) ? undefined : args.object

/** The object that was made, if it has a handle. */
export const createdOf = ({ class: found, name, result }: DecodedCall): number | undefined =>
  isCreate(found, name) && found.identity === 'handle' ? result.object : undefined
