/*
 * Queue pairs in the library: what all types share. A type's own file says what it can post and how it is connected.
 *
 * Posting writes a request into a slot of the shared ring and moves an index; the device is told of all that was posted
 * in one go. Requests are named by a number of the caller's that their completions carry.
 */
import type { QpAttributeName, qpMethods } from '../spec/classes/qp.ts'
import { QpFlags, QpState } from '../spec/enums.ts'
import type { AnyValues, In, ObjectClass, Out } from '../spec/schema.ts'
import { SendFlags } from '../spec/work.ts'
import type { Answered, RingPlace } from './carrier.ts'
import { invalid, type RdmaError, refused } from './error.ts'
import type { Slice } from './memory.ts'
import { closer, type EventSource, eventSource, type Kit, type Named, type Plan } from './plan.ts'
import { putInline, putReceive, putSend } from './requests.ts'
import { nextSlot, noProgramRing, outstanding, type ProgramRing, produce, programRing, restart } from './ring.ts'

/** Bytes that a request sends: registered ones, several pieces of them, or any few bytes, which are copied (inline). */
export type Local = Slice | readonly Slice[] | Uint8Array

export interface SendOptions {
  /** Comes back in the completion; an exact Number, default 0. */
  readonly id?: number
  /** Makes a completion; default true. Failed requests always do. */
  readonly signaled?: boolean
  /** Wakes a peer who waits for solicited completions only. */
  readonly solicited?: boolean
  /** Starts after earlier READs and atomics are complete. */
  readonly fence?: boolean
}

export interface SendQueueOptions {
  readonly sendCq: Named
  /** Requests that can be posted at once; default 16. */
  readonly maxSends?: number
  /** Pieces of one request; default 1. */
  readonly maxSendPieces?: number
  /** Bytes that can be sent inline; default 64. */
  readonly maxInline?: number
  /** Every send makes a completion, whatever `signaled` says. */
  readonly signalAll?: boolean
}

export interface QueuePairOptions extends SendQueueOptions {
  /** Default: the same as `sendCq`. */
  readonly receiveCq?: Named
  /** Receive requests come from there; the queue pair has no receive queue of its own. */
  readonly srq?: Named
  /** Requests that can be posted at once; default 16. */
  readonly maxReceives?: number
  /** Pieces of one request; default 1. */
  readonly maxReceivePieces?: number
}

/** Methods and attributes that every type has. */
type AnyQpClass = ObjectClass<ReturnType<typeof qpMethods<QpAttributeName>>>

export type QpStateName = keyof typeof QpState.values

/** What all queue pairs have, those without queues too. */
export interface BareQueuePair<C extends ObjectClass = AnyQpClass> extends Disposable {
  readonly handle: number
  readonly qpn: number
  readonly state: QpStateName
  query(): Out<C['methods']['query']>
  /** Changes attributes, `state` among them, as the type's state machine allows. Throws RdmaError. */
  modify(args: In<C['methods']['modify']>): void
  close(): void
}

export interface SendingQueuePair<C extends ObjectClass = AnyQpClass> extends BareQueuePair<C> {
  /** Sends that the device has not finished. */
  readonly pending: number
  /** The largest inline payload, bytes. */
  readonly maxInline: number
}

export interface QueuePair<C extends ObjectClass = AnyQpClass> extends SendingQueuePair<C> {
  /**
   * Offers a buffer for the next message that comes; none for messages without bytes. Throws RdmaError ENOMEM when the
   * queue is full, EINVAL for a queue pair that takes from a shared queue.
   */
  receive(local?: Slice | readonly Slice[], id?: number): void
}

/** What a type's file builds its requests with. */
export interface Poster {
  /**
   * A slot of the send queue with the common part of a request written; throws RdmaError ENOMEM when the queue is full.
   */
  begin(call: string, opcode: number, local: Local | undefined, options: SendOptions | undefined): number
  /** The request at the slot is whole. */
  end(): void
  readonly ring: ProgramRing
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

export const full = (call: string, queue: string, depth: number): RdmaError =>
  refused(
    'ENOMEM',
    call,
    `the ${queue} queue is full: ${depth} requests are outstanding`,
    queue === 'send' ? 'take completions first, or ask for a larger maxSends' : 'ask for a larger maxReceives',
  )

export const tooMany = (call: string, pieces: number, most: number): RdmaError =>
  invalid(call, `${pieces} pieces, at most ${most} are possible`)

/** Adds a property to `object` that is read anew each time. */
export const withAccessor = <T extends object, K extends string, V>(
  object: T,
  name: K,
  get: () => V,
): T & { readonly [P in K]: V } =>
  Object.defineProperty(object, name, { get, enumerable: true }) as T & { readonly [P in K]: V }

/** What needs no queues: query, modify, destroy. `reset`: the queue pair has moved to RESET. */
export const bareQueuePair = <C extends ObjectClass>(
  { carrier }: Kit,
  cls: C,
  handle: number,
  qpn: number,
  closed: () => void,
  reset: () => void,
): BareQueuePair<C> => {
  const common = cls as unknown as AnyQpClass
  const close = closer(carrier, cls, handle, closed)
  return {
    handle,
    qpn,
    get state() {
      return stateNames[carrier.call(common, 'query', handle, {}).out.state]
    },
    query: () => carrier.call(cls, 'query', handle, {} as never).out as never,
    modify(args) {
      carrier.call(cls, 'modify', handle, args as never)
      if ((args as { state?: number }).state === QpState.values.RESET) reset()
    },
    close,
    [Symbol.dispose]: close,
  }
}

type Made = Out<AnyQpClass['methods']['create']> & { readonly sendQueue?: RingPlace; readonly recvQueue?: RingPlace }

/** A made queue pair with a send queue. `shared`: it has no receive queue of its own. */
const sendingQueuePair = <C extends ObjectClass>(
  kit: Kit,
  cls: C,
  source: EventSource,
  { object: handle, out }: Answered<AnyValues>,
  shared: boolean,
): { readonly qp: QueuePair<C>; readonly poster: Poster } => {
  const { carrier } = kit
  const { cap, qpNum: qpn, sendQueue, recvQueue } = out as unknown as Made
  const ringAt = (place: RingPlace | undefined): ProgramRing =>
    place === undefined ? noProgramRing(carrier.layout) : programRing(carrier, place)
  const send = ringAt(sendQueue)
  const receive = shared ? undefined : ringAt(recvQueue)
  const closed = (): void => {
    source.forget()
    if (sendQueue !== undefined) carrier.release(sendQueue)
    if (recvQueue !== undefined) carrier.release(recvQueue)
  }
  const bare = bareQueuePair(kit, cls, handle, qpn, closed, () => {
    restart(send)
    if (receive !== undefined) restart(receive)
  })

  const begin: Poster['begin'] = (call, opcode, local, options) => {
    const at = nextSlot(send)
    if (at < 0) throw full(call, 'send', send.capacity)
    const id = options?.id ?? 0
    const flags = flagsOf(options)
    if (local instanceof Uint8Array) {
      if (local.length > cap.maxInlineData)
        throw invalid(
          call,
          `${local.length} bytes inline, at most ${cap.maxInlineData} are possible`,
          'register the buffer and send a slice of it, or ask for a larger maxInline',
        )
      putSend(send, at, opcode, id, flags | INLINE, undefined)
      putInline(send, at, local)
    } else {
      if (Array.isArray(local) && local.length > cap.maxSendSge) throw tooMany(call, local.length, cap.maxSendSge)
      putSend(send, at, opcode, id, flags, local as Slice | readonly Slice[] | undefined)
    }
    return at
  }
  const poster: Poster = {
    begin,
    end() {
      produce(send)
      carrier.posted(handle)
    },
    ring: send,
  }
  const queues = {
    maxInline: cap.maxInlineData,
    receive(local?: Slice | readonly Slice[], id = 0): void {
      if (receive === undefined)
        throw invalid('qp.receive', 'it takes from a shared receive queue', 'post to that one, with srq.receive()')
      const at = nextSlot(receive)
      if (at < 0) throw full('qp.receive', 'receive', receive.capacity)
      if (Array.isArray(local) && local.length > cap.maxRecvSge)
        throw tooMany('qp.receive', local.length, cap.maxRecvSge)
      putReceive(receive, at, id, local)
      produce(receive)
      carrier.posted(handle)
    },
  }
  return { poster, qp: withAccessor(Object.assign(bare, queues), 'pending', () => outstanding(send)) }
}

/** Attributes of a send queue as calls have them. */
const sendArguments = (options: SendQueueOptions, number: number) => ({
  sendCq: options.sendCq.handle,
  flags: options.signalAll === true ? QpFlags.values.SQ_SIG_ALL : 0,
  userHandle: BigInt(number),
})
const sendCap = ({ maxSends = 16, maxSendPieces = 1, maxInline = 64 }: SendQueueOptions) => ({
  maxSendWr: maxSends,
  maxSendSge: maxSendPieces,
  maxInlineData: maxInline,
})

/** A queue pair of class `cls` in protection domain `pd`; `finish` adds what the type has beyond what all have. */
export const queuePairPlan = <C extends ObjectClass, T extends Disposable>(
  kit: Kit,
  cls: C,
  pd: Named,
  options: SendQueueOptions | QueuePairOptions,
  finish: (qp: QueuePair<C>, poster: Poster) => T,
): Plan<T> => {
  const source = eventSource(kit)
  const receives = 'recvCq' in (cls.methods.create?.in ?? {})
  const { receiveCq = options.sendCq, srq, maxReceives = 16, maxReceivePieces = 1 } = options as QueuePairOptions
  const receiveCap =
    receives && srq === undefined
      ? { maxRecvWr: maxReceives, maxRecvSge: maxReceivePieces }
      : { maxRecvWr: 0, maxRecvSge: 0 }
  return {
    class: cls,
    args: {
      pd: pd.handle,
      ...sendArguments(options, source.number),
      cap: { ...sendCap(options), ...receiveCap },
      ...(receives && { recvCq: receiveCq.handle }),
      ...(srq !== undefined && { srq: srq.handle }),
    },
    made(answered) {
      const { qp, poster } = sendingQueuePair(kit, cls, source, answered, !receives || srq !== undefined)
      return source.is(finish(qp, poster))
    },
    failed: source.forget,
  }
}
