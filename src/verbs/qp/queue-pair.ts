/*
 * Queue pairs in the library: what all types share. A type's own file says what it can post and how it is connected.
 *
 * Posting writes a request into a slot of the shared ring and moves an index; the device is told of all that was posted
 * in one go. Requests are named by a number of the caller's that their completions carry.
 *
 * A program may have very many queue pairs (R15): one holds its own few fields, its methods are those of its type's
 * table, and a ring is looked for when something is posted there first.
 */
import type { QpAttributeName, qpMethods } from '../../spec/classes/qp.ts'
import { QpFlags, QpState } from '../../spec/enums.ts'
import type { AnyValues, In, ObjectClass, Out } from '../../spec/schema/schema.ts'
import { SendFlags } from '../../spec/work.ts'
import type { Answered, Carrier, RingPlace } from '../carrier.ts'
import { checkRecord, type Words } from '../checks/options.ts'
import { checkId, checkLocal } from '../checks/request-checks.ts'
import { checkRequestOptions, type SendOptions } from '../checks/request-options.ts'
import { detached, invalidArgument, type RdmaError, refused } from '../error.ts'
import { isSliceOf, type Slice } from '../mr/region.ts'
import {
  checkOwn,
  type DeviceContext,
  eventSource,
  type HeldObject,
  type Named,
  type PathFacts,
  type Plan,
  type Reference,
} from '../plan.ts'
import {
  nextSlot,
  offsetOf,
  outstandingRequests,
  type ProgramRing,
  placeAt,
  produce,
  restart,
  ringOrNone,
} from '../ring.ts'
import { assignMethods, destroyed, guardedTable, mergeTables, shownAs } from '../shared-methods.ts'
import { orElse } from '../show.ts'
import {
  type ConnectOptions,
  combineSteps,
  type Endpoint,
  firstPsn,
  type PeerOptions,
  qpOptions,
} from './connection.ts'
import { putInline, putMany, putOne, putReceive, putSend } from './requests.ts'

/** Bytes that a request sends: registered ones, several pieces of them, or any few bytes, which are copied (inline). */
export type Local = Slice | readonly Slice[] | Uint8Array

export interface SendQueueOptions {
  readonly sendCq: Reference<'cq'>
  /** Requests that can be posted at once; default 16. */
  readonly maxSendWr?: number
  /** Pieces of one request; default 1. */
  readonly maxSendSge?: number
  /** Bytes that can be sent inline; default 64. */
  readonly maxInlineData?: number
  /** Every send makes a completion, whatever `signaled` says. */
  readonly signalAll?: boolean
}

export interface QueuePairOptions extends SendQueueOptions {
  /** Default: the same as `sendCq`. */
  readonly recvCq?: Reference<'cq'>
  /** Receive requests come from there; the queue pair has no receive queue of its own. */
  readonly srq?: Reference<'srq'>
  /** Requests that can be posted at once; default 16. */
  readonly maxRecvWr?: number
  /** Pieces of one request; default 1. */
  readonly maxRecvSge?: number
}

export const sendQueueWords: Words<SendQueueOptions> = {
  sendCq: true,
  maxSendWr: true,
  maxSendSge: true,
  maxInlineData: true,
  signalAll: true,
}
export const queuePairWords: Words<QueuePairOptions> = {
  ...sendQueueWords,
  recvCq: true,
  srq: true,
  maxRecvWr: true,
  maxRecvSge: true,
}

/** What a creation has beside. */
type OwnArgument = 'pd' | 'sendCq' | 'recvCq' | 'cap' | 'flags' | 'userHandle' | 'asyncFd' | 'srq' | 'xrcd' | 'qpNum'

/**
 * Attributes with which a queue pair is made right in a state (R7): `state`, and what the steps to it take. All of it
 * is done with the creation, or nothing is made.
 */
export type Initial<C extends ObjectClass> = Omit<In<C['methods']['create']>, OwnArgument | 'state'> & {
  readonly state?: QpStateName | number
}

export interface InitialOptions<C extends ObjectClass> {
  readonly initial?: Initial<C>
}

/** Methods and attributes that every type has. */
type AnyQpClass = ObjectClass<ReturnType<typeof qpMethods<QpAttributeName>>>

export type QpStateName = keyof typeof QpState.values

/** Attributes of a type, of which the state may have its name. */
export type Modification<C extends ObjectClass> = Omit<In<C['methods']['modify']>, 'state'> & {
  readonly state?: QpStateName | number
}

const { values: states } = QpState

/** The same with the state's number. */
const withStateNumber = <A extends object>(args: A): A => {
  const { state } = args as { readonly state?: unknown }
  return typeof state === 'string' && Object.hasOwn(states, state)
    ? { ...args, state: states[state as QpStateName] }
    : args
}

/** What all queue pairs have, those without queues too. */
export interface BareQueuePair<C extends ObjectClass = AnyQpClass> extends Disposable {
  readonly handle: number
  readonly qpn: number
  readonly state: QpStateName
  query(): Out<C['methods']['query']>
  /**
   * Changes attributes, `state` among them ('RESET' … or its number), as the type's state machine allows. Throws
   * RdmaError EINVAL for what it does not allow.
   */
  modify(args: Modification<C>): void
  close(): void
}

export interface SendingQueuePair<C extends ObjectClass = AnyQpClass> extends BareQueuePair<C> {
  /** Sends that the device has not finished. */
  readonly pending: number
  /** The largest inline payload, bytes. */
  readonly maxInlineData: number
}

export interface QueuePair<C extends ObjectClass = AnyQpClass> extends SendingQueuePair<C> {
  /**
   * Offers a buffer for the next message that comes; none for messages without bytes. Throws RdmaError ENOMEM when the
   * queue is full, EINVAL for a queue pair that takes from a shared queue.
   */
  receive(local?: Slice | readonly Slice[], id?: number): void
}

const { SIGNALED, SOLICITED, FENCE, INLINE } = SendFlags.values
const stateNames = Object.keys(QpState.values) as QpStateName[]
/** Where the flags of an XRC request have the number of the receiver's shared queue. */
const SRQN_SHIFT = 8

const flagsOf = (options: (SendOptions & { readonly srqNumber?: number }) | undefined): number =>
  options === undefined
    ? SIGNALED
    : (options.signaled === false ? 0 : SIGNALED) |
      (options.solicited === true ? SOLICITED : 0) |
      (options.fence === true ? FENCE : 0) |
      (options.srqNumber === undefined ? 0 : options.srqNumber << SRQN_SHIFT)

/** There is no room for a request; of a queue that was made without any, or whose driver has no rings, never. */
export const throwQueueFull = (call: string, queue: 'send' | 'receive', depth: number): RdmaError => {
  const option = queue === 'send' ? 'maxSendWr' : 'maxRecvWr'
  if (depth === 0)
    return refused('ENOMEM', call, `there is no ${queue} queue`, `ask for ${option}; a driver may have none to post to`)
  const hint = `${queue === 'send' ? 'take completions first, or ' : ''}ask for a larger ${option}`
  return refused('ENOMEM', call, `the ${queue} queue is full: ${depth} requests are outstanding`, hint)
}

export const throwTooManySges = (call: string, sges: number, most: number): RdmaError =>
  invalidArgument(call, `${sges} scatter/gather elements, at most ${most} are possible`)

/** What a queue pair holds; where there are no queues it is only half of this. */
export interface QpFields extends HeldObject {
  readonly qpn: number
  /** Its number among what has events. */
  readonly number: number
  /**
   * Where its rings lie, by `offsetOf`; and the rings themselves, once something was posted and as long as more may be:
   * posting looks at nothing else. That of sends is there in RTS and beyond only.
   */
  readonly sendAt: number
  readonly sendSize: number
  readonly receiveAt: number
  readonly receiveSize: number
  sends: ProgramRing | undefined
  receives: ProgramRing | undefined
  readonly maxInlineData: number
  readonly maxSendSge: number
  /** -1: it takes from a shared queue. */
  readonly maxRecvSge: number
  /** Connected: the first packet sequence number that it sends. Datagrams: the Q_Key. */
  psn: number
  qkey: number
}

/** What the methods of a table find in `this`: the fields of one queue pair, and the class in the table. */
export interface QpSelf extends QpFields {
  readonly cls: ObjectClass
  /** What requests of the type may say (`RequestWords`). */
  readonly words: number
}

/** Nobody looks at a ring of a device that is gone, and its memory may be another's: nothing is written there. */
export const checkDevicePresent = (call: string, { waiters }: DeviceContext): void => {
  if (waiters.over) throw refused('EIO', call, 'the device is closed or gone')
}

/** That `self` is a queue pair of a device that is there, and open. */
const checkUsable = (call: string, self: QpSelf | undefined): void => {
  if (self?.kit === undefined) throw detached(call)
  checkDevicePresent(call, self.kit)
  if (!self.isOpen) throw invalidArgument(call, 'the queue pair is closed')
}

/** The ring of sends, for the first request in RTS: earlier ones would be kept without a word. */
const openSends = (self: QpSelf, call: string): ProgramRing => {
  checkUsable(call, self)
  const { carrier } = self.kit
  const { state } = carrier.call(self.cls as AnyQpClass, 'query', self.handle, {}).out
  if (state < QpState.values.RTS)
    throw invalidArgument(
      call,
      `the queue pair is in ${stateNames[state]}: it cannot send`,
      'connect or activate it first',
    )
  self.sends = ringOrNone(carrier, placeAt(self.sendAt, self.sendSize))
  return self.sends
}

const openReceives = (self: QpSelf): ProgramRing => {
  checkUsable('qp.receive', self)
  if (self.maxRecvSge < 0)
    throw invalidArgument('qp.receive', 'it takes from a shared receive queue', 'post to that one, with srq.receive()')
  self.receives = ringOrNone(self.kit.carrier, placeAt(self.receiveAt, self.receiveSize))
  return self.receives
}

const releaseAt = (carrier: Carrier, at: number, size: number): void => {
  const place = placeAt(at, size)
  if (place !== undefined) carrier.release(place)
}

/** What is mapped is given back, and nobody posts any more to what may be another's by now. */
const releaseSends = (self: QpSelf): void => {
  if (self.sends !== undefined) releaseAt(self.kit.carrier, self.sendAt, self.sendSize)
  self.sends = undefined
}

/** What needs no queues: query, modify, destroy. */
export const bareMethods: Omit<BareQueuePair, 'handle' | 'qpn'> & ThisType<QpSelf> = {
  get state() {
    const { kit, cls, handle } = this as unknown as QpSelf
    return stateNames[kit.carrier.call(cls as AnyQpClass, 'query', handle, {}).out.state]!
  },
  query() {
    return this.kit.carrier.call(this.cls as AnyQpClass, 'query', this.handle, {}).out
  },
  modify(changes) {
    checkRecord(`${this.cls.name}.modify`, 'attributes', changes, "it is an object, { state: 'RESET' } for example")
    const args = withStateNumber(changes) as In<AnyQpClass['methods']['modify']>
    this.kit.carrier.call(this.cls as AnyQpClass, 'modify', this.handle, args)
    const { state } = args
    if (state !== undefined && state < QpState.values.RTS) releaseSends(this)
    if (state === QpState.values.RESET && this.receives !== undefined) restart(this.receives)
  },
  close() {
    if (!destroyed(this, this.cls)) return
    const { carrier, waiters } = this.kit
    waiters.remove(this.number)
    releaseSends(this)
    if (this.receives !== undefined) releaseAt(carrier, this.receiveAt, this.receiveSize)
    this.receives = undefined
  },
  [Symbol.dispose]() {
    ;(this as unknown as Disposable & { close(): void }).close()
  },
}

/** What has a send queue and a receive queue. */
export const queueMethods: Pick<QueuePair, 'pending' | 'receive'> & ThisType<QpSelf> = {
  get pending() {
    const { sends } = this as unknown as QpSelf
    return sends === undefined ? 0 : outstandingRequests(sends)
  },
  receive(local, id = 0) {
    const ring = this?.receives ?? openReceives(this)
    const at = nextSlot(ring)
    if (at < 0) throw throwQueueFull('qp.receive', 'receive', ring.capacity)
    if (Array.isArray(local) && local.length > this.maxRecvSge)
      throw throwTooManySges('qp.receive', local.length, this.maxRecvSge)
    if (id !== 0) checkId('qp.receive', id)
    if (local !== undefined && !isSliceOf(local, this.kit)) checkLocal('qp.receive', this.kit, local)
    putReceive(ring, at, id, local)
    produce(ring)
    this.kit.carrier.posted(this.handle)
  },
}

/** What requests of its type may say. */
const wordsOf = (self: QpSelf | undefined, call: string): number => {
  if (self?.kit === undefined) throw detached(call)
  return self.words
}

/** Bytes of a request that are no slice made by `mr.slice()` of this device: inline, several slices, copies, or none. */
const putOther = (self: QpSelf, call: string, at: number, local: Exclude<Local, Slice> | undefined): void => {
  const ring = self.sends as ProgramRing
  if (local instanceof Uint8Array) {
    if (local.length > self.maxInlineData)
      throw invalidArgument(
        call,
        `${local.length} bytes inline, at most ${self.maxInlineData} are possible`,
        'register the buffer and send a slice of it, or ask for a larger maxInlineData',
      )
    putInline(ring, at, local)
    return
  }
  if (Array.isArray(local) && local.length > self.maxSendSge)
    throw throwTooManySges(call, local.length, self.maxSendSge)
  if (local !== undefined) checkLocal(call, self.kit, local)
  putMany(ring, at, local)
}

/**
 * A slot of the send queue with the common part of a request written; throws RdmaError ENOMEM when the queue is full.
 * The ring is `sends` of the queue pair, and the request is whole with `endRequest`. `words`: what its options may say,
 * if the type has it.
 */
export const beginRequest = (
  self: QpSelf,
  call: string,
  opcode: number,
  local: Local | undefined,
  options: SendOptions | undefined,
  words: number,
): number => {
  if (options !== undefined) checkRequestOptions(call, options, words & wordsOf(self, call))
  const ring = self?.sends ?? openSends(self, call)
  const at = nextSlot(ring)
  if (at < 0) throw throwQueueFull(call, 'send', ring.capacity)
  const isInline = local instanceof Uint8Array
  putSend(ring, at, opcode, options?.id ?? 0, isInline ? flagsOf(options) | INLINE : flagsOf(options))
  if (!isInline && isSliceOf(local, self.kit)) putOne(ring, at, local)
  else putOther(self, call, at, local as Exclude<Local, Slice> | undefined)
  return at
}

/** The request that was begun is whole. */
export const endRequest = ({ sends, kit, handle }: QpSelf): void => {
  produce(sends as ProgramRing)
  kit.carrier.posted(handle)
}

/** Names of the types, as interfaces have them. */
const typeNames: Readonly<Record<string, string>> = {
  rc_qp: 'RcQueuePair',
  uc_qp: 'UcQueuePair',
  ud_qp: 'UdQueuePair',
  gsi_qp: 'GsiQueuePair',
  smi_qp: 'SmiQueuePair',
  xrc_ini_qp: 'XrcInitiator',
  xrc_tgt_qp: 'XrcTarget',
}

/** What is shown of a queue pair. */
export const showQueuePair = (methods: object, { name }: ObjectClass): void =>
  shownAs<QpSelf>(methods, typeNames[name] ?? name, ({ kit, handle, qpn, cls, sends, receives }) => {
    const query = () => kit.carrier.call(cls as AnyQpClass, 'query', handle, {}).out
    const { state, destQpn } = orElse<Partial<ReturnType<typeof query>>>(query, {})
    return {
      handle,
      qpn,
      state: state === undefined ? undefined : stateNames[state],
      ...(destQpn !== undefined && destQpn !== 0 && { peerQpn: destQpn }),
      ...(sends !== undefined && { pendingSends: outstandingRequests(sends) }),
      ...(receives !== undefined && { pendingReceives: outstandingRequests(receives) }),
    }
  })

type Made = Out<AnyQpClass['methods']['create']> & { readonly sendQueue?: RingPlace; readonly recvQueue?: RingPlace }

/** A table of methods: the class, and for types that are connected the steps to a peer, as `modify` takes them. */
interface MethodTable {
  readonly cls: ObjectClass
  readonly stepsTo?: (path: PathFacts, psn: number, peer: Endpoint) => readonly object[]
}

/** What the library knows of a type with queues. */
interface QueuePairType<T> extends MethodTable {
  /** What makes one, as sentences name it. */
  readonly call: string
  /** Whether the type has a receive queue. */
  readonly hasReceives: boolean
  /** `shared`: this one has none of its own. */
  readonly Made: new (
    kit: DeviceContext,
    number: number,
    answered: Answered<AnyValues>,
    shared: boolean,
    psn: number,
    qkey: number,
  ) => T
}

/** A type with queues: its class, what all have, and `more` methods. */
export const queuePairType = <T>(cls: ObjectClass, more: object): QueuePairType<T> => {
  const methods = guardedTable('qp', mergeTables(mergeTables(mergeTables({ cls }, bareMethods), queueMethods), more))
  showQueuePair(methods, cls)
  return queuePairTypeOf(cls, more, methods)
}

const queuePairTypeOf = <T>(cls: ObjectClass, more: object, methods: object): QueuePairType<T> => ({
  cls,
  ...((more as Pick<MethodTable, 'stepsTo'>).stepsTo && { stepsTo: (more as Required<MethodTable>).stepsTo }),
  call: `${cls.name}.create`,
  hasReceives: 'recvCq' in (cls.methods.create?.in ?? {}),
  Made: assignMethods<T, QpFields, ConstructorParameters<QueuePairType<T>['Made']>>(
    methods,
    function (kit, number, { object, out }, shared, psn, qkey) {
      const { cap, qpNum, sendQueue, recvQueue } = out as unknown as Made
      this.kit = kit
      this.handle = object
      this.qpn = qpNum
      this.number = number
      this.isOpen = true
      this.sendAt = offsetOf(sendQueue)
      this.sendSize = sendQueue?.size ?? 0
      this.receiveAt = offsetOf(recvQueue)
      this.receiveSize = recvQueue?.size ?? 0
      this.sends = undefined
      this.receives = undefined
      this.maxInlineData = cap.maxInlineData
      this.maxSendSge = cap.maxSendSge
      this.maxRecvSge = shared ? -1 : cap.maxRecvSge
      this.psn = psn
      this.qkey = qkey
    },
  ),
})

/** What a creation takes beside its own arguments: what connects it to `options.peer`, and what was chosen. */
export const initialAttributesOf = <T extends MethodTable>(
  { stepsTo }: T,
  { path }: DeviceContext,
  psn: number,
  { peer, connection, initial }: PeerOptions<ConnectOptions> & { readonly initial?: object },
): { readonly qkey?: number } | undefined => {
  const steps = stepsTo as ((...with_: [PathFacts, number, Endpoint, ConnectOptions?]) => object[]) | undefined
  const own = initial === undefined ? undefined : withStateNumber(initial)
  if (peer === undefined || steps === undefined) return own
  return { ...combineSteps(steps(path, psn, peer, connection)), ...own }
}

/** A queue pair of a type in protection domain `pd`. */
export const queuePairPlan = <T extends Disposable & Named>(
  kit: DeviceContext,
  type: QueuePairType<T>,
  pd: Named,
  options: (SendQueueOptions | QueuePairOptions) & PeerOptions<ConnectOptions> & { readonly initial?: object },
): Plan<T> => {
  const { cls, call, hasReceives } = type
  const { sendCq, signalAll = false, maxSendWr = 16, maxSendSge = 1, maxInlineData = 64 } = options
  const { recvCq = sendCq, srq, maxRecvWr = 16, maxRecvSge = 1 } = options as QueuePairOptions
  checkOwn(kit, call, 'pd', pd)
  checkOwn(kit, call, 'sendCq', sendCq)
  checkOwn(kit, call, 'recvCq', recvCq)
  if (srq !== undefined) checkOwn(kit, call, 'srq', srq)
  const psn = firstPsn()
  const first = initialAttributesOf(type, kit, psn, options)
  const source = eventSource(kit, cls)
  const shared = !hasReceives || srq !== undefined
  const cap = {
    maxSendWr,
    maxRecvWr: shared ? 0 : maxRecvWr,
    maxSendSge,
    maxRecvSge: shared ? 0 : maxRecvSge,
    maxInlineData,
  }
  const args: AnyValues = {
    pd: pd.handle,
    sendCq: sendCq.handle,
    flags: signalAll === true ? QpFlags.values.SQ_SIG_ALL : 0,
    userHandle: BigInt(source.number),
    cap,
  }
  if (hasReceives) args.recvCq = recvCq.handle
  if (srq !== undefined) args.srq = srq.handle
  if (first !== undefined) Object.assign(args, first)
  return {
    class: cls,
    args,
    options: qpOptions,
    made: answered => source.is(new type.Made(kit, source.number, answered, shared, psn, first?.qkey ?? 0)),
    failed: source.forget,
  }
}
