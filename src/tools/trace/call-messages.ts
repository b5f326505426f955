/*
 * A call as message and answer of the object dialect: the contents of a trace record (spec/records.ts). Any call has
 * one, of whatever dialect, and of the library in its own process.
 */
import { Interface } from '../../spec/classes/device/interface.ts'
import { AttributeFlag } from '../../spec/classes/ids.ts'
import { Classes } from '../../spec/classes.ts'
import { knownAdditions } from '../../spec/drivers/known.ts'
import { CallError } from '../../spec/errno.ts'
import type { Declaration, TraceRecord } from '../../spec/records.ts'
import type { AnyValue, Attributes, Method, ObjectClass } from '../../spec/schema/schema.ts'
import type { Call, CallerView, Result } from '../../uapi/call.ts'
import { type ChainEntry, chainEntries } from '../../uapi/object/chain.ts'
import { encodeCall, type OutputBuffer } from '../../uapi/object/client.ts'
import { decodeMessage } from '../../uapi/object/dialect.ts'
import { INDIRECT_BYTES, methodByCall, payloadOf } from '../../uapi/object/format.ts'
import { viewOf } from '../../uapi/scalar.ts'
import { itemsOf } from './message.ts'

/** Maximum bytes of a value in the message. Longer values are in `memory` of the record. */
const MAX_INLINE = 4096

export const base64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')
export const hexAddress = (address: bigint): string => `0x${address.toString(16)}`

/** A read ('in') or write ('out') of the program's memory by a call. */
export interface Access {
  readonly direction: 'in' | 'out'
  readonly address: bigint
  readonly bytes: Uint8Array
}

// ---- methods of drivers ----

const commonClasses: Readonly<Record<string, ObjectClass | undefined>> = Classes
/** Results of `isKnown`. Classes may share a method, and devices may have their own versions of a class's method. */
const knownMethods = new WeakMap<ObjectClass, WeakMap<Method, boolean>>()

/** Whether tools that read records know the method with all its attributes. */
const isKnown = (cls: ObjectClass, name: string, method: Method): boolean => {
  const methods = knownMethods.get(cls) ?? new WeakMap<Method, boolean>()
  let known = methods.get(method)
  if (known === undefined) {
    const commonMethod = commonClasses[cls.name]?.id === cls.id ? commonClasses[cls.name]?.methods[name] : undefined
    const added = knownAdditions[cls.name]?.[name]
    const inputs = { ...commonMethod?.in, ...added?.in }
    const outputs = { ...commonMethod?.out, ...added?.out }
    known =
      commonMethod !== undefined &&
      Object.keys(method.in).every(attribute => inputs[attribute] === method.in[attribute]) &&
      Object.keys(method.out).every(attribute => outputs[attribute] === method.out[attribute])
    knownMethods.set(cls, methods.set(method, known))
  }
  return known
}

/** The entries of a chain; empty for other calls, and for a chain that cannot be read. */
const entriesOf = ({ class: cls, methodName, args }: Call): readonly ChainEntry[] => {
  if (cls.id !== Interface.id || methodName !== 'chain') return []
  return undefinedIfRefused(() => chainEntries((args.entries ?? new Uint8Array()) as Uint8Array)) ?? []
}

/** Declarations of the methods that tools do not know, in a call and its chain. */
const declarationsOf = (view: CallerView, called: Call): Declaration[] => {
  const found = new Map<string, Declaration>()
  const add = (declaring: ObjectClass, name: string, method: Method): void => {
    if (isKnown(declaring, name, method)) return
    const { id: classId, name: className, identity } = declaring
    const declaration = {
      classId,
      class: className,
      identity,
      call: method.call,
      method: name,
      in: method.in,
      out: method.out,
    }
    found.set(`${classId} ${method.call}`, declaration)
  }
  add(called.class, called.methodName, called.method)
  for (const { call, classId } of entriesOf(called)) {
    const target = view.schema.classById(classId)
    const named = target && methodByCall(target, call)
    if (target !== undefined && named !== undefined) add(target, named.name, named.method)
  }
  return [...found.values()]
}

// ---- chains ----

type IndirectValue = NonNullable<NonNullable<TraceRecord['call']>['pointed']>[number]

const placeOf = ({ direction, address }: Pick<Access, 'direction' | 'address'>): string => `${direction} ${address}`

/** By direction and address: the indices of the accesses, the first access last. */
const indicesByPlace = (accesses: readonly Access[]): ReadonlyMap<string, number[]> => {
  const indices = new Map<string, number[]>()
  for (let at = accesses.length - 1; at >= 0; at--) {
    const place = placeOf(accesses[at]!)
    const atPlace = indices.get(place)
    if (atPlace === undefined) indices.set(place, [at])
    else atPlace.push(at)
  }
  return indices
}

/**
 * The memory to which indirect attributes of a chain's entries point. `done`: number of entries that succeeded. Entries
 * run in order, so an entry's accesses come after the accesses of earlier entries.
 */
const indirectMemory = (call: Call, done: number, accesses: readonly Access[]): IndirectValue[] => {
  const found: IndirectValue[] = []
  // The next entry failed, but may have read its inputs.
  const entries = entriesOf(call).slice(0, done + 1)
  if (entries.length === 0) return found
  const indices = indicesByPlace(accesses)
  /** Index of the first access after the accesses of earlier entries. */
  let first = 0
  for (const [index, { message }] of entries.entries()) {
    const view = viewOf(message)
    let next = first
    for (const { flags, payload, length } of itemsOf(message).items) {
      if ((flags & AttributeFlag.INDIRECT) === 0 || length < INDIRECT_BYTES) continue
      const direction = (flags & AttributeFlag.OUT) === 0 ? 'in' : 'out'
      const address = view.getBigUint64(payload, true)
      // Each access is recorded for one attribute. Otherwise one call whose attributes, even unknown ones, all have the
      // same address would make a record of gigabytes.
      const remaining = indices.get(placeOf({ direction, address })) ?? []
      let at = remaining.pop()
      while (at !== undefined && at < first) at = remaining.pop()
      if (at === undefined) continue
      found.push([index, direction, hexAddress(address), base64(accesses[at]!.bytes)])
      next = Math.max(next, at + 1)
    }
    first = next
  }
  return found
}

// ---- messages ----

/** The result of `body`; undefined if it throws a CallError. */
const undefinedIfRefused = <T>(body: () => T): T | undefined => {
  try {
    return body()
  } catch (error) {
    if (error instanceof CallError) return undefined
    throw error
  }
}

/**
 * Functions for values outside the message. `assignAddress` puts bytes into `memory` at the next page from 0x1000 on: a
 * record has its own addresses, not the program's. `payloads` encodes the lists and blobs among the values.
 */
const indirectValues = (memory: Map<bigint, Uint8Array>) => {
  let next = 0x1000n
  const assignAddress = (bytes: Uint8Array): bigint => {
    const address = next
    memory.set(address, bytes)
    next += BigInt(bytes.length + 0xfff) & ~0xfffn
    return address
  }
  const payloads = (attributes: Attributes, values: Readonly<Record<string, AnyValue | undefined>>) =>
    Object.entries(attributes).flatMap(([name, { type }]): [string, Uint8Array][] => {
      const value = type.kind === 'blob' || type.kind === 'list' ? values[name] : undefined
      return value === undefined ? [] : [[name, payloadOf(type, value)]]
    })
  return { assignAddress, payloads }
}

/**
 * The messages of a call, with all values. A message is empty if it cannot be encoded, because the call was refused.
 * `accesses`: the memory that the call read and wrote, for entries of a chain.
 */
export const messagesOf = (
  view: CallerView,
  call: Call,
  outcome: Result | CallError,
  accesses: readonly Access[] = [],
): NonNullable<TraceRecord['call']> => {
  const declared = declarationsOf(view, call)
  const done = outcome instanceof CallError ? 0 : Number(outcome.out.done ?? 0)
  const pointed = indirectMemory(call, done, accesses)
  const ids = {
    classId: call.class.id,
    call: call.method.call,
    ...(declared.length > 0 && { declared }),
    ...(pointed.length > 0 && { pointed }),
  }
  const memory = new Map<bigint, Uint8Array>()
  const { assignAddress, payloads } = indirectValues(memory)
  const recordView: CallerView = {
    ...view,
    hasContext: true,
    copyIn: address => memory.get(address) ?? new Uint8Array(),
    copyOut: (address, bytes) => {
      memory.set(address, bytes)
    },
  }
  const encoded = undefinedIfRefused(() => {
    const long = payloads(call.method.in, call.args).filter(([, bytes]) => bytes.length > MAX_INLINE)
    const inputAddresses = Object.fromEntries(long.map(([name, bytes]) => [name, assignAddress(bytes)]))
    const out = outcome instanceof CallError ? {} : outcome.out
    const outputBuffers = payloads(call.method.out, out).map(([name, bytes]): [string, OutputBuffer] => [
      name,
      bytes.length > MAX_INLINE ? { address: assignAddress(bytes), length: bytes.length } : bytes.length,
    ])
    return encodeCall(call, { inputAddresses, outputBuffers: Object.fromEntries(outputBuffers) })
  })
  if (encoded === undefined) return { ...ids, message: '', answer: '' }
  const message = base64(encoded)
  // The answer overwrites bytes of the message, which is encoded as text above.
  const answered =
    outcome instanceof CallError
      ? undefined
      : undefinedIfRefused(() => decodeMessage(recordView, call.method.call, encoded).answer(outcome).message)
  const longValues = [...memory].map(([address, bytes]) => [hexAddress(address), base64(bytes)] as const)
  return {
    ...ids,
    message,
    answer: answered === undefined ? '' : base64(answered),
    ...(longValues.length > 0 && { memory: longValues }),
  }
}
