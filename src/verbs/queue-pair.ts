/*
 * Queue pairs in the library: what all types share. A type's own file says what it can post and how it is connected.
 *
 * Posting writes a request into a slot of the shared ring and moves an index; the device is told once per turn of the
 * event loop. Requests are named by a number of the caller's that their completions carry.
 */
import type { QpAttributeName, qpMethods } from '../spec/classes/qp.ts'
import { QpFlags, QpState } from '../spec/enums.ts'
import type { In, ObjectClass, Out } from '../spec/schema.ts'
import { SendFlags } from '../spec/work.ts'
import type { Carrier, RingPlace } from './carrier.ts'
import { RdmaError } from './error.ts'
import type { Slice } from './memory.ts'
import type { CompletionQueue } from './queue.ts'
import { putInline, putReceive, putSend } from './requests.ts'
import { nextSlot, outstanding, type ProgramRing, produce, programRing, restart } from './ring.ts'

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

export interface QueuePairOptions {
  readonly sendCq: CompletionQueue
  /** Default: the same as `sendCq`. */
  readonly receiveCq?: CompletionQueue
  /** Requests that can be posted at once; default 16 each. */
  readonly maxSends?: number
  readonly maxReceives?: number
  /** Pieces of one request; default 1 each. */
  readonly maxSendPieces?: number
  readonly maxReceivePieces?: number
  /** Bytes that can be sent inline; default 64. */
  readonly maxInline?: number
  /** Every send makes a completion, whatever `signaled` says. */
  readonly signalAll?: boolean
}

/** Methods and attributes that every type has. */
type AnyQpClass = ObjectClass<ReturnType<typeof qpMethods<QpAttributeName>>>

export type QpStateName = keyof typeof QpState.values

export interface QueuePair<C extends ObjectClass = AnyQpClass> extends Disposable {
  readonly handle: number
  readonly qpn: number
  /** Sends that the device has not finished. */
  readonly pending: number
  /** The largest inline payload, bytes. */
  readonly maxInline: number
  readonly state: QpStateName
  query(): Out<C['methods']['query']>
  /** Changes attributes, `state` among them, as the type's state machine allows. Throws RdmaError. */
  modify(args: In<C['methods']['modify']>): void
  /** Offers a buffer for the next message that comes; none for messages without bytes. */
  receive(local?: Slice | readonly Slice[], id?: number): void
  close(): void
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
const ENOMEM = 12
const EINVAL = 22

const flagsOf = (options: SendOptions | undefined): number =>
  options === undefined
    ? SIGNALED
    : (options.signaled === false ? 0 : SIGNALED) |
      (options.solicited === true ? SOLICITED : 0) |
      (options.fence === true ? FENCE : 0)

const full = (call: string, queue: string, depth: number): RdmaError =>
  new RdmaError(
    'ENOMEM',
    ENOMEM,
    call,
    `the ${queue} queue is full: ${depth} requests are outstanding`,
    queue === 'send' ? 'take completions first, or ask for a larger maxSends' : 'ask for a larger maxReceives',
  )

export interface MadeQp<C extends ObjectClass> {
  readonly qp: QueuePair<C>
  readonly poster: Poster
}

/** Makes a queue pair of class `cls` in protection domain `pd`. */
export const createQueuePair = <C extends ObjectClass>(
  carrier: Carrier,
  cls: C,
  pd: number,
  number: number,
  options: QueuePairOptions,
  closed: () => void,
): MadeQp<C> => {
  const { sendCq, receiveCq = sendCq, maxSends = 16, maxReceives = 16 } = options
  const { maxSendPieces = 1, maxReceivePieces = 1, maxInline = 64, signalAll = false } = options
  const common = cls as unknown as AnyQpClass
  const { object: handle, out } = carrier.call(common, 'create', 0, {
    pd,
    sendCq: sendCq.handle,
    recvCq: receiveCq.handle,
    cap: {
      maxSendWr: maxSends,
      maxRecvWr: maxReceives,
      maxSendSge: maxSendPieces,
      maxRecvSge: maxReceivePieces,
      maxInlineData: maxInline,
    },
    flags: signalAll ? QpFlags.values.SQ_SIG_ALL : 0,
    userHandle: BigInt(number),
  })
  const { cap, qpNum: qpn } = out
  const places = out as unknown as { sendQueue: RingPlace; recvQueue: RingPlace }
  const send = programRing(carrier.ring(places.sendQueue))
  const receive = programRing(carrier.ring(places.recvQueue))
  let open = true

  const begin: Poster['begin'] = (call, opcode, local, sendOptions) => {
    const at = nextSlot(send)
    if (at < 0) throw full(call, 'send', send.mask)
    const id = sendOptions?.id ?? 0
    const flags = flagsOf(sendOptions)
    if (local instanceof Uint8Array) {
      if (local.length > cap.maxInlineData)
        throw new RdmaError(
          'EINVAL',
          EINVAL,
          call,
          `${local.length} bytes inline, at most ${cap.maxInlineData} are possible`,
          'register the buffer and send a slice of it, or ask for a larger maxInline',
        )
      putSend(send, at, opcode, id, flags | INLINE, undefined)
      putInline(send, at, local)
    } else {
      if (Array.isArray(local) && local.length > cap.maxSendSge)
        throw new RdmaError('EINVAL', EINVAL, call, `${local.length} pieces, at most ${cap.maxSendSge} are possible`)
      putSend(send, at, opcode, id, flags, local as Slice | readonly Slice[] | undefined)
    }
    return at
  }
  const close = (): void => {
    if (!open) return
    carrier.call(common, 'destroy', handle, {})
    open = false
    closed()
  }
  return {
    poster: {
      begin,
      end() {
        produce(send)
        carrier.posted(handle)
      },
      ring: send,
    },
    qp: {
      handle,
      qpn,
      get pending() {
        return outstanding(send)
      },
      maxInline: cap.maxInlineData,
      get state() {
        return stateNames[carrier.call(common, 'query', handle, {}).out.state]
      },
      query: () => carrier.call(cls, 'query', handle, {} as never).out as never,
      modify(args) {
        carrier.call(cls, 'modify', handle, args as never)
        if ((args as { state?: number }).state !== QpState.values.RESET) return
        restart(send)
        restart(receive)
      },
      receive(local, id = 0) {
        const at = nextSlot(receive)
        if (at < 0) throw full('qp.receive', 'receive', receive.mask)
        putReceive(receive, at, id, local)
        produce(receive)
        carrier.posted(handle)
      },
      close,
      [Symbol.dispose]: close,
    },
  }
}
