/*
 * The stream of program events: what happens to programs and their objects, as `ProgramEvent`s in the order of their
 * times, and the events of requests, which stay calls with numbers (requests.ts), because they are the data path.
 * Producers are our own devices (tools/clients/check/), observed adapters (tools/observe/) and session files
 * (tools/replay/); consumers are the checker and recordings. Neither knows which others there are
 * (tools/events/stream.ts).
 *
 * Events have ids and handles, and no object of core: an `ObjectName` has the three fields that a consumer may read.
 */

import type { MessageValues } from '../message-layout.ts'
import {
  type FieldValue,
  type PreloadEventName,
  type PreloadEventRow,
  PreloadEvents,
  type PreloadMessageName,
} from '../preload-events.ts'
import type { Reason } from '../reason.ts'
import type { Failure } from './failures.ts'
import type { Program, Stack, Story } from './finding.ts'
import type { OmissionId } from './omissions.ts'
import type { WorkRequest } from './requests.ts'
import type { Severity } from './severity.ts'
import type { Wait } from './waits.ts'

/** An object. Its `id` is unique for the life of the process that records; handles are reused. */
export interface ObjectName {
  readonly id: number
  readonly handle: number
  readonly class: { readonly name: string }
}

/** A call on the object with the id `object` begins: the fields of `CheckedCall` that are known then. */
export interface BeginningCall {
  readonly object: number
  readonly class: string
  readonly method: string
  readonly program: Program | undefined
  readonly args: Readonly<Record<string, unknown>>
  readonly stack: Stack
  /** If a queue pair is destroyed, reset or moved to ERR: how many of its sends are not complete. Absent: unknown. */
  readonly pendingSends?: number
  /** If a queue pair is destroyed: how many of its own receives no message has taken. Absent: unknown. */
  readonly pendingReceives?: number
}

/** A call that has ended. Objects in `args` are `ObjectName`s. */
export interface CheckedCall {
  /** Microseconds. */
  readonly time: number
  /** The device's name. `deviceNumber` survives a renaming. */
  readonly device: string
  readonly deviceNumber: number
  /** The number of the context. Handles belong to a context. */
  readonly context: number
  readonly program: Program | undefined
  /** Whether the client is the TypeScript library. Absent: no. */
  readonly isLibrary?: boolean
  readonly class: string
  readonly method: string
  /** The object of the call, or the created one. Undefined: the call was refused before there was one. */
  readonly object: ObjectName | undefined
  readonly args: Readonly<Record<string, unknown>>
  readonly out: Readonly<Record<string, unknown>>
  /** Present if the call failed. */
  readonly refused?: { readonly errno: number; readonly reason: Reason }
  /**
   * `call`: the program made the call. The others destroy an object: the call that created it was rolled back
   * (`undo`), the program closed the device or ended (`close`), or the device was removed (`remove`).
   */
  readonly why: 'call' | 'undo' | 'close' | 'remove'
  /**
   * At the destroy or disconnect of an identifier of rdma_cm: the number of its queue pair (rdma_create_qp), if that
   * exists.
   */
  readonly queuePair?: number
  /** Present if `why` is `close` because a signal ended the program. */
  readonly wasKilled?: true
  readonly stack: Stack
  /** The thread (gettid) that has made the call. Absent: unknown. */
  readonly thread?: number
}

/** A program closes a device, or ends. */
export interface ContextEnd {
  readonly context: number
  /** `close`: it closes the device. `exit`: it ends by itself. `kill`: a signal has ended it. */
  readonly how: 'close' | 'exit' | 'kill'
  /**
   * By `ObjectName.id` of the queue pairs that have any: sends that are posted and not complete, once what could be
   * executed was executed (a signal: nothing is). Undefined: unknown, or told before.
   */
  readonly pendingSends: ReadonlyMap<number, number> | undefined
}

/** By what the post of a request is found (`ProgramProbes.postStack`). */
type PlacedRequest = Pick<WorkRequest, 'queue' | 'number' | 'wrId' | 'postIndex'>

export const placeOf = ({ queue, number, wrId, postIndex }: WorkRequest): PlacedRequest => ({
  queue,
  number,
  wrId,
  postIndex,
})

/** What a program waits for, with fields as in `CheckedCall`. */
export interface CheckedWait {
  readonly time: number
  readonly device: string
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly wait: Wait
  /** `wait.request` as the program has posted it. Absent: it is unknown. */
  readonly posted?: PlacedRequest
}

/** A failure, with facts about the failed request. */
export interface CheckedFailure {
  /** `time` to `program`: as in `CheckedCall`. */
  readonly time: number
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly failure: Failure
  /** The request that has failed, if it is known. */
  readonly request?: PlacedRequest
  /** The number of the peer's device. Undefined: no peer is named, or its device is not of this process. */
  readonly peerDevice: number | undefined
  /** The stack of the post of the request; absent or empty: it is looked up. */
  readonly stack?: Stack
  /** Its story until then; absent: it is made of what is known. */
  readonly story?: Story
}

/** What events of a program with a context have: `time` to `program` as in `CheckedCall`. */
interface EventOrigin {
  readonly time: number
  readonly device: string
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly stack: Stack
}

/** What a field of a message becomes, by its `FieldValue`. */
interface ResolvedValues {
  bigint: bigint
  flag: boolean
  stack: Stack
  ago: number
  signal: string
  handle: bigint
}

type Row<N extends PreloadMessageName> = (typeof PreloadEvents)[N]
type Told<N extends PreloadMessageName> = MessageValues<Row<N>['layout']>
type Column<N extends PreloadMessageName, C extends keyof PreloadEventRow> =
  Row<N> extends Record<C, infer T> ? T : Record<never, never>
type EventName<N extends PreloadMessageName, F> = F extends keyof Column<N, 'names'> ? Column<N, 'names'>[F] : F
type EventValue<N extends PreloadMessageName, F extends keyof Told<N>> = F extends keyof Column<N, 'values'>
  ? ResolvedValues[Column<N, 'values'>[F] & FieldValue]
  : F extends 'wrId'
    ? bigint
    : Told<N>[F] extends string
      ? string
      : number
type Parts<T> = { [K in keyof T]: T[K] extends readonly (infer F)[] ? F : never }[keyof T]
type PartOf<N extends PreloadMessageName> = Parts<Column<N, 'record'>> | Parts<Column<N, 'list'>>

/** The fields of an event of a preload library (`PreloadEvents` in spec/preload-events.ts). Addresses are numbers. */
type PreloadFields<N extends PreloadMessageName> = {
  readonly [F in keyof Told<N> as EventName<N, Exclude<F, 'age' | PartOf<N>>> & PropertyKey]: EventValue<N, F>
} & {
  readonly [G in keyof Column<N, 'record'>]: {
    readonly [F in keyof Told<N> & Parts<Pick<Column<N, 'record'>, G>>]: EventValue<N, F>
  }
} & { readonly [G in keyof Column<N, 'list'>]: readonly bigint[] }

type Resolve = { readonly [V in Exclude<FieldValue, 'bigint' | 'flag'>]: (value: unknown) => ResolvedValues[V] }

/** Of a message with the fields of this event. `resolve`: absent if the event needs none. */
export const preloadFields = <N extends PreloadMessageName>(
  event: N,
  message: Readonly<Record<string, unknown>>,
  resolve?: Resolve,
): { readonly event: N } & PreloadFields<N> => {
  const { layout, values = {}, names = {}, record = {}, list = {} }: PreloadEventRow = PreloadEvents[event]
  const eventValue = (name: string, isText: boolean): unknown => {
    const value = message[name]
    const kind = values[name]
    if (kind === undefined) return isText || name === 'wrId' ? value : Number(value)
    if (kind === 'flag') return value !== 0
    return kind === 'bigint' ? value : resolve?.[kind](value)
  }
  const parts = Object.fromEntries(
    layout.fields
      .filter(({ name }) => name !== 'reserved' && name !== 'age')
      .map(({ name, type }) => [names[name] ?? name, eventValue(name, type === 'bytes')]),
  )
  for (const [group, members] of Object.entries(record))
    parts[group] = Object.fromEntries(members.map(name => [name, parts[name]]))
  for (const [group, members] of Object.entries(list)) parts[group] = members.map(name => parts[name])
  for (const name of Object.values({ ...record, ...list }).flat()) delete parts[name]
  return { event, ...parts } as { readonly event: N } & PreloadFields<N>
}

/** What events of a program without a context have: `time` and `program` as in `CheckedCall`. */
type ProgramOrigin = Pick<EventOrigin, 'time' | 'program' | 'stack'>

export type UseOfGone = ProgramOrigin & PreloadFields<'usedGone'>
/** Recordings of before lack some fields. */
export type Death = ProgramOrigin &
  Pick<PreloadFields<'died'>, 'signal' | 'isInOurs'> &
  Partial<Pick<PreloadFields<'died'>, 'lastCall' | 'fault' | 'address' | 'pollStack'>>
export type MistakenBatch = EventOrigin & PreloadFields<'batchMistaken'>
export type Misorder = EventOrigin & PreloadFields<'misordered'>

/**
 * A refused call that is no method of an object. `attempt`: Linux's name of a call that could not be decoded, such as
 * `MODIFY_QP`, `class.method` of a call on a device that was removed, or the text of a call on a driver's descriptor.
 */
export interface RefusedAttempt {
  /** `time` to `program`: as in `CheckedCall`. */
  readonly time: number
  readonly device: string
  readonly deviceNumber: number
  readonly context: number
  readonly program: Program | undefined
  readonly attempt: string
  readonly errno: number
  readonly reason: Reason
  readonly stack: Stack
}

/** Without a context (rdma_cm) `context` is undefined. */
export type LibraryRefusal = Omit<EventOrigin, 'context'> & {
  readonly context: number | undefined
} & PreloadFields<'refusedByLibrary'>

/** A refused request. All but `unsignaled` are 0 if it is unknown. */
export type RequestFacts = Omit<PreloadFields<'refusedPost'>['request'], 'taken'> & { readonly taken?: number }

export interface RefusedPost extends EventOrigin, Omit<PreloadFields<'refusedPost'>, 'request'> {
  /** Absent: src/library/verbs refused the post, on a device in the same process. */
  readonly request?: RequestFacts
  /** Absent: the severity of the finding, at most 'warning'. */
  readonly severity?: Severity
}

/** A program has closed a device, or its device has changed: `gids` is the table of its first port, by index. */
interface DeviceAddresses {
  readonly device: number
  readonly gids: readonly (Uint8Array | undefined)[]
}

/** A program lends the bytes from `start` to before `end` of its memory to peers, from `time` on, in microseconds. */
interface Lending {
  readonly time: number
  /** The process; undefined: the one that runs the checker. */
  readonly pid: number | undefined
  /** The number of the lend, unique for the process. */
  readonly lend: number
  readonly start: number
  readonly end: number
  /** LendRight. */
  readonly rights: number
  /** The queue pair of the process by whose peer the bytes may be accessed; 0: by any. */
  readonly qpn: number
  /** What for; empty: nothing was said. */
  readonly label: string
  readonly stack: Stack
  /** Microseconds: the lend is over then. Absent: it is until it is taken back. */
  readonly until?: number
  /** Of bytes that are lent for reading alone: their hash (`LendHash` in spec/lends.ts). */
  readonly hash?: number
}

/** Bytes of a process: `pid`, `start` and `end` as in `Lending`. */
type Bytes = Pick<Lending, 'pid' | 'start' | 'end'>

/** A message has told its receiver of bytes of the sender's memory (docs/how-to/lent-memory.md). */
interface Advertisement extends Bytes {
  readonly time: number
  /** The number of the region's device, and its key. */
  readonly device: number
  readonly rkey: number
  /** `CoreObject.id` of the queue pair that sends the message, or gets connected with it. */
  readonly qp: number
  /** The request, or the call that has it as private data. */
  readonly message:
    | Pick<WorkRequest, 'opcode' | 'queue' | 'number' | 'wrId' | 'postIndex' | 'numbered'>
    | { readonly call: string; readonly stack: Stack }
  /** The receiver of a datagram. Absent: the peer of the queue pair gets the message. */
  readonly to?: { readonly gid: Uint8Array; readonly qpn: number }
  /** Whether peers may read the bytes. */
  readonly isReadable: boolean
}

type EventsOfPreload = { readonly [N in PreloadEventName]: EventOrigin & PreloadFields<N> }

interface ProgramEvents extends EventsOfPreload {
  calling: BeginningCall
  called: CheckedCall
  contextEnds: ContextEnd
  /** A process that has not called ibv_fork_init is about to fork. */
  forked: { readonly pid: number; readonly stack: Stack }
  /** A program has unmapped memory of the region with the id `object`. */
  unmapped: { readonly object: number }
  usedGone: UseOfGone
  /** A program has taken memory of a queue by a provider's function, so its posts may not be seen. */
  postsDirectly: { readonly pid: number; readonly name: string }
  died: Death
  /** The sanitizer of a program has said this of a device (message TOLD). */
  told: ProgramOrigin & { readonly text: string }
  batchMistaken: MistakenBatch
  misordered: Misorder
  refusedPost: RefusedPost
  refusedByLibrary: LibraryRefusal
  refusedAttempt: RefusedAttempt
  waits: CheckedWait
  failed: CheckedFailure
  /** A device has this table of GIDs now. */
  gids: DeviceAddresses
  /** A port of a device has raised an asynchronous event (`type`). */
  portEvent: DeviceAddresses & { readonly type: number }
  /** A device was removed, or has failed, with this asynchronous event. */
  deviceEvent: { readonly device: number; readonly type: number }
  /** The number of a device is another's from now on. */
  deviceAdded: { readonly device: number }
  /** The library has created an object for itself: if it stays open, that is no leak of the program. */
  internal: { readonly context: number; readonly class: string; readonly handle: number }
  /** The requests of an RC queue pair are frames of the library: whether they end is not up to the program. */
  messages: { readonly context: number; readonly handle: number }
  /** The program ends without having closed its devices. */
  exiting: object
  /** A process (of a session with this number) allows races in the bytes from `start` to before `end`. */
  benign: { readonly session: number; readonly pid: number; readonly start: number; readonly end: number }
  lent: Lending
  /** A lend is over. */
  takenBack: Pick<Lending, 'time' | 'pid' | 'lend' | 'stack'>
  /** Peers may access these bytes at any time. */
  unchecked: Bytes
  /** The bytes have a name. */
  named: Bytes & { readonly name: string }
  /** The program relies on it that no access of a peer to these bytes is outstanding. */
  expectsFinished: Bytes & Pick<Lending, 'time' | 'stack'>
  advertised: Advertisement
  /**
   * What a process has said of its memory is of no use any more; `lost`: entries that were lost, so it is not known.
   */
  lendsEnd: { readonly pid: number | undefined; readonly lost: number }
  /** Programs have written to their event logs, perhaps: time to read them (`ProgramProbes.readLog`). */
  logged: object
  /** Something could not be seen, `count` times. */
  omitted: { readonly id: OmissionId; readonly count: number }
}
export type ProgramEventName = keyof ProgramEvents

/** Without what all of them have. */
export type PreloadEvent = { [N in PreloadEventName]: { readonly event: N } & PreloadFields<N> }[PreloadEventName]

/** One event. The kinds with `time` have it in microseconds. */
export type ProgramEvent<Name extends ProgramEventName = ProgramEventName> = {
  [K in Name]: { readonly event: K } & ProgramEvents[K]
}[Name]

/** A consumer of the stream. The events of requests come to its `RequestWatcher` (requests.ts), at the same time. */
export interface ProgramConsumer {
  event(event: ProgramEvent): void
  /**
   * A peer accesses registered memory; `hi`, `lo`: its address in requests. `access`: ibv_access_flags. `qpn`: the
   * responder's. Absent: accesses are of no use.
   */
  accessed?(device: number, rkey: number, hi: number, lo: number, length: number, access: number, qpn: number): void
}
