/*
 * What a traced call says, in the object dialect: its message and its answer, whatever dialect it came in, with values
 * that are too long for a message beside it. And the memory of the program that a dialect has read and written.
 */
import { Interface } from '../spec/classes/interface.ts'
import { Classes } from '../spec/classes.ts'
import { RxeAttributes } from '../spec/drivers/rxe.ts'
import { CallError } from '../spec/errno.ts'
import type { AnyValue, Attributes, Method, ObjectClass } from '../spec/schema.ts'
import type { Call, CallerView, Result } from '../uapi/call.ts'
import { chainEntries } from '../uapi/chain.ts'
import { decodeMessage } from '../uapi/object.ts'
import { encodeCall, type OutputRoom } from '../uapi/object-client.ts'
import { methodByCall, payloadOf } from '../uapi/object-format.ts'
import type { Declaration, RawPiece, TraceRecord } from '../uapi/tool.ts'

/** Longer values stand beside the message. */
const LONG = 4096
/** Most bytes that are shown of one piece of memory. */
const MOST_RAW = 16384

const base64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')
const hex = (address: bigint): string => `0x${address.toString(16)}`

// ---- methods of drivers ----

const driverAttributes: Readonly<Record<string, Readonly<Record<string, { in?: Attributes; out?: Attributes }>>>> =
  RxeAttributes
const common: Readonly<Record<string, ObjectClass | undefined>> = Classes
const knownMethods = new WeakMap<Method, boolean>()

/** Whether whoever reads a record knows the method as the device has it. */
const isKnown = (cls: ObjectClass, name: string, method: Method): boolean => {
  let known = knownMethods.get(method)
  if (known === undefined) {
    const own = common[cls.name]?.id === cls.id ? common[cls.name]?.methods[name] : undefined
    const added = driverAttributes[cls.name]?.[name]
    const inputs = { ...own?.in, ...added?.in }
    const outputs = { ...own?.out, ...added?.out }
    known =
      own !== undefined &&
      Object.keys(method.in).every(one => inputs[one] !== undefined) &&
      Object.keys(method.out).every(one => outputs[one] !== undefined)
    knownMethods.set(method, known)
  }
  return known
}

/** The methods of a call and of the chain in it that are a driver's own. */
const declarationsOf = (view: CallerView, { class: cls, methodName, method, args }: Call): Declaration[] => {
  const found = new Map<string, Declaration>()
  const add = (one: ObjectClass, name: string, of: Method): void => {
    if (isKnown(one, name, of)) return
    const { id: classId, name: className, identity } = one
    const declaration = { classId, class: className, identity, call: of.call, method: name, in: of.in, out: of.out }
    found.set(`${classId} ${of.call}`, declaration)
  }
  add(cls, methodName, method)
  const entries = cls.id === Interface.id && methodName === 'chain' ? args.entries : undefined
  for (const { call, classId } of orNone(() => chainEntries((entries ?? new Uint8Array()) as Uint8Array)) ?? []) {
    const one = view.schema.classById(classId)
    const named = one === undefined ? undefined : methodByCall(one, call)
    if (one !== undefined && named !== undefined) add(one, named.name, named.method)
  }
  return [...found.values()]
}

// ---- messages ----

/** Undefined for what a CallError refuses. */
const orNone = <T>(body: () => T): T | undefined => {
  try {
    return body()
  } catch (error) {
    if (error instanceof CallError) return undefined
    throw error
  }
}

/** Values that do not fit a message, at addresses made up for them. */
const beside = (memory: Map<bigint, Uint8Array>) => {
  let next = 0x1000n
  const place = (bytes: Uint8Array): bigint => {
    const address = next
    memory.set(address, bytes)
    next += BigInt(bytes.length + 0xfff) & ~0xfffn
    return address
  }
  const payloads = (attributes: Attributes, values: Readonly<Record<string, AnyValue | undefined>>) =>
    Object.entries(attributes).flatMap(([name, { of }]): [string, Uint8Array][] => {
      const value = of.kind === 'blob' || of.kind === 'list' ? values[name] : undefined
      return value === undefined ? [] : [[name, payloadOf(of, value)]]
    })
  return { place, payloads }
}

/**
 * The call of a record: its messages with all of its values. What does not encode (a refused value) is told without
 * them.
 */
export const messagesOf = (
  view: CallerView,
  call: Call,
  outcome: Result | CallError,
): NonNullable<TraceRecord['call']> => {
  const declared = declarationsOf(view, call)
  const ids = { classId: call.class.id, call: call.method.call, ...(declared.length > 0 && { declared }) }
  const memory = new Map<bigint, Uint8Array>()
  const { place, payloads } = beside(memory)
  const own: CallerView = {
    ...view,
    hasContext: true,
    copyIn: address => memory.get(address) ?? new Uint8Array(),
    copyOut: (address, bytes) => {
      memory.set(address, bytes)
    },
  }
  const encoded = orNone(() => {
    const long = payloads(call.method.in, call.args).filter(([, bytes]) => bytes.length > LONG)
    const elsewhere = Object.fromEntries(long.map(([name, bytes]) => [name, place(bytes)]))
    const out = outcome instanceof CallError ? {} : outcome.out
    const rooms = payloads(call.method.out, out).map(([name, bytes]): [string, OutputRoom] => [
      name,
      bytes.length > LONG ? { address: place(bytes), length: bytes.length } : bytes.length,
    ])
    return encodeCall(call, { elsewhere, rooms: Object.fromEntries(rooms) })
  })
  if (encoded === undefined) return { ...ids, message: '', answer: '' }
  const message = base64(encoded)
  // The answer is put into the message's bytes.
  const answered =
    outcome instanceof CallError
      ? undefined
      : orNone(() => decodeMessage(own, call.method.call, encoded).answer(outcome).message)
  const more = [...memory].map(([address, bytes]) => [hex(address), base64(bytes)] as const)
  return {
    ...ids,
    message,
    answer: answered === undefined ? '' : base64(answered),
    ...(more.length > 0 && { memory: more }),
  }
}

/** Bytes as they were at the time, and how many. */
type Piece = readonly [bytes: Uint8Array, length: number]
const pieceOf = (bytes: Uint8Array): Piece => [bytes.slice(0, MOST_RAW), bytes.length]

const pieces = (memory: ReadonlyMap<bigint, Piece>): RawPiece[] =>
  [...memory].map(([address, [bytes, length]]) => [hex(address), base64(bytes), length])

/** A caller's view that keeps what is read and written through it. */
export interface RecordingView {
  readonly view: CallerView
  raw(): NonNullable<TraceRecord['raw']>
}

export const recordingView = (view: CallerView): RecordingView => {
  const read = new Map<bigint, Piece>()
  const written = new Map<bigint, Piece>()
  return {
    view: {
      schema: view.schema,
      classOf: handle => view.classOf(handle),
      chained: view.chained,
      get hasContext() {
        return view.hasContext
      },
      copyIn: (address, length) => {
        const bytes = view.copyIn(address, length)
        // A message is read twice: how long it is, then all of it; and its answer is made in these bytes.
        if ((read.get(address)?.[1] ?? 0) <= bytes.length) read.set(address, pieceOf(bytes))
        return bytes
      },
      copyOut: (address, bytes) => {
        view.copyOut(address, bytes)
        written.set(address, pieceOf(bytes))
      },
    },
    raw: () => ({ in: pieces(read), out: pieces(written) }),
  }
}
