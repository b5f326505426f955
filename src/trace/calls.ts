/*
 * Calls of the ABI, one line each, in the style of strace, and as JSON:
 *
 *   [pid 123 ibv_rc_pingpong] fd 3 rc_qp.modify(object 3, state RTR, address {…}, pathMtu MTU_1024, …) = 0 <0.000034>
 *   [pid 123 a.out] fd 3 cq.create(cqe 0, …) = -1 EINVAL (cq.create: attribute cqe: 0 is below 1) <0.000011>
 *
 * Whatever dialect a call came in, it is shown by the names of spec/: the record (uapi/tool.ts) has it in the object
 * dialect. What the call answered stands in braces behind the return value, new descriptors included. Refused and
 * undecodable calls are shown as far as they can be read.
 */

import { classes } from '../spec/classes.ts'
import { RxeAttributes } from '../spec/drivers/rxe.ts'
import { errnoName } from '../spec/errno.ts'
import type { Attributes, Method, ObjectClass } from '../spec/schema.ts'
import type { TraceRecord } from '../uapi/tool.ts'
import { bytesText } from './bytes.ts'
import { type ReadMessage, readMessage } from './message.ts'
import { ABRIDGED, attributesJson, attributesText, type Style, WHOLE } from './values.ts'

/** Text of processes and messages on one line: no control characters reach the terminal. */
const plain = (text: string): string => text.replace(/\p{C}+/gu, ' ').trim()

interface Decoded {
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
const fromBase64 = (text: string): Uint8Array => {
  try {
    return Uint8Array.from(atob(text), char => char.charCodeAt(0))
  } catch {
    return new Uint8Array(0)
  }
}

const decode = (record: TraceRecord, { bytes }: Style): Decoded | undefined => {
  const { call } = record
  const found = call === undefined ? undefined : byId.get(call.classId)
  if (call === undefined || found === undefined) return undefined
  const entry = Object.entries<Method>(found.methods).find(([, method]) => method.call === call.call)
  if (entry === undefined) return undefined
  const [name, method] = entry
  const added = driverAttributes[found.name]?.[name]
  const inputs = { ...method.in, ...added?.in }
  const outputs = { ...method.out, ...added?.out }
  return {
    class: found,
    name,
    in: inputs,
    out: outputs,
    args: readMessage(fromBase64(call.message), inputs, 'in', bytes),
    result: readMessage(fromBase64(call.answer), outputs, 'out', bytes),
  }
}

const isCreate = (found: ObjectClass, name: string): boolean => name === 'create' && found.identity !== 'fixed'
/** The object that is called: none for creates, and fixed ones that are always object 0 go without saying. */
const objectOf = ({ class: found, name, args }: Decoded): number | undefined =>
  isCreate(found, name) || (found.identity === 'fixed' && args.object === 0) ? undefined : args.object
/** The object that was made, if it has a handle. */
const createdOf = ({ class: found, name, result }: Decoded): number | undefined =>
  isCreate(found, name) && found.identity === 'handle' ? result.object : undefined
const objectText = (object: number | undefined): string[] => (object === undefined ? [] : [`object ${object}`])

/** Descriptors that the call made, by the attributes that would carry their numbers. */
const descriptorsText = ({ descriptors = [] }: TraceRecord): string[] =>
  descriptors.map(({ attribute, fd }) => `${attribute} fd ${fd ?? '?'}`)

const callText = (record: TraceRecord, decoded: Decoded | undefined, style: Style): string => {
  if (decoded === undefined) {
    const { call, dialect } = record
    return call === undefined
      ? `${dialect}(${plain(record.attempt ?? '?')})`
      : `${dialect}(class ${call.classId}, call ${call.call}, ${bytesText(fromBase64(call.message), style.bytes)})`
  }
  const { args } = decoded
  const parts = [...objectText(objectOf(decoded)), ...attributesText(decoded.in, args.values, style), ...args.rest]
  return `${decoded.class.name}.${decoded.name}(${parts.join(', ')})`
}

const answerText = (record: TraceRecord, decoded: Decoded | undefined, style: Style): string => {
  const { ret, reason } = record
  if (ret < 0) return `-1 ${errnoName(-ret)}${reason === undefined ? '' : ` (${plain(reason)})`}`
  if (decoded === undefined) return String(ret)
  const { result } = decoded
  const parts = [
    ...objectText(createdOf(decoded)),
    ...descriptorsText(record),
    ...attributesText(decoded.out, result.values, style),
    ...result.rest,
  ]
  return parts.length === 0 ? String(ret) : `${ret} {${parts.join(', ')}}`
}

/** `verbose`: all fields of records, zeros too, all records of lists and all bytes. */
export interface LineOptions {
  readonly verbose?: boolean
}

/** One line for a call (two when calls before it were lost). Never throws, whatever the record's messages contain. */
export const callLine = (record: TraceRecord, { verbose = false }: LineOptions = {}): string => {
  const style = verbose ? WHOLE : ABRIDGED
  const { pid, tid, fd, command, duration, lost } = record
  const thread = tid === pid ? '' : ` tid ${tid}`
  const where = fd < 0 ? '' : `fd ${fd} `
  const missing = lost ? `[${lost} calls were not traced: the reader was too slow]\n` : ''
  const seconds = (duration / 1e6).toFixed(6)
  const decoded = decode(record, style)
  const text = `${callText(record, decoded, style)} = ${answerText(record, decoded, style)}`
  return `${missing}[pid ${pid}${thread} ${plain(command)}] ${where}${text} <${seconds}>`
}

/** A call for `JSON.stringify`: the record with its messages decoded. */
export const callJson = (record: TraceRecord): Record<string, unknown> => {
  const { call, ret, reason, descriptors = [], ...rest } = record
  const decoded = decode(record, WHOLE)
  const made = Object.fromEntries(descriptors.map(({ attribute, fd }) => [attribute, fd ?? null]))
  const error = ret < 0 ? { error: errnoName(-ret), ...(reason !== undefined && { reason }) } : {}
  if (decoded === undefined) return { ...rest, ...(call !== undefined && { undecoded: call }), ret, ...error }
  const { args, result } = decoded
  const undecoded = [...args.rest, ...result.rest]
  const object = objectOf(decoded) ?? (ret >= 0 ? createdOf(decoded) : undefined)
  return {
    ...rest,
    class: decoded.class.name,
    method: decoded.name,
    ...(object !== undefined && { object }),
    args: attributesJson(decoded.in, args.values),
    ret,
    ...error,
    ...(ret >= 0 && { out: { ...made, ...attributesJson(decoded.out, result.values) } }),
    ...(undecoded.length > 0 && { undecoded }),
  }
}
