/*
 * Work requests as a device sees them, for `userdma check` and recordings: the records, and the watcher that gets them
 * (tools/clients/requests/feed.ts). Addresses are Numbers: addresses of Linux programs are below 2^48.
 */

/**
 * `userdma check --buffers`: the sends whose bytes are compared at the fetch and at the end, with the text of `--help`.
 */
export const bufferChecks = {
  sampled: 'some requests, parts of long messages',
  all: 'all bytes of all requests',
} as const
export type BufferCheck = keyof typeof bufferChecks

/** Bytes of the buffer into which a driver reads messages to compare them. */
export const SCRATCH_BYTES = 0x1_0000

/** A scatter/gather element. `address`: an iova of the region. */
export interface RequestElement {
  readonly address: number
  readonly length: number
  readonly lkey: number
}

interface RemoteRange {
  readonly address: number
  readonly length: number
  readonly rkey: number
}

/** The word for a request's number that is not its wr_id. */
export type RequestNumber = 'block' | 'request'

/** The operands of a compare-and-swap, as numbers of the host. */
export interface Swap {
  readonly expected: bigint
  readonly value: bigint
}

export interface WorkRequest {
  /** Unique in this process, ascending in the order in which devices saw the requests. */
  readonly id: number
  /** When the device saw the request for the first time, in µs. */
  readonly time: number
  /** `CoreObject.id` of the queue pair or shared receive queue. */
  readonly owner: number
  /** PostQueue (spec/session.ts): SEND, RECEIVE or SHARED. */
  readonly queue: number
  /** The number of the queue pair, or the handle of the shared receive queue. */
  readonly number: number
  /** Position among the requests of the queue since its creation or RESET, from 0. */
  readonly index: number
  /**
   * As `index`, among the requests that functions of verbs post: by it the preload library names the request
   * (shim/recorder/locks.h). Undefined: a function of a driver posts it, or there is no device that counts.
   */
  readonly postIndex?: number | undefined
  readonly wrId: bigint
  /**
   * The wr_id as the device knows it, if that is another: on mlx5 the number of a block, on EFA a number of its own.
   */
  readonly deviceWrId?: bigint
  /** The program's wr_id is unknown (it posts directly): `wrId` is the device's number. */
  readonly numbered?: RequestNumber
  /** ibv_wr_opcode; −1 for a receive. */
  readonly opcode: number
  /** ibv_send_flags (`SendFlags`). INLINE: the WQE has inline data. */
  readonly flags: number
  /** Whether the request has a completion if it succeeds. */
  readonly isSignaled: boolean
  /** Bytes of the message; for a receive, of the buffers. */
  readonly length: number
  /** Empty for inline data, and for requests that the device refuses. */
  readonly elements: readonly RequestElement[]
  /** For WRITEs, READs, atomics (8 bytes) and FLUSHes, unless the device refuses the request. */
  readonly remote: RemoteRange | undefined
  /** Of a compare-and-swap. Absent: it is none, or the operands are unknown. */
  readonly swap?: Swap
  /** For a datagram, and DC: the number of the destination queue pair. */
  readonly destQpn: number | undefined
  /**
   * For a datagram with an address handle, and DC. `qkey`: as in the request. `hasNoGrh`: of a datagram by a LID alone.
   */
  readonly destination: { readonly gid: Uint8Array; readonly qkey: number; readonly hasNoGrh?: true } | undefined
}

/** A completion that was written to the CQ, or lost because the CQ was full. */
export interface RequestCompletion {
  /** ibv_wc_status. */
  readonly status: number
  /** ibv_wc_opcode. */
  readonly opcode: number
  readonly bytes: number
  /** `CoreObject.id` of the CQ. */
  readonly cq: number
  /** Position among the completions of the CQ, from 1, as counted by `polled`. 0: the completion was lost. */
  readonly cqPosition: number
  /** Whether the completion raises an event also on a CQ that is armed for solicited completions only. */
  readonly solicited: boolean
  /** The CQ was armed before, by a call or a store. */
  readonly wasArmed?: true
  /** `CoreObject.id` of the queue pair; for a shared receive queue, of the queue pair that took the request. */
  readonly qp: number
  /**
   * For a successful receive: the received SEND or WRITE with immediate. Undefined for multicast, if the sender's
   * device is not in this process, and for UC and UD if an earlier message of the same length may have been lost.
   */
  readonly message: WorkRequest | undefined
}

/**
 * Receives the events of each request in order: `posted`, for sends `ended`, and `completed` if there is a completion,
 * or `receiveLost`. After `queueReset` the requests of the queue have no more events. The device moves the bytes of a
 * send between `posted` and `ended`.
 */
export interface RequestWatcher {
  /**
   * The device has seen the request for the first time: a send at its fetch, a receive at a check of the queue, at the
   * latest before a message takes it.
   */
  posted(request: WorkRequest): void
  /** A send has ended. An unsignaled send that succeeded has no completion. */
  ended(request: WorkRequest): void
  completed(request: WorkRequest, completion: RequestCompletion): void
  /** The queue pair that took this request of an SRQ was reset or destroyed: the request has no completion. */
  receiveLost(request: WorkRequest): void
  /** A message for the queue pair, perhaps retransmitted, found no receive request. */
  receiverNotReady(qp: number): void
  /**
   * The program has polled `count` completions of the CQ in total. The device checks this before `posted` and
   * `completed` of requests of the CQ, and before calls on the CQ.
   */
  polled(cq: number, count: number): void
  /** The queue pair or shared receive queue was reset or destroyed: outstanding requests have no completions. */
  queueReset(owner: number): void
}

const rethrow = (error: unknown): never => {
  throw error
}

/** The time of the events of requests. */
interface RequestClock {
  /** An event begins. */
  begin(): void
  /** An event begins, at this time. */
  at(time: number): void
}

/**
 * Tells each of the watchers, also of ones that are added later. `onFault` gets what a watcher throws; without it, that
 * is thrown, and later watchers are not told. `clock` learns first of each event.
 */
export const allWatchers = (
  watchers: readonly RequestWatcher[],
  onFault: (error: unknown) => void = rethrow,
  clock?: RequestClock,
): RequestWatcher => {
  const each = <A, B = void>(report: (watcher: RequestWatcher, a: A, b: B) => void) => {
    return (a: A, b: B): void => {
      clock?.begin()
      for (const watcher of watchers)
        try {
          report(watcher, a, b)
        } catch (error) {
          onFault(error)
        }
    }
  }
  return {
    posted(request) {
      clock?.at(request.time)
      for (const watcher of watchers)
        try {
          watcher.posted(request)
        } catch (error) {
          onFault(error)
        }
    },
    ended: each((watcher, request) => watcher.ended(request)),
    completed: each((watcher, request, completion) => watcher.completed(request, completion)),
    receiveLost: each((watcher, request) => watcher.receiveLost(request)),
    receiverNotReady: each((watcher, qp) => watcher.receiverNotReady(qp)),
    polled: each((watcher, cq, count) => watcher.polled(cq, count)),
    queueReset: each((watcher, owner) => watcher.queueReset(owner)),
  }
}
