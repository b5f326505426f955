/*
 * Decodes a traced call by the declarations of spec/: class, method, and the readable values of request and answer. The
 * record (uapi/tool.ts) has every call in the object dialect, so one decoder serves all dialects.
 */
import { classes } from '../../spec/classes.ts'
import { knownAdditions } from '../../spec/drivers/known.ts'
import type { Declaration, TraceRecord } from '../../spec/records.ts'
import type { Attributes, Method, ObjectClass } from '../../spec/schema/schema.ts'
import { withCommandFields } from './firmware.ts'
import { type ReadMessage, readMessage } from './message.ts'

export interface DecodedCall {
  readonly class: Pick<ObjectClass, 'name' | 'id' | 'identity'>
  /** The method's name. */
  readonly name: string
  /** Declared inputs and outputs, with those of the driver. */
  readonly in: Attributes
  readonly out: Attributes
  readonly args: ReadMessage
  readonly result: ReadMessage
}

const classesById = new Map(classes.map(cls => [cls.id, cls]))

/** The bytes of a base64 text; empty if the text is not base64. */
export const fromBase64 = (text: string): Uint8Array => {
  try {
    return Uint8Array.from(atob(text), char => char.charCodeAt(0))
  } catch {
    return new Uint8Array(0)
  }
}

interface MessageContext {
  /** Memory to which the message points, by address. */
  readonly memory?: ReadonlyMap<bigint, Uint8Array> | undefined
  /** Memory to which the answer points. Absent: `memory`. */
  readonly written?: ReadonlyMap<bigint, Uint8Array> | undefined
  /** Methods of drivers' own classes. */
  readonly declared?: readonly Declaration[] | undefined
}

/**
 * A method by class id and call number, with the attributes of drivers that tools know; undefined: unknown. `declared`:
 * see `MessageContext`.
 */
export const methodOf = (classId: number, call: number, declared: readonly Declaration[] = []) => {
  const ofDriver = declared.find(declaration => declaration.classId === classId && declaration.call === call)
  if (ofDriver !== undefined) {
    const { class: name, identity } = ofDriver
    return { class: { name, id: classId, identity }, name: ofDriver.method, in: ofDriver.in, out: ofDriver.out }
  }
  const found = classesById.get(classId)
  const entry = found && Object.entries<Method>(found.methods).find(([, method]) => method.call === call)
  if (found === undefined || entry === undefined) return undefined
  const [name, method] = entry
  const added = knownAdditions[found.name]?.[name]
  return { class: found, name, in: { ...method.in, ...added?.in }, out: { ...method.out, ...added?.out } }
}

/**
 * Decodes the message and the answer of a call; undefined: unknown class or method. The text of an unreadable part
 * shows at most its first `maxBytes` bytes.
 */
export const decodeMessages = (
  classId: number,
  call: number,
  message: Uint8Array,
  answer: Uint8Array,
  maxBytes: number,
  { memory, written = memory, declared }: MessageContext = {},
): DecodedCall | undefined => {
  const found = methodOf(classId, call, declared)
  if (found === undefined) return undefined
  return withCommandFields({
    ...found,
    args: readMessage(message, found.in, 'in', maxBytes, memory),
    result: readMessage(answer, found.out, 'out', maxBytes, written),
  })
}

/** Decodes the call in a record; undefined: unknown class or method, or refused before it was decoded. */
export const decodeRecord = ({ call }: TraceRecord, maxBytes: number): DecodedCall | undefined => {
  if (call === undefined) return undefined
  const memory = new Map(call.memory?.map(([address, bytes]) => [BigInt(address), fromBase64(bytes)]))
  const { classId, call: number, message, answer, declared } = call
  return decodeMessages(classId, number, fromBase64(message), fromBase64(answer), maxBytes, { memory, declared })
}

const isCreate = (found: DecodedCall['class'], name: string): boolean => name === 'create' && found.identity !== 'fixed'

/** The handle or number of the call's object. Undefined for creates, and for number 0 if the class has no handles. */
export const objectOf = ({ class: found, name, args }: DecodedCall): number | undefined =>
  isCreate(found, name) || (found.identity !== 'handle' && args.object === 0) ? undefined : args.object

/** The handle of the new object of a successful create. Undefined for other methods and classes without handles. */
export const createdOf = ({ class: found, name, result }: DecodedCall): number | undefined =>
  isCreate(found, name) && found.identity === 'handle' ? result.object : undefined
