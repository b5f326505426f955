/*
 * The queues of a queue pair as the soft device knows them, in any format: where a format's requests become the
 * engine's own (`WorkSource`). A format (rings/, or the blocks of mlx5/) reads what a program, which may be hostile,
 * has posted into the engine's record, without another copy in between, and says what is outstanding. The device knows
 * neither where requests lie nor what they look like.
 */
import { type CauseName, vendorErrorOf } from '../../spec/check/causes.ts'
import type { WorkSource } from '../../transport/engine/types.ts'
import type { Arena } from '../../transport/wire/arena.ts'
import type { Destinations } from './address/destinations.ts'

/** Values of `Send.REFUSED`: the status of the completion in bits 0 to 7, the number of the cause in those above. */
export const refusal = (status: number, id: CauseName): number => status | (vendorErrorOf(id) << 8)

/** For `seen`: differs from every mark, so that the next scan finds a change. */
export const NO_MARK = -1

/** Requests that a program posts in order. */
interface PostedQueue {
  /** Maximum number of requests. */
  readonly capacity: number
  /** Maximum number of elements of a request. */
  readonly maxSge: number
  /**
   * The mark that a scan (posts.ts), or the engine at the end of the queue, has read last; or NO_MARK. Scans do not
   * read that of a shared queue.
   */
  seen: number
  /** A number from 0 on that changes when the program posts. */
  mark(): number
  /** Number of requests that are posted and not retired or taken. May take time for each of them. */
  pending(): number
  isEmpty(): boolean
  /** The queue pair moves to RESET: the queue is empty. */
  reset(): void
  /** The queue pair leaves RESET. Absent: nothing happens. */
  open?(): void
}

/** What tools tell of a send. */
export interface SendGlance {
  /** ibv_wr_opcode. */
  readonly opcode: number
  readonly isSignaled: boolean
  readonly wrId: bigint
}

export interface SendQueue extends PostedQueue {
  /** Bytes. */
  readonly maxInline: number
  /** `WorkSource.loadSend`. `destinations`: only of queue pairs that send datagrams. */
  load(
    index: number,
    into: Uint32Array,
    at: number,
    destinations: Destinations | undefined,
    isFlushed?: boolean,
  ): boolean
  /** `WorkSource.retireSend`. */
  retire(count: number): void
  copyInline(inlineAt: number, from: number, to: Arena, at: number, chunk: number, stride: number, total: number): void
  /** Whether a bind or an invalidation is among the first LOOK_AHEAD requests that were posted since `seen`. */
  isWindowOperationPosted(seen: number): boolean
  /** Number of retired requests that `glance` can tell of. */
  retired(): number
  /** The request `from` the oldest that is not retired, which is 0; -1 is the last retired one. */
  glance(from: number): SendGlance
  /** As `RequestReader.unannouncedSends`, of queue pair `qpn`. */
  unannounced?(qpn: number): number
  /** Only of queues that can be limited to an exact size (torment/). */
  readonly exact?: ExactQueue | undefined
}

export interface ReceiveQueue extends PostedQueue {
  readonly isShared: boolean
  /** Number of taken requests since creation or RESET. */
  readonly taken: number
  /**
   * SRQ limit: once fewer requests are left, it becomes 0 (not armed), and `onLimitReached` is called with the limit.
   */
  limit: number
  readonly onLimitReached: (limit: number) => void
  /** `WorkSource.takeReceive`. */
  take(into: Uint32Array, at: number): boolean
  /**
   * Calls `visit` for the posted requests that are not taken, oldest first, without the first `from`. `words`
   * (`Receive`): valid during the call.
   */
  visit(from: number, visit: (words: Uint32Array) => void): void
  /** wr_id of the oldest posted request. */
  oldestId(): bigint
  readonly exact?: ExactQueue | undefined
}

/**
 * A queue that can be limited to exactly the requested size, because the program counts free slots by the device's
 * index.
 */
export interface ExactQueue {
  /** Whether it was limited. */
  readonly isExact: boolean
  /** Limits the queue, from which nothing was taken yet. */
  limitTo(capacity: number, maxSge?: number, maxInline?: number): void
  /** The slot after the last request that is retired or taken. */
  slot(): number
  /** Of a limited queue: the program may use the slots before `slot` again. */
  release(slot: number): void
}

/** Maximum number of requests that `isWindowOperationPosted` checks. */
export const LOOK_AHEAD = 64

/** The context of a queue pair, for the order of memory window operations (posts.ts). */
export interface QueueOwner {
  /** Number of memory windows. */
  readonly windowCount: number
}

/** The queues of a row of the engine. */
export interface QpQueues {
  /** Absent for an XRC target, which belongs to no single context. */
  readonly owner?: QueueOwner
  readonly send: SendQueue
  /** The queue pair's own queue, or its SRQ; for an XRC target the SRQ of the last message. */
  receive: ReceiveQueue
  /** Only for queue pairs that send datagrams. */
  readonly destinations?: Destinations | undefined
}

/** To be called after a request was taken. If fewer are left than the limit, disarms and reports the limit. */
export const checkLimit = (queue: ReceiveQueue): void => {
  const { limit } = queue
  if (limit === 0 || queue.pending() >= limit) return
  queue.limit = 0
  queue.onLimitReached(limit)
}

/** For RESET: empties the queues, except an SRQ. */
export const resetQueues = ({ send, receive }: QpQueues): void => {
  send.reset()
  if (!receive.isShared) receive.reset()
}

/** The queue pair leaves RESET. */
export const openQueues = ({ send, receive }: QpQueues): void => {
  send.open?.()
  if (!receive.isShared) receive.open?.()
}

const nothingPosted = {
  capacity: 0,
  maxSge: 0,
  mark: () => 0,
  pending: () => 0,
  isEmpty: () => true,
  reset() {},
}
const noGlance: SendGlance = { opcode: 0, isSignaled: false, wrId: 0n }

/** The send queue of a queue pair without one: nothing is ever posted to it. */
export const emptySendQueue: SendQueue = {
  ...nothingPosted,
  maxInline: 0,
  seen: NO_MARK,
  load: () => false,
  retire() {},
  copyInline() {},
  isWindowOperationPosted: () => false,
  retired: () => 0,
  glance: () => noGlance,
}

/** The receive queue of a queue pair without one. */
export const emptyReceiveQueue: ReceiveQueue = {
  ...nothingPosted,
  isShared: false,
  taken: 0,
  seen: NO_MARK,
  limit: 0,
  onLimitReached() {},
  take: () => false,
  visit() {},
  oldestId: () => 0n,
}

/** The SRQ with number `srqn`; undefined if the XRC target in this row must not use it. */
export type FindSrq = (
  row: number,
  srqn: number,
) => { readonly queue: ReceiveQueue; readonly pd: number; readonly cq: number } | undefined

/** The work source of an engine whose rows have these queues. */
export const queueWork = (
  queues: readonly (QpQueues | undefined)[],
  findShared: FindSrq = () => undefined,
): WorkSource => {
  const queuesOf = queues as readonly QpQueues[] // the engine names rows that exist
  return {
    loadSend: (row, index, into, at, isFlushed) => {
      const { send, destinations } = queuesOf[row]
      return send.load(index, into, at, destinations, isFlushed)
    },
    retireSend: (row, count) => queuesOf[row].send.retire(count),
    copyInline: (row, inlineAt, from, to, at, chunk, stride, total) =>
      queuesOf[row].send.copyInline(inlineAt, from, to, at, chunk, stride, total),
    takeReceive: (row, into, at) => queuesOf[row].receive.take(into, at),
    selectShared: (row, srqn, into) => {
      const found = findShared(row, srqn)
      if (found === undefined) return false
      queuesOf[row].receive = found.queue
      into[0] = found.pd
      into[1] = found.cq
      return true
    },
  }
}
