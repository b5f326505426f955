/*
 * Queue pairs in the library: the common part of all types. Each type's own file has its operations and its connection.
 *
 * Posting writes a request into a slot of the shared ring and advances an index; the device is notified once for all
 * requests that are posted without an await in between. Requests carry an id of the caller, which completions return.
 *
 * A program may have very many queue pairs (R15): each has only a few fields, the methods are shared, and a ring is
 * mapped when the first request is posted.
 */
import type { QpAttributeName, qpMethods } from '../../spec/classes/qp/qp.ts'
import { QpFlags, QpState } from '../../spec/enums.ts'
import { Errno } from '../../spec/errno.ts'
import type { AnyValues, In, ObjectClass, Out } from '../../spec/schema/schema.ts'
import { PostQueue } from '../../spec/session.ts'
import { SendFlags, SRQN_SHIFT } from '../../spec/work.ts'
import type { Carrier, RingPlace } from '../carrier.ts'
import { watched } from '../check/checked.ts'
import { checkRecord, type KnownOptions } from '../checks/options.ts'
import { checkId, checkLocal } from '../checks/request-checks.ts'
import { checkRequestOptions, type SendOptions } from '../checks/request-options.ts'
import { detached, invalidArgument, type RdmaError, refused } from '../error.ts'
import { isSliceOf, type Slice } from '../mr/region.ts'
import { orElse, type Shown } from '../objects/show.ts'
import { DETACH, defineVerbsClass, RELEASED, SHOWN, VerbsObject } from '../objects/verbs-object.ts'
import {
  checkOwn,
  type DeviceContext,
  eventSource,
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
import {
  type ConnectOptions,
  combineSteps,
  type Endpoint,
  firstPsn,
  type PeerOptions,
  qpOptions,
} from './connection.ts'
import { putInline, putMany, putOne, putReceive, putSend } from './requests.ts'

/** The bytes of a request: a slice, several slices, or a few bytes of any array, which are copied (inline data). */
export type Local = Slice | readonly Slice[] | Uint8Array

/** Options of queue pairs with a send queue. */
export interface SendQueueOptions {
  /** The completion queue of sends. */
  readonly sendCq: Reference<'cq'>
  /** Send queue size in requests; default 16. */
  readonly maxSendWr?: number
  /** Maximum scatter/gather elements of a send; default 1. */
  readonly maxSendSge?: number
  /** Maximum inline data in bytes; default 64. */
  readonly maxInlineData?: number
  /** Every send completes, whatever `signaled` says (sq_sig_all). */
  readonly signalAll?: boolean
}

/** Options of queue pairs with both queues. */
export interface QueuePairOptions extends SendQueueOptions {
  /** The completion queue of receives; default: `sendCq`. */
  readonly recvCq?: Reference<'cq'>
  /** Shared receive queue; the queue pair then has no receive queue of its own. */
  readonly srq?: Reference<'srq'>
  /** Receive queue size in requests; default 16. */
  readonly maxRecvWr?: number
  /** Maximum scatter/gather elements of a receive; default 1. */
  readonly maxRecvSge?: number
}

export const sendQueueOptionNames: KnownOptions<SendQueueOptions> = {
  sendCq: true,
  maxSendWr: true,
  maxSendSge: true,
  maxInlineData: true,
  signalAll: true,
}
export const queuePairOptionNames: KnownOptions<QueuePairOptions> = {
  ...sendQueueOptionNames,
  recvCq: true,
  srq: true,
  maxRecvWr: true,
  maxRecvSge: true,
}

/** The Q_Key of datagram queue pairs that are given none. */
export const DEFAULT_QKEY = 0x11111111

/** Attributes of a creation that are not attributes of a state; the library sets them. */
type OwnArgument = 'pd' | 'sendCq' | 'recvCq' | 'cap' | 'flags' | 'userHandle' | 'asyncFd' | 'srq' | 'xrcd' | 'qpNum'

/**
 * Attributes with which a queue pair is created directly in a state (R7): `state`, and those of the steps to it. If any
 * step fails, nothing is created.
 */
export type Initial<C extends ObjectClass> = Omit<In<C['methods']['create']>, OwnArgument | 'state'> & {
  readonly state?: QpStateName | number
}

/** The state of a new queue pair. */
export interface InitialOptions<C extends ObjectClass> {
  /** Attributes of the steps to that state. */
  readonly initial?: Initial<C>
}

/** Methods and attributes of every type. */
type AnyQpClass = ObjectClass<ReturnType<typeof qpMethods<QpAttributeName>>>

/** States of a queue pair (IBA 10.3.1) by name. */
export type QpStateName = keyof typeof QpState.values

/** A type's attributes; the state may be given by name. */
export type Modification<C extends ObjectClass> = Omit<In<C['methods']['modify']>, 'state'> & {
  readonly state?: QpStateName | number
}

const { values: states } = QpState

/** `args` with the state as a number. */
const withStateNumber = <A extends object>(args: A): A => {
  const { state } = args as { readonly state?: unknown }
  return typeof state === 'string' && Object.hasOwn(states, state)
    ? { ...args, state: states[state as QpStateName] }
    : args
}

/** Members of all queue pairs, including those without queues. */
export interface BareQueuePair<C extends ObjectClass = AnyQpClass> extends Disposable {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** The queue pair's number, 24 bits. */
  readonly qpn: number
  /** Its current state at the device. Throws RdmaError when it is closed. */
  readonly state: QpStateName
  /** All attributes, as declared in the class. Throws RdmaError. */
  query(): Out<C['methods']['query']>
  /**
   * Changes attributes, `state` included ('RESET' … or its number), by the type's state machine. Throws RdmaError
   * EINVAL for an illegal change.
   */
  modify(args: Modification<C>): void
  /**
   * Destroys it; outstanding requests get no completion. Throws RdmaError EBUSY while it is a member of a multicast
   * group.
   */
  close(): void
}

/** A queue pair with a send queue. */
export interface SendingQueuePair<C extends ObjectClass = AnyQpClass> extends BareQueuePair<C> {
  /** Number of sends that the device has not completed. */
  readonly pending: number
  /** Maximum inline data in bytes. */
  readonly maxInlineData: number
}

/** A queue pair with a send queue and a receive queue. */
export interface QueuePair<C extends ObjectClass = AnyQpClass> extends SendingQueuePair<C> {
  /**
   * Posts a receive; without a buffer for messages without payload. Throws RdmaError ENOMEM when the queue is full,
   * EINVAL if the queue pair uses an SRQ.
   */
  receive(local?: Slice | readonly Slice[], id?: number): void
}

const { SIGNALED, SOLICITED, FENCE, INLINE } = SendFlags.values
const stateNames = Object.keys(QpState.values) as QpStateName[]

const flagsOf = (options: (SendOptions & { readonly srqNumber?: number }) | undefined): number =>
  options === undefined
    ? SIGNALED
    : (options.signaled === false ? 0 : SIGNALED) |
      (options.solicited === true ? SOLICITED : 0) |
      (options.fence === true ? FENCE : 0) |
      (options.srqNumber === undefined ? 0 : options.srqNumber << SRQN_SHIFT)

/** The error for a queue without room; a queue of size 0, or of a driver without rings, never has room. */
export const fullError = (call: string, queue: 'send' | 'receive', depth: number): RdmaError => {
  const option = queue === 'send' ? 'maxSendWr' : 'maxRecvWr'
  if (depth === 0)
    return refused('ENOMEM', call, `there is no ${queue} queue`, `ask for ${option}; a driver may have none to post to`)
  const hint = `${queue === 'send' ? 'take completions first, or ' : ''}ask for a larger ${option}`
  return refused('ENOMEM', call, `the ${queue} queue is full: ${depth} requests are outstanding`, hint)
}

export const tooManySges = (call: string, sges: number, max: number): RdmaError =>
  invalidArgument(call, `${sges} scatter/gather elements, at most ${max} are possible`)

/** Throws EIO if the device is closed or removed: the memory of its rings may belong to another device now. */
export const checkDevicePresent = (call: string, { waiters }: DeviceContext): void => {
  if (waiters.over) throw refused('EIO', call, 'the device is closed or removed')
}

/** Checks that `self` is an open queue pair of a device that was not removed. */
const checkUsable = (call: string, self: QueuedQp | undefined): void => {
  if (self?.kit === undefined) throw detached(call)
  checkDevicePresent(call, self.kit)
  if (!self.isOpen) throw invalidArgument(call, 'the queue pair is closed')
}

/** `fullError` for a queue of the queue pair's own; reports the refused post to the checker. */
const queueFull = (self: QueuedQp, call: string, queue: 'send' | 'receive', depth: number, id: number): RdmaError => {
  const which = queue === 'send' ? PostQueue.SEND : PostQueue.RECEIVE
  self.kit.checked?.posts.refused(which, self.qpn, id, Errno.ENOMEM, QpState.values.RTS)
  return fullError(call, queue, depth)
}

/** Maps the send ring for the first request. Throws before RTS, where the device would not execute requests. */
const openSends = (self: QueuedQp, call: string, id: number): ProgramRing => {
  checkUsable(call, self)
  if (!self.canSend) {
    const { state } = queryOf(self)
    if (state < QpState.values.RTS) {
      self.kit.checked?.posts.refused(PostQueue.SEND, self.qpn, id, Errno.EINVAL, state)
      throw invalidArgument(
        call,
        `the queue pair is in ${stateNames[state]}: it cannot send`,
        'connect or activate it first',
      )
    }
  }
  const place = placeAt(self.sendAt, self.sendSize)
  self.sends = watched(self.kit, PostQueue.SEND, self.qpn, place, ringOrNone(self.kit.carrier, place))
  return self.sends
}

const openReceives = (self: QueuedQp): ProgramRing => {
  checkUsable('qp.receive', self)
  if (self.maxRecvSge < 0)
    throw invalidArgument('qp.receive', 'it uses a shared receive queue', 'post to that one, with srq.receive()')
  const place = placeAt(self.receiveAt, self.receiveSize)
  self.receives = watched(self.kit, PostQueue.RECEIVE, self.qpn, place, ringOrNone(self.kit.carrier, place))
  return self.receives
}

const releaseAt = (carrier: Carrier, at: number, size: number): void => {
  const place = placeAt(at, size)
  if (place !== undefined) carrier.release(place)
}

/** The steps of a connected type. */
export const STEPS = Symbol('steps')
const RELEASE_SENDS = Symbol('release sends')

/** A queue pair of any type: query, modify, destroy. */
export abstract class BareQp<C extends ObjectClass = AnyQpClass> extends VerbsObject implements BareQueuePair<C> {
  readonly qpn: number
  /** Its number among the objects with events. */
  readonly number: number
  /** The first PSN that it sends. */
  readonly psn: number
  /** Its rings, mapped with the first request; the send ring only from RTS on. */
  sends: ProgramRing | undefined = undefined
  receives: ProgramRing | undefined = undefined
  /** Whether the queue pair is known to have reached RTS, so that the first request need not query it. */
  canSend = false

  constructor(kit: DeviceContext, handle: number, number: number, qpn: number, psn: number) {
    super(kit, handle)
    this.qpn = qpn
    this.number = number
    this.psn = psn
  }

  abstract override get cls(): C

  get state(): QpStateName {
    return stateNames[queryOf(this).state]!
  }

  query(): Out<C['methods']['query']> {
    return queryOf(this) as object as Out<C['methods']['query']>
  }

  modify(changes: Modification<C>): void {
    checkRecord(`${this.cls.name}.modify`, 'attributes', changes, "give an object, { state: 'RESET' } for example")
    const args = withStateNumber<object>(changes) as In<AnyQpClass['methods']['modify']>
    this.kit.carrier.call(anyQp(this.cls), 'modify', this.handle, args)
    const { state } = args
    if (state !== undefined) {
      this.canSend = state >= QpState.values.RTS
      if (!this.canSend) this[RELEASE_SENDS]()
    }
    if (state === QpState.values.RESET && this.receives !== undefined) restart(this.receives)
  }

  override [SHOWN](): Shown {
    const { handle, qpn, sends, receives } = this
    const { state, destQpn } = orElse<Partial<ReturnType<typeof queryOf>>>(() => queryOf(this), {})
    return {
      handle,
      qpn,
      state: state === undefined ? undefined : stateNames[state],
      ...(destQpn !== undefined && destQpn !== 0 && { peerQpn: destQpn }),
      ...(sends !== undefined && { pendingSends: outstandingRequests(sends) }),
      ...(receives !== undefined && { pendingReceives: outstandingRequests(receives) }),
    }
  }

  /** No further sends are possible: unmaps the ring. */
  protected [RELEASE_SENDS](): void {
    this.sends = undefined
  }

  protected override [RELEASED](): void {
    this.kit.waiters.remove(this.number)
    this[RELEASE_SENDS]()
    this.receives = undefined
  }

  override [DETACH](): void {
    this.sends = undefined
    this.receives = undefined
  }
}

/** Marks a queue pair as able to send, after core's connection management has moved it to RTS. */
export const markReady = (qp: object): void => {
  ;(qp as BareQp).canSend = true
}

/** All types have the methods and attributes used here. */
const anyQp = (cls: ObjectClass): AnyQpClass => cls as AnyQpClass
const queryOf = ({ kit, cls, handle }: BareQp<ObjectClass>) => kit.carrier.call(anyQp(cls), 'query', handle, {}).out

/** Results of a creation. */
export type QpMade = Out<AnyQpClass['methods']['create']> & {
  readonly sendQueue?: RingPlace
  readonly recvQueue?: RingPlace
}

/** A queue pair with a send queue and, except for XRC initiators, a receive queue. */
export abstract class QueuedQp<C extends ObjectClass = ObjectClass> extends BareQp<C> implements QueuePair<C> {
  /** Positions of the rings, by `offsetOf`. */
  readonly sendAt: number
  readonly sendSize: number
  readonly receiveAt: number
  readonly receiveSize: number
  readonly maxInlineData: number
  readonly maxSendSge: number
  /** -1: the queue pair uses an SRQ. */
  readonly maxRecvSge: number
  /** Datagrams: the Q_Key. */
  qkey: number

  /** `shared`: the queue pair has no receive queue of its own. */
  constructor(
    kit: DeviceContext,
    number: number,
    handle: number,
    { cap, qpNum, sendQueue, recvQueue }: QpMade,
    shared: boolean,
    psn: number,
    qkey: number,
  ) {
    super(kit, handle, number, qpNum, psn)
    this.sendAt = offsetOf(sendQueue)
    this.sendSize = sendQueue?.size ?? 0
    this.receiveAt = offsetOf(recvQueue)
    this.receiveSize = recvQueue?.size ?? 0
    this.maxInlineData = cap.maxInlineData
    this.maxSendSge = cap.maxSendSge
    this.maxRecvSge = shared ? -1 : cap.maxRecvSge
    this.qkey = qkey
  }

  /** The options of its requests (`RequestOptionBits`). */
  abstract get requestOptionBits(): number

  /** The steps that connect it to a peer; undefined for types without connections. */
  get [STEPS](): StepsTo | undefined {
    return undefined
  }

  get pending(): number {
    return this.sends === undefined ? 0 : outstandingRequests(this.sends)
  }

  receive(local?: Slice | readonly Slice[], id = 0): void {
    const ring = this?.receives ?? openReceives(this)
    const at = nextSlot(ring)
    if (at < 0) throw queueFull(this, 'qp.receive', 'receive', ring.capacity, id)
    if (Array.isArray(local) && local.length > this.maxRecvSge)
      throw tooManySges('qp.receive', local.length, this.maxRecvSge)
    if (id !== 0) checkId('qp.receive', id)
    if (local !== undefined && !isSliceOf(local, this.kit)) checkLocal('qp.receive', this.kit, local)
    putReceive(ring, at, id, local)
    produce(ring)
    this.kit.carrier.posted(this.handle)
  }

  protected override [RELEASE_SENDS](): void {
    if (this.sends !== undefined) releaseAt(this.kit.carrier, this.sendAt, this.sendSize)
    super[RELEASE_SENDS]()
  }

  protected override [RELEASED](): void {
    if (this.receives !== undefined) releaseAt(this.kit.carrier, this.receiveAt, this.receiveSize)
    super[RELEASED]()
  }
}

/** The options that requests of this type of queue pair may have, as bits. */
const requestOptionsOf = (self: QueuedQp | undefined, call: string): number => {
  if (self?.kit === undefined) throw detached(call)
  return self.requestOptionBits
}

/**
 * Bytes of a request that are not a slice from `mr.slice()` of this device: inline data, several slices, copies of
 * slices, or none.
 */
const putOther = (self: QueuedQp, call: string, at: number, local: Exclude<Local, Slice> | undefined): void => {
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
  if (Array.isArray(local) && local.length > self.maxSendSge) throw tooManySges(call, local.length, self.maxSendSge)
  if (local !== undefined) checkLocal(call, self.kit, local)
  putMany(ring, at, local)
}

/**
 * Starts a send request: returns a slot of the send queue with the common fields written; throws RdmaError ENOMEM when
 * the queue is full. `sends` of the queue pair is the ring; `endRequest` posts the request. `allowed`: options of the
 * operation (`RequestOptionBits`); those that the type of the queue pair lacks are refused as well.
 */
export const beginRequest = (
  self: QueuedQp,
  call: string,
  opcode: number,
  local: Local | undefined,
  options: SendOptions | undefined,
  allowed: number,
): number => {
  if (options !== undefined) checkRequestOptions(call, options, allowed & requestOptionsOf(self, call))
  const ring = self?.sends ?? openSends(self, call, options?.id ?? 0)
  const at = nextSlot(ring)
  if (at < 0) throw queueFull(self, call, 'send', ring.capacity, options?.id ?? 0)
  const isInline = local instanceof Uint8Array
  putSend(ring, at, opcode, options?.id ?? 0, isInline ? flagsOf(options) | INLINE : flagsOf(options))
  if (!isInline && isSliceOf(local, self.kit)) putOne(ring, at, local)
  else putOther(self, call, at, local as Exclude<Local, Slice> | undefined)
  return at
}

/** Posts the request that was started. */
export const endRequest = ({ sends, kit, handle }: QueuedQp): void => {
  produce(sends as ProgramRing)
  kit.carrier.posted(handle)
}

/** The steps that connect a type to a peer, as arguments of `modify`. */
export type StepsTo = (path: PathFacts, psn: number, peer: Endpoint, chosen?: ConnectOptions) => readonly object[]

/** Definition of a type with queues. */
interface QueuePairType<T> {
  readonly cls: ObjectClass
  readonly Made: new (...args: ConstructorParameters<typeof QueuedQp>) => T
  readonly stepsTo: StepsTo | undefined
}

/** A type with queues; `name`: that of its interface. */
export const queuePairType = <T extends QueuedQp>(
  name: string,
  Made: (new (...args: ConstructorParameters<typeof QueuedQp>) => T) & { readonly prototype: T },
): QueuePairType<T> => {
  const { cls, [STEPS]: stepsTo } = Made.prototype
  defineVerbsClass(Made, 'qp', name)
  return { cls, Made, stepsTo }
}

/** Further arguments of a creation: those that connect it to `options.peer`, and options. */
export const initialAttributesOf = (
  stepsTo: StepsTo | undefined,
  { path }: DeviceContext,
  psn: number,
  { peer, connection, initial }: PeerOptions<ConnectOptions> & { readonly initial?: object },
): { readonly qkey?: number } | undefined => {
  const own = initial === undefined ? undefined : withStateNumber(initial)
  if (peer === undefined || stepsTo === undefined) return own
  return { ...combineSteps(stepsTo(path, psn, peer, connection)), ...own }
}

/** A queue pair of a type in protection domain `pd`. */
export const queuePairPlan = <T extends Disposable & Named>(
  kit: DeviceContext,
  type: QueuePairType<T>,
  pd: Named,
  options: (SendQueueOptions | QueuePairOptions) & PeerOptions<ConnectOptions> & { readonly initial?: object },
): Plan<T> => {
  const { cls, Made, stepsTo } = type
  const call = `${cls.name}.create`
  const hasReceives = 'recvCq' in (cls.methods.create?.in ?? {})
  const { sendCq, signalAll = false, maxSendWr = 16, maxSendSge = 1, maxInlineData = 64 } = options
  const { recvCq = sendCq, srq, maxRecvWr = 16, maxRecvSge = 1 } = options as QueuePairOptions
  checkOwn(kit, call, 'pd', pd)
  checkOwn(kit, call, 'sendCq', sendCq)
  checkOwn(kit, call, 'recvCq', recvCq)
  if (srq !== undefined) checkOwn(kit, call, 'srq', srq)
  const psn = firstPsn()
  const first = initialAttributesOf(stepsTo, kit, psn, options)
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
    made: ({ object, out }) =>
      source.is(
        new Made(kit, source.number, object, out as QpMade & AnyValues, shared, psn, first?.qkey ?? DEFAULT_QKEY),
      ),
    failed: source.forget,
  }
}
