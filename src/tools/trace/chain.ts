/*
 * Chains (R16): one call with several calls, the entries. Each entry is shown as a call, with the entries that it
 * refers to, and with its result if it was executed. Invalid chains are shown as bytes.
 */
import { Interface } from '../../spec/classes/device/interface.ts'
import { CallError, errnoName } from '../../spec/errno.ts'
import { decodeReason } from '../../spec/reason.ts'
import type { TraceRecord } from '../../spec/records.ts'
import { type ChainEntry, chainEntries } from '../../uapi/object/chain.ts'
import { bytesText } from './bytes.ts'
import { createdOf, type DecodedCall, decodeMessages, fromBase64, objectOf } from './decode.ts'
import { attributesJson, attributesText, type ShownValues, type Style, WHOLE } from './values.ts'

interface DecodedEntry {
  readonly entry: ChainEntry
  /** Undefined: an unknown class or method. */
  readonly call: DecodedCall | undefined
}

interface DecodedChain {
  readonly entries: readonly DecodedEntry[]
  /** Number of entries that succeeded. */
  readonly done: number
  /** Why entry `done` failed: errno and sentence; undefined: all succeeded. */
  readonly error: { readonly code: string; readonly reason: string | undefined } | undefined
}

const isChain = ({ class: { id }, name }: DecodedCall): boolean => id === Interface.id && name === 'chain'

/** The entries in the value of an attribute; undefined: no valid chain. */
const entriesOf = (bytes: unknown): ChainEntry[] | undefined => {
  if (!(bytes instanceof Uint8Array)) return undefined
  try {
    return chainEntries(bytes)
  } catch (error) {
    if (error instanceof CallError) return undefined
    throw error
  }
}

/** Returns a function for the memory of an entry's indirect attributes: bytes by address. */
const pointedMemoryOf = ({ call }: TraceRecord) => {
  const memories = new Map<string, Map<bigint, Uint8Array>>()
  for (const [entry, direction, address, bytes] of call?.pointed ?? []) {
    const key = `${entry} ${direction}`
    const memory = memories.get(key) ?? new Map<bigint, Uint8Array>()
    memories.set(key, memory.set(BigInt(address), fromBase64(bytes)))
  }
  return (entry: number, direction: 'in' | 'out') => memories.get(`${entry} ${direction}`)
}

/** The chain in a call; undefined: no valid chain. `maxBytes`: as for `decodeMessages`. */
export const decodeChain = (call: DecodedCall, maxBytes: number, record: TraceRecord): DecodedChain | undefined => {
  const requested = isChain(call) ? entriesOf(call.args.values.entries) : undefined
  if (requested === undefined) return undefined
  const { results, done, error, reason } = call.result.values
  const answered = entriesOf(results)
  const count = answered === undefined ? 0 : Number(done ?? 0)
  const pointedMemory = pointedMemoryOf(record)
  const entries = requested.map((entry, index) => {
    const { classId, call: number, message } = entry
    const answer = (index < count ? answered?.[index]?.message : undefined) ?? new Uint8Array()
    const memory = pointedMemory(index, 'in')
    const written = pointedMemory(index, 'out')
    const context = { memory, written, declared: record.call?.declared }
    return { entry, call: decodeMessages(classId, number, message, answer, maxBytes, context) }
  })
  const errno = Number(error ?? 0)
  const sentence =
    reason instanceof Uint8Array && reason.length > 0
      ? decodeReason(new TextDecoder().decode(reason)).text()
      : undefined
  return { entries, done: count, error: errno === 0 ? undefined : { code: errnoName(errno), reason: sentence } }
}

const withoutValues = (shown: ShownValues, ...names: readonly string[]): ShownValues => ({
  ...shown,
  values: Object.fromEntries(Object.entries(shown.values).filter(([name]) => !names.includes(name))),
})
/** Inputs and outputs of a call with a chain, without those that are shown by entry. */
export const plainArgs = (call: DecodedCall): ShownValues => withoutValues(call.args, 'entries')
export const plainResult = (call: DecodedCall): ShownValues => withoutValues(call.result, 'results', 'error', 'reason')

// ---- as text ----

export const objectText = (object: number | undefined): string[] => (object === undefined ? [] : [`object ${object}`])

/** A list of `count` elements, of which `texts` are shown. */
const listText = (texts: readonly string[], count: number): string =>
  `[${[...texts, ...(count > texts.length ? [`… ${count - texts.length} more`] : [])].join(', ')}]`

const entryText = ({ entry, call }: DecodedEntry, style: Style): string => {
  if (call === undefined) {
    return `(class ${entry.classId}, call ${entry.call}, ${bytesText(entry.message, style.bytes)})`
  }
  const target = entry.ref === undefined ? objectText(objectOf(call)) : [`object entry ${entry.ref}`]
  const args = attributesText(call.in, call.args, style)
  return `${call.class.name}.${call.name}(${[...target, ...args, ...call.args.unreadable].join(', ')})`
}

const resultText = ({ call }: DecodedEntry, style: Style): string => {
  if (call === undefined) return '?'
  const out = attributesText(call.out, call.result, style)
  const parts = [...objectText(createdOf(call)), ...out, ...call.result.unreadable]
  return `{${parts.join(', ')}}`
}

/** `entries [pd.create(), mr.create(pd entry 0, …)]` */
export const chainCallText = ({ entries }: DecodedChain, style: Style): string => {
  const shown = entries.slice(0, style.records).map(entry => entryText(entry, style))
  return `entries ${listText(shown, entries.length)}`
}

/** `results [{object 5}, {object 6, lkey 0x2b}]`, and if an entry failed `entry 2 EINVAL (…)`. */
export const chainResultText = ({ entries, done, error }: DecodedChain, style: Style): string[] => {
  const shown = entries.slice(0, Math.min(done, style.records)).map(entry => resultText(entry, style))
  const reasonText = error?.reason === undefined ? '' : ` (${error.reason})`
  const failed = error === undefined ? [] : [`entry ${done} ${error.code}${reasonText}`]
  return [`results ${listText(shown, done)}`, ...failed]
}

// ---- as JSON ----

/** The result of entry `index`; empty: the entry was not executed. */
const outcomeJson = ({ entries, done, error }: DecodedChain, index: number): Record<string, unknown> => {
  if (index === done && error !== undefined)
    return { error: error.code, ...(error.reason !== undefined && { reason: error.reason }) }
  if (index >= done) return {}
  const call = entries[index]?.call
  return { out: call === undefined ? {} : attributesJson(call.out, call.result) }
}

/** The entries for `JSON.stringify`, each as a call. */
export const chainJson = (chain: DecodedChain): Record<string, unknown>[] =>
  chain.entries.map(({ entry, call }, index) => {
    const outcome = outcomeJson(chain, index)
    if (call === undefined)
      return {
        undecoded: { call: entry.call, message: bytesText(entry.message, WHOLE.bytes) },
        ...outcome,
      }
    // Of a create: the new object.
    const ownObject = objectOf(call) ?? createdOf(call)
    const object = entry.ref === undefined ? ownObject : { entry: entry.ref }
    const undecoded = [...call.args.unreadable, ...call.result.unreadable]
    return {
      class: call.class.name,
      method: call.name,
      ...(object !== undefined && { object }),
      args: attributesJson(call.in, call.args),
      ...outcome,
      ...(undecoded.length > 0 && { undecoded }),
    }
  })
