/*
 * The entries of a chain (R16) as separate calls: each with its method, the entries that it refers to and its result,
 * up to the one that failed. Anything that is not a chain stays bytes.
 */
import { Interface } from '../spec/classes/device/interface.ts'
import { CallError, errnoName } from '../spec/errno.ts'
import type { Attributes } from '../spec/schema/schema.ts'
import { type ChainEntry, chainEntries } from '../uapi/object/chain.ts'
import type { TraceRecord } from '../uapi/tool.ts'
import { bytesText } from './bytes.ts'
import { createdOf, type DecodedCall, decodeMessages, fromBase64, objectOf } from './decode.ts'
import { attributesJson, attributesText, type ShownValues, type Style, WHOLE } from './values.ts'

interface DecodedEntry {
  readonly entry: ChainEntry
  /** Undefined: an unknown class or method. */
  readonly call: DecodedCall | undefined
}

export interface DecodedChain {
  readonly entries: readonly DecodedEntry[]
  /** Number of entries that succeeded. */
  readonly done: number
  /** Why the next one failed: errno and sentence; undefined if all succeeded. */
  readonly error: { readonly code: string; readonly reason: string | undefined } | undefined
}

/** Whether the call carries a chain. */
export const isChain = ({ class: { id }, name }: DecodedCall): boolean => id === Interface.id && name === 'chain'

const entriesOf = (bytes: unknown): ChainEntry[] | undefined => {
  if (!(bytes instanceof Uint8Array)) return undefined
  try {
    return chainEntries(bytes)
  } catch (error) {
    if (error instanceof CallError) return undefined
    throw error
  }
}

/** Memory that attributes of entries point to, by entry and direction. */
const pointedOf = ({ call }: TraceRecord) => {
  const all = new Map<string, Map<bigint, Uint8Array>>()
  for (const [entry, way, address, bytes] of call?.pointed ?? []) {
    const key = `${entry} ${way}`
    const memory = all.get(key) ?? new Map()
    all.set(key, memory.set(BigInt(address), fromBase64(bytes)))
  }
  return (entry: number, way: 'in' | 'out') => all.get(`${entry} ${way}`)
}

/** The chain in a call; undefined if the call has none, or its bytes are invalid. */
export const decodeChain = (call: DecodedCall, maxBytes: number, record: TraceRecord): DecodedChain | undefined => {
  const requested = isChain(call) ? entriesOf(call.args.values.entries) : undefined
  if (requested === undefined) return undefined
  const { results, done, error, reason } = call.result.values
  const answered = entriesOf(results)
  const count = answered === undefined ? 0 : Number(done ?? 0)
  const pointed = pointedOf(record)
  const entries = requested.map((entry, index) => {
    const { classId, call: number, message } = entry
    const answer = index < count ? (answered?.[index]?.message ?? new Uint8Array()) : new Uint8Array()
    const memory = pointed(index, 'in')
    const written = pointed(index, 'out')
    const context = { memory, written, declared: record.call?.declared }
    return { entry, call: decodeMessages(classId, number, message, answer, maxBytes, context) }
  })
  const failed = Number(error ?? 0)
  const why = reason instanceof Uint8Array && reason.length > 0 ? new TextDecoder().decode(reason) : undefined
  return { entries, done: count, error: failed === 0 ? undefined : { code: errnoName(failed), reason: why } }
}

/** The arguments of a call without the bytes that `decodeChain` has decoded. */
const without = (shown: ShownValues, ...names: readonly string[]): ShownValues => ({
  ...shown,
  values: Object.fromEntries(Object.entries(shown.values).filter(([name]) => !names.includes(name))),
})
export const plainArgs = (call: DecodedCall): ShownValues => without(call.args, 'entries')
export const plainResult = (call: DecodedCall): ShownValues => without(call.result, 'results', 'error', 'reason')

// ---- as text ----

const listText = (texts: readonly string[], all: number): string =>
  `[${[...texts, ...(all > texts.length ? [`… ${all - texts.length} more`] : [])].join(', ')}]`

const entryText = ({ entry, call }: DecodedEntry, style: Style): string => {
  if (call === undefined) {
    return `(class ${entry.classId}, call ${entry.call}, ${bytesText(entry.message, style.bytes)})`
  }
  const object = objectOf(call)
  const target =
    entry.ref !== undefined ? [`object entry ${entry.ref}`] : object === undefined ? [] : [`object ${object}`]
  const args = attributesText(call.in, call.args, style)
  return `${call.class.name}.${call.name}(${[...target, ...args, ...call.args.rest].join(', ')})`
}

const resultText = ({ call }: DecodedEntry, style: Style): string => {
  if (call === undefined) return '?'
  const object = createdOf(call)
  const out = attributesText(call.out as Attributes, call.result, style)
  const parts = [...(object === undefined ? [] : [`object ${object}`]), ...out, ...call.result.rest]
  return `{${parts.join(', ')}}`
}

/** `entries [pd.create(), mr.create(pd entry 0, …)]` */
export const chainCallText = ({ entries }: DecodedChain, style: Style): string => {
  const shown = entries.slice(0, style.records).map(entry => entryText(entry, style))
  return `entries ${listText(shown, entries.length)}`
}

/** `results [{object 5}, {object 6, lkey 0x2b}]`, and the failed entry. */
export const chainResultText = ({ entries, done, error }: DecodedChain, style: Style): string[] => {
  const shown = entries.slice(0, Math.min(done, style.records)).map(entry => resultText(entry, style))
  const because = error?.reason === undefined ? '' : ` (${error.reason})`
  const failed = error === undefined ? [] : [`entry ${done} ${error.code}${because}`]
  return [`results ${listText(shown, done)}`, ...failed]
}

// ---- as JSON ----

/** The entries for `JSON.stringify`, each as a call by itself. */
export const chainJson = ({ entries, done, error }: DecodedChain): Record<string, unknown>[] =>
  entries.map(({ entry, call }, index) => {
    const failed = index === done && error !== undefined
    const outcome = failed
      ? { error: error.code, ...(error.reason !== undefined && { reason: error.reason }) }
      : index >= done
        ? {}
        : { out: call === undefined ? {} : attributesJson(call.out, call.result) }
    if (call === undefined)
      return {
        undecoded: { call: entry.call, message: bytesText(entry.message, WHOLE.bytes) },
        ...outcome,
      }
    const object = entry.ref !== undefined ? { entry: entry.ref } : (objectOf(call) ?? createdOf(call))
    const undecoded = [...call.args.rest, ...call.result.rest]
    return {
      class: call.class.name,
      method: call.name,
      ...(object !== undefined && { object }),
      args: attributesJson(call.in, call.args),
      ...outcome,
      ...(undecoded.length > 0 && { undecoded }),
    }
  })
