/*
 * Queue pairs: what all types share.
 *
 * A post writes the request into a slot of the ring, advances the ring's index, and reports the queue pair to the
 * carrier (carrier.ts, `posted`).
 *
 * A program may have very many queue pairs (R15): each has few fields, and a ring is mapped with its first request.
 */
import type { QpAttributeName, qpMethods } from '../../../spec/classes/qp/qp.ts'
import { QpFlags, QpState } from '../../../spec/enums.ts'
import { Errno } from '../../../spec/errno.ts'
import type { AnyValues, In, ObjectClass, Out } from '../../../spec/schema/schema.ts'
import { PostQueue } from '../../../spec/session.ts'
import { SendFlags, SRQN_SHIFT } from '../../../spec/work.ts'
import { checkRecord, copyOfValue, type KnownOptions } from '../arguments/options.ts'
import { checkId, checkLocal } from '../arguments/request-checks.ts'
import { checkRequestOptions, type SendOptions } from '../arguments/request-options.ts'
import type { Carrier, MmapInfo } from '../carrier.ts'
import {
  checkAttached,
  closedError,
  injectedError,
  invalidArgument,
  type RdmaError,
  refused,
  withOptionNames,
  withoutObject,
} from '../error.ts'
import { isSliceOf, type Slice } from '../mr/region.ts'
import { orElse, type Shown } from '../objects/show.ts'
import { DROP_RINGS, defineVerbsClass, RELEASED, SHOWN, VerbsObject } from '../objects/verbs-object.ts'
import {
  checkDevicePresent,
  checkObject,
  type DeviceContext,
  eventSource,
  type LocalPath,
  type ObjectReference,
  type Plan,
  type Reference,
} from '../plan.ts'
import {
  mmapInfoOf,
  nextSlot,
  offsetOf,
  outstandingRequests,
  type ProgramRing,
  produce,
  restart,
  ringOrNone,
} from '../ring.ts'
import { watchedRing } from '../watch/watch.ts'
import { type LibraryAttributes, toClassAttributes, toLibraryAttributes } from './attributes.ts'
import {
  type ConnectOptions,
  combineSteps,
  type Endpoint,
  firstPsn,
  optionsByQpAttribute,
  type PeerOptions,
} from './connection.ts'
import { putInline, putMany, putOne, putReceive, putSend, sgeCountOf } from './requests.ts'

/** The bytes of a send request: a slice, several slices, or a Uint8Array, which the WQE contains (inline data). */
export type SendData = Slice | readonly Slice[] | Uint8Array
/** For requests without bytes. */
export const NO_DATA: readonly Slice[] = []

/** Options of queue pairs with a send queue. A send is any request of this queue: READs, atomics and binds too. */
export interface SendQueueOptions {
  /** The completion queue of sends. */
  readonly sendCq: Reference<'cq'>
  /** Send queue size in requests; default 16. */
  readonly maxSendWr?: number | undefined
  /** Maximum scatter/gather elements of a send; default 1. */
  readonly maxSendSge?: number | undefined
  /** Maximum inline data in bytes; default 64. */
  readonly maxInlineData?: number | undefined
  /** Every send completes, whatever `signaled` says (sq_sig_all). */
  readonly signalAll?: boolean | undefined
}

/** Options of queue pairs with both queues. */
export interface QueuePairOptions extends SendQueueOptions {
  /** The completion queue of receives; default: `sendCq`. */
  readonly recvCq?: Reference<'cq'> | undefined
  /** Shared receive queue; the queue pair then has no receive queue of its own. */
  readonly srq?: Reference<'srq'> | undefined
  /** Receive queue size in requests; default 16. */
  readonly maxRecvWr?: number | undefined
  /** Maximum scatter/gather elements of a receive; default 1. */
  readonly maxRecvSge?: number | undefined
}

export const sendQueueOptionNames: KnownOptions<SendQueueOptions> = {
  sendCq: true,
  maxSendWr: true,
  maxSendSge: true,
  maxInlineData: true,
  signalAll: 'flag',
}
export const queuePairOptionNames: KnownOptions<QueuePairOptions> = {
  ...sendQueueOptionNames,
  recvCq: true,
  srq: true,
  maxRecvWr: true,
  maxRecvSge: true,
}

/** Default Q_Key of UD queue pairs. */
export const DEFAULT_QKEY = 0x11111111

/** Attributes of `create` that `modify` does not have. */
type CreateOnly = 'pd' | 'sendCq' | 'recvCq' | 'cap' | 'flags' | 'userHandle' | 'asyncFd' | 'srq' | 'xrcd' | 'qpNum'

/**
 * Attributes of a queue pair that is created directly in a state: `state`, and the attributes that `modify` needs
 * to reach this state. If a step fails, nothing is created.
 */
export type InitialAttributes<C extends ObjectClass> = LibraryAttributes<
  Omit<In<C['methods']['create']>, CreateOnly | 'state'>
> & {
  readonly state?: QpStateName | number
}

/** The state of a new queue pair. */
export interface InitialOptions<C extends ObjectClass> {
  /** Creates the queue pair in a state other than RESET. */
  readonly initial?: InitialAttributes<C> | undefined
}

/** A class with the common methods, and the attributes of all types. */
type AnyQpClass = ObjectClass<ReturnType<typeof qpMethods<QpAttributeName>>>

/** States of a queue pair (IBA 10.3.1) by name. */
export type QpStateName = keyof typeof QpState.values

/** Arguments of `modify` of a type; the state by name or number. */
export type ModifyArguments<C extends ObjectClass> = LibraryAttributes<Omit<In<C['methods']['modify']>, 'state'>> & {
  readonly state?: QpStateName | number
}

/** The attributes that `query` of a type returns. */
export type QueriedAttributes<C extends ObjectClass> = LibraryAttributes<Out<C['methods']['query']>>

const { values: states } = QpState

/** `args` with the number of the state in place of its name. */
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
  /** Number of the queue pair, 24 bits. */
  readonly qpn: number
  /** Current state at the device. Throws RdmaError if the queue pair is closed. */
  readonly state: QpStateName
  /**
   * All attributes, as declared in the class; those that are options too have the options' names and units (`pathMtu`:
   * bytes). Throws RdmaError.
   */
  query(): QueriedAttributes<C>
  /**
   * Changes attributes and, with `state` ('RESET' … or its number), the state. Throws RdmaError EINVAL if the type's
   * state machine does not allow the change.
   */
  modify(args: ModifyArguments<C>): void
  /**
   * Destroys the queue pair. Outstanding requests get no completion. Throws RdmaError EBUSY while the queue pair is a
   * member of a multicast group.
   */
  close(): void
}

/** A queue pair with a send queue. */
export interface SendingQueuePair<C extends ObjectClass = AnyQpClass> extends BareQueuePair<C> {
  /** Number of requests of the send queue that the device has not completed. */
  readonly pending: number
  /** Maximum inline data in bytes. */
  readonly maxInlineData: number
}

/** A queue pair with a send queue and a receive queue. */
export interface QueuePair<C extends ObjectClass = AnyQpClass> extends SendingQueuePair<C> {
  /**
   * Posts a receive, without `local` for a message without payload. `id`: wr_id, as `SendOptions.id`. Throws RdmaError
   * ENOMEM when the queue is full, EINVAL if the queue pair uses an SRQ.
   */
  receive(local?: Slice | readonly Slice[], id?: number): void
}

const { SIGNALED, SOLICITED, FENCE, INLINE } = SendFlags.values
const stateNames = Object.keys(QpState.values) as QpStateName[]

/** The flags word of a send WQE: ibv_send_flags, and for XRC the SRQ number in the upper 24 bits. */
const flagsOf = (options: (SendOptions & { readonly srqNumber?: number }) | undefined): number =>
  options === undefined
    ? SIGNALED
    : (options.signaled === false ? 0 : SIGNALED) |
      (options.solicited === true ? SOLICITED : 0) |
      (options.fence === true ? FENCE : 0) |
      (options.srqNumber === undefined ? 0 : options.srqNumber << SRQN_SHIFT)

/**
 * ENOMEM for a post to a full queue. `depth`: the queue's capacity, 0 without a ring; `option`: the option that sets
 * the capacity.
 */
export const fullError = (
  call: string,
  queue: 'send' | 'receive',
  depth: number,
  option: 'maxSendWr' | 'maxRecvWr' | 'maxWr' = queue === 'send' ? 'maxSendWr' : 'maxRecvWr',
): RdmaError => {
  if (depth === 0)
    return refused(
      'ENOMEM',
      call,
      `there is no ${queue} queue`,
      `set ${option}; devices of some drivers have no ${queue} queues`,
    )
  const hint = `${queue === 'send' ? 'take completions first, or ' : ''}ask for a larger ${option}`
  return refused('ENOMEM', call, `the ${queue} queue is full: ${depth} requests are outstanding`, hint)
}

export const tooManySges = (
  call: string,
  sges: number,
  max: number,
  option: 'maxSendSge' | 'maxRecvSge' | 'maxSge',
): RdmaError =>
  invalidArgument(call, `${sges} scatter/gather elements, at most ${max} are possible`, `ask for a larger ${option}`)

/** Throws RdmaError EINVAL unless `qp` is an open queue pair, EIO if its device was closed or removed. */
const checkUsable = (call: string, qp: QueuedQp | undefined): void => {
  if (qp?.context === undefined) throw withoutObject(call)
  checkDevicePresent(call, qp.context)
  if (!qp.isOpen) throw closedError(call, 'the queue pair')
}

/**
 * Reports a refused post to the device's check, and returns `fullError`. The reported state is RTS, because ENOMEM does
 * not depend on the state.
 */
const queueFull = (qp: QueuedQp, call: string, queue: 'send' | 'receive', depth: number, id: number): RdmaError => {
  const postQueue = queue === 'send' ? PostQueue.SEND : PostQueue.RECEIVE
  qp.context.check?.posts.refused(postQueue, qp.qpn, id, Errno.ENOMEM, QpState.values.RTS)
  return fullError(call, queue, depth)
}

/**
 * Maps the send ring for the first request. Throws RdmaError as `checkUsable`, and EINVAL before RTS: a request would
 * not be executed.
 */
const openSends = (qp: QueuedQp, call: string, id: number): ProgramRing => {
  checkUsable(call, qp)
  if (!qp.canSend) {
    const { state } = queryOf(qp)
    if (state < QpState.values.RTS) {
      qp.context.check?.posts.refused(PostQueue.SEND, qp.qpn, id, Errno.EINVAL, state)
      throw invalidArgument(
        call,
        `the queue pair is in ${stateNames[state]}: it cannot send`,
        'connect or activate it first',
      )
    }
  }
  const info = mmapInfoOf(qp.sendOffset, qp.sendSize)
  qp.sends = watchedRing(qp.context, PostQueue.SEND, qp.qpn, info, ringOrNone(qp.context.carrier, info, qp.maxSendWr))
  return qp.sends
}

/** Whether queue pairs of the class receive; XRC initiators do not. */
const classReceives = (cls: ObjectClass): boolean => 'recvCq' in (cls.methods.create?.in ?? {})

/**
 * Maps the receive ring for the first receive. Throws RdmaError as `checkUsable`, and EINVAL if the queue pair has no
 * receive queue of its own.
 */
const openReceives = (qp: QueuedQp): ProgramRing => {
  checkUsable('qp.receive', qp)
  if (qp.maxRecvSge < 0)
    throw classReceives(qp.cls)
      ? invalidArgument('qp.receive', 'the queue pair uses a shared receive queue', 'post with srq.receive()')
      : invalidArgument('qp.receive', 'an XRC initiator only sends', 'receive with an XRC target and an XRC SRQ')
  const info = mmapInfoOf(qp.receiveOffset, qp.receiveSize)
  qp.receives = watchedRing(
    qp.context,
    PostQueue.RECEIVE,
    qp.qpn,
    info,
    ringOrNone(qp.context.carrier, info, qp.maxRecvWr),
  )
  return qp.receives
}

const releaseRing = (carrier: Carrier, offset: number, size: number): void => {
  const info = mmapInfoOf(offset, size)
  if (info !== undefined) carrier.release(info)
}

/** The property with the `StepsTo` of a connected type; a symbol hides it from programs. */
export const STEPS = Symbol('steps')
const RELEASE_SENDS = Symbol('release sends')

/** A queue pair of any type: query, modify, destroy. */
export abstract class BareQp<C extends ObjectClass = AnyQpClass> extends VerbsObject implements BareQueuePair<C> {
  readonly qpn: number
  readonly userHandle: number
  /** Of types with a peer: the `psn` of the endpoint. */
  readonly psn: number
  /** Rings, each mapped with its first request; the send ring only in RTS and later states. */
  sends: ProgramRing | undefined = undefined
  receives: ProgramRing | undefined = undefined
  /**
   * Number of changes of the state by `modify`. A failed bind stops the queue pair until such a change: memory windows
   * compare the number (library/verbs/mr/window.ts).
   */
  stateChanges = 0
  /** Known to be in RTS or a later state. If false, the first request queries the state. */
  canSend = false

  constructor(context: DeviceContext, handle: number, userHandle: number, qpn: number, psn: number) {
    super(context, handle)
    this.qpn = qpn
    this.userHandle = userHandle
    this.psn = psn
  }

  abstract override get cls(): C

  get state(): QpStateName {
    return stateNames[queryOf(this).state]!
  }

  query(): QueriedAttributes<C> {
    return toLibraryAttributes(queryOf(this)) as QueriedAttributes<C>
  }

  modify(changes: ModifyArguments<C>): void {
    checkRecord(`${this.cls.name}.modify`, 'attributes', changes, "give an object, { state: 'RESET' } for example")
    const args = toClassAttributes(`${this.cls.name}.modify`, withStateNumber<object>(changes)) as In<
      AnyQpClass['methods']['modify']
    >
    withOptionNames(optionsByQpAttribute, () => this.context.carrier.call(anyQp(this.cls), 'modify', this.handle, args))
    const { state } = args
    if (state !== undefined) {
      this.stateChanges++
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

  /** Unmaps the send ring: the queue pair was moved to a state before RTS, or is closed. */
  protected [RELEASE_SENDS](): void {
    this.sends = undefined
  }

  protected override [RELEASED](): void {
    this.context.waiters.remove(this.userHandle)
    this[RELEASE_SENDS]()
    this.receives = undefined
  }

  override [DROP_RINGS](): void {
    this.sends = undefined
    this.receives = undefined
  }
}

/** Records that the connection manager has moved a queue pair to RTS. */
export const markReady = (qp: object): void => {
  ;(qp as BareQp).canSend = true
}

/** `cls` with the type `AnyQpClass`: an attribute that it lacks is undefined. */
const anyQp = (cls: ObjectClass): AnyQpClass => cls as AnyQpClass
const queryOf = ({ context, cls, handle }: BareQp<ObjectClass>) =>
  context.carrier.call(anyQp(cls), 'query', handle, {}).out

/** The output attributes of `create`, with the rings of drivers that have them. */
type QpCreateResult = Out<AnyQpClass['methods']['create']> & {
  readonly sendQueue?: MmapInfo
  readonly recvQueue?: MmapInfo
}

/** A queue pair with a send queue and, except for XRC initiators, a receive queue or an SRQ. */
export abstract class QueuedQp<C extends ObjectClass = ObjectClass> extends BareQp<C> implements QueuePair<C> {
  /** Offsets (`offsetOf`) and bytes of the rings. */
  readonly sendOffset: number
  readonly sendSize: number
  readonly receiveOffset: number
  readonly receiveSize: number
  // The limits that the program asked for: a device may grant more.
  readonly maxSendWr: number
  readonly maxRecvWr: number
  readonly maxInlineData: number
  readonly maxSendSge: number
  /** -1: the queue pair has no receive queue of its own (it uses an SRQ, or is an XRC initiator). */
  readonly maxRecvSge: number
  /** Of UD queue pairs: the Q_Key in `endpoint`. */
  qkey: number

  /** `limits`: requested; `hasReceiveQueue`: see `maxRecvSge`. */
  constructor(
    context: DeviceContext,
    userHandle: number,
    handle: number,
    { cap, qpNum, sendQueue, recvQueue }: QpCreateResult,
    limits: QpCreateResult['cap'],
    hasReceiveQueue: boolean,
    psn: number,
    qkey: number,
  ) {
    super(context, handle, userHandle, qpNum, psn)
    this.sendOffset = offsetOf(sendQueue)
    this.sendSize = sendQueue?.size ?? 0
    this.receiveOffset = offsetOf(recvQueue)
    this.receiveSize = recvQueue?.size ?? 0
    this.maxSendWr = limits.maxSendWr
    this.maxRecvWr = limits.maxRecvWr
    this.maxInlineData = Math.min(cap.maxInlineData, limits.maxInlineData)
    this.maxSendSge = Math.min(cap.maxSendSge, limits.maxSendSge)
    this.maxRecvSge = hasReceiveQueue ? Math.min(cap.maxRecvSge, limits.maxRecvSge) : -1
    this.qkey = qkey
  }

  /** The options that requests of this type may have, as `RequestOptionBits`. */
  abstract get requestOptionBits(): number

  /** The `StepsTo` of the type; undefined for types without connections. */
  get [STEPS](): StepsTo | undefined {
    return undefined
  }

  get pending(): number {
    return this.sends === undefined ? 0 : outstandingRequests(this.sends)
  }

  override query(): QueriedAttributes<C> {
    const { maxSendWr, maxRecvWr, maxInlineData, maxSendSge, maxRecvSge } = this
    const cap = { maxSendWr, maxRecvWr, maxSendSge, maxRecvSge: Math.max(0, maxRecvSge), maxInlineData }
    return { ...super.query(), cap }
  }

  receive(local?: Slice | readonly Slice[], id = 0): void {
    const ring = this?.receives ?? openReceives(this)
    if (id !== 0) checkId('qp.receive', id)
    const at = nextSlot(ring)
    if (at < 0) throw queueFull(this, 'qp.receive', 'receive', ring.capacity, id)
    const fault = this.context.carrier.refusesPost(this.handle, this.qpn, false, undefined, id, local)
    if (fault !== undefined) throw injectedError('qp.receive', fault)
    if (sgeCountOf(local) > this.maxRecvSge)
      throw tooManySges('qp.receive', sgeCountOf(local), this.maxRecvSge, 'maxRecvSge')
    if (local !== undefined && !isSliceOf(local, this.context)) checkLocal('qp.receive', this.context, local)
    putReceive(ring, at, id, local)
    produce(ring)
    this.context.carrier.posted(this.handle)
  }

  protected override [RELEASE_SENDS](): void {
    if (this.sends !== undefined) releaseRing(this.context.carrier, this.sendOffset, this.sendSize)
    super[RELEASE_SENDS]()
  }

  protected override [RELEASED](): void {
    if (this.receives !== undefined) releaseRing(this.context.carrier, this.receiveOffset, this.receiveSize)
    super[RELEASED]()
  }
}

/** `requestOptionBits` of the queue pair. Throws RdmaError EINVAL if the method was called without its queue pair. */
const requestOptionsOf = (qp: QueuedQp | undefined, call: string): number => {
  if (qp?.context === undefined) throw withoutObject(call)
  return qp.requestOptionBits
}

/**
 * Writes the local bytes of the request at `at` if they are not one slice of this device: inline data, several slices,
 * or copies of slices.
 */
const putOtherBytes = (qp: QueuedQp, call: string, at: number, local: SendData): void => {
  const ring = qp.sends as ProgramRing
  if (local instanceof Uint8Array) {
    if (local.length > qp.maxInlineData)
      throw invalidArgument(
        call,
        `${local.length} bytes inline, at most ${qp.maxInlineData} are possible`,
        'register the buffer and send a slice of it, or ask for a larger maxInlineData',
      )
    checkAttached(call, 'data', local)
    putInline(ring, at, local)
    return
  }
  checkLocal(call, qp.context, local)
  if (sgeCountOf(local) > qp.maxSendSge) throw tooManySges(call, sgeCountOf(local), qp.maxSendSge, 'maxSendSge')
  putMany(ring, at, local)
}

/**
 * Writes the common fields of a send request (opcode, id, flags, local bytes) into the next slot of `qp.sends`, and
 * returns the slot's byte offset. The caller writes the fields of the operation and posts the request by `endRequest`.
 * `allowed`: the options of the operation (`RequestOptionBits`). Throws RdmaError EINVAL, and ENOMEM when the queue is
 * full.
 */
export const beginRequest = (
  qp: QueuedQp,
  call: string,
  opcode: number,
  local: SendData,
  options: SendOptions | undefined,
  allowed: number,
): number => {
  if (options !== undefined) checkRequestOptions(call, options, allowed & requestOptionsOf(qp, call))
  const ring = qp?.sends ?? openSends(qp, call, options?.id ?? 0)
  const at = nextSlot(ring)
  if (at < 0) throw queueFull(qp, call, 'send', ring.capacity, options?.id ?? 0)
  const fault = qp.context.carrier.refusesPost(qp.handle, qp.qpn, true, opcode, options?.id ?? 0, local)
  if (fault !== undefined) throw injectedError(call, fault)
  const isInline = local instanceof Uint8Array
  putSend(ring, at, opcode, options?.id ?? 0, isInline ? flagsOf(options) | INLINE : flagsOf(options))
  if (!isInline && qp.maxSendSge > 0 && isSliceOf(local, qp.context)) putOne(ring, at, local)
  else putOtherBytes(qp, call, at, local)
  return at
}

/** Posts the request of `beginRequest`. */
export const endRequest = ({ sends, context, handle }: QueuedQp): void => {
  produce(sends as ProgramRing)
  context.carrier.posted(handle)
}

/** Returns the arguments of `modify` for each step from RESET to RTS. `psn`: the first PSN that this side sends. */
export type StepsTo = (path: LocalPath, psn: number, peer: Endpoint, options?: ConnectOptions) => readonly object[]

/** Definition of a type with queues. */
interface QueuePairType<T> {
  readonly cls: ObjectClass
  readonly Constructor: new (...args: ConstructorParameters<typeof QueuedQp>) => T
  readonly stepsTo: StepsTo | undefined
}

/** Defines a type with queues. `name`: the name that `console.log` shows. */
export const queuePairType = <T extends QueuedQp>(
  name: string,
  Constructor: (new (...args: ConstructorParameters<typeof QueuedQp>) => T) & { readonly prototype: T },
): QueuePairType<T> => {
  const { cls, [STEPS]: stepsTo } = Constructor.prototype
  defineVerbsClass(Constructor, 'qp', name)
  return { cls, Constructor, stepsTo }
}

/**
 * Arguments of `create` that set the first state: with `peer`, the arguments of all steps to RTS, overridden by
 * `initial`. Undefined for a queue pair in RESET.
 */
export const initialAttributesOf = (
  call: string,
  stepsTo: StepsTo | undefined,
  { path }: DeviceContext,
  psn: number,
  { peer, connection, initial }: PeerOptions<ConnectOptions> & { readonly initial?: object | undefined },
): { readonly qkey?: number } | undefined => {
  if (connection !== undefined && peer === undefined)
    throw invalidArgument(call, 'connection is given without peer', 'give the endpoint of the peer too')
  // In a chain the arguments are read later. The program may use its record again before.
  const initialArgs = initial === undefined ? undefined : toClassAttributes(call, withStateNumber(copyOfValue(initial)))
  if (peer === undefined || stepsTo === undefined) return initialArgs
  return { ...combineSteps(stepsTo(path, psn, peer, connection)), ...initialArgs }
}

/** A queue pair of a type in protection domain `pd`. */
export const queuePairPlan = <T extends Disposable & ObjectReference>(
  context: DeviceContext,
  type: QueuePairType<T>,
  pd: ObjectReference,
  options: (SendQueueOptions | QueuePairOptions) &
    PeerOptions<ConnectOptions> & { readonly initial?: object | undefined },
): Plan<T> => {
  const { cls, Constructor, stepsTo } = type
  const call = `${cls.name}.create`
  const canReceive = classReceives(cls)
  const { sendCq, signalAll = false, maxSendWr = 16, maxSendSge = 1, maxInlineData = 64 } = options
  const { recvCq = sendCq, srq, maxRecvWr = 16, maxRecvSge = 1 } = options as QueuePairOptions
  checkObject(context, call, 'pd', pd)
  checkObject(context, call, 'sendCq', sendCq)
  checkObject(context, call, 'recvCq', recvCq)
  if (srq !== undefined) checkObject(context, call, 'srq', srq)
  const psn = firstPsn()
  const initial = initialAttributesOf(call, stepsTo, context, psn, options)
  const source = eventSource(context, cls)
  const hasReceiveQueue = canReceive && srq === undefined
  const cap = {
    maxSendWr,
    maxRecvWr: hasReceiveQueue ? maxRecvWr : 0,
    maxSendSge,
    maxRecvSge: hasReceiveQueue ? maxRecvSge : 0,
    maxInlineData,
  }
  const args: AnyValues = {
    pd: pd.handle,
    sendCq: sendCq.handle,
    flags: signalAll === true ? QpFlags.values.SQ_SIG_ALL : 0,
    userHandle: BigInt(source.userHandle),
    cap,
  }
  if (canReceive) args.recvCq = recvCq.handle
  if (srq !== undefined) args.srq = srq.handle
  if (initial !== undefined) Object.assign(args, initial)
  return {
    class: cls,
    args,
    optionsByAttribute: optionsByQpAttribute,
    onSuccess: ({ object, out }) =>
      source.assign(
        new Constructor(
          context,
          source.userHandle,
          object,
          out as QpCreateResult & AnyValues,
          cap,
          hasReceiveQueue,
          psn,
          initial?.qkey ?? DEFAULT_QKEY,
        ),
      ),
    onFailure: source.release,
  }
}
