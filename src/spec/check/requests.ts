/*
 * Work requests as a device sees them, for `userdma check`: the records, and the watcher to which a driver reports them
 * (`Driver.watch` in core/model.ts). A driver without a watcher makes no records.
 *
 * Addresses are Numbers, which are exact below 2^53; addresses of Linux programs are below 2^47 (below 2^48 on arm64).
 */
import { WrOpcode } from '../work.ts'

/**
 * `userdma check --buffers`: the sends whose bytes are compared at fetch and when the device has finished them.
 * `sampled`: a sample of the sends, and of long messages a sample of the bytes; `all`: all bytes of all sends.
 */
export const bufferChecks = ['sampled', 'all'] as const
export type BufferCheck = (typeof bufferChecks)[number]

/**
 * Bytes of the memory into which a driver reads messages to compare them: few long reads take less time than many short
 * ones.
 */
export const SCRATCH_BYTES = 0x1_0000

/** A scatter/gather element. `address`: its `addr`, an iova of the region. */
export interface RequestElement {
  readonly address: number
  readonly length: number
  readonly lkey: number
}

/** Memory of the peer that a request names. */
export interface RemoteRange {
  readonly address: number
  readonly length: number
  readonly rkey: number
}

export interface WorkRequest {
  /** Unique in this process, ascending in the order in which devices saw the requests. */
  readonly id: number
  /** When the device saw the request first, in µs. */
  readonly time: number
  /** `CoreObject.id` of the queue pair or shared receive queue, by which the checker knows it (`ObjectName.id`). */
  readonly owner: number
  /** PostQueue (spec/session.ts): SEND, RECEIVE or SHARED. */
  readonly queue: number
  /**
   * The number of the queue pair, or the handle of the shared receive queue: with `queue` and `wrId` the key of the
   * post's stack.
   */
  readonly number: number
  /** Position among the requests of this queue since its creation or RESET, from 0. */
  readonly index: number
  readonly wrId: bigint
  /** ibv_wr_opcode; of a receive −1. */
  readonly opcode: number
  /** ibv_send_flags (`SendFlags`). INLINE is set whenever the WQE has inline data. */
  readonly flags: number
  /** Whether the request has a completion if it succeeds. */
  readonly isSignaled: boolean
  /** Bytes of the message; of a receive, the bytes of its buffers. */
  readonly length: number
  /** Empty for inline data, and for requests that the device refuses. */
  readonly elements: readonly RequestElement[]
  /** Of WRITEs, READs, atomics (8 bytes) and FLUSHes, except those that the device refuses. */
  readonly remote: RemoteRange | undefined
  /** Of a datagram: the number of the destination queue pair. */
  readonly destQpn: number | undefined
  /** Of a datagram with an address handle. `qkey`: as in the request, 32 bits. */
  readonly destination: { readonly gid: Uint8Array; readonly qkey: number } | undefined
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
  /**
   * Position among the completions of this CQ, from 1: the completion is polled once `polled` reports this count. 0:
   * the completion was lost.
   */
  readonly cqPosition: number
  /** `CoreObject.id` of the queue pair; for a request of a shared receive queue, the one that took it. */
  readonly qp: number
  /**
   * Of a successful receive: the SEND or WRITE with immediate that took it, if a device of this process sent it, but
   * not to a multicast group.
   */
  readonly message: WorkRequest | undefined
}

/**
 * Receives the events of requests in their order. Each request has `posted`, then for sends `ended`, then `completed`
 * if it has a completion; `queueReset` of its queue can end this at any time. The device moves the bytes of a send
 * between `posted` and `ended`.
 */
export interface RequestWatcher {
  /**
   * The device has seen a request for the first time: a send when the device fetches it, before execution; a receive
   * when the device checks the queue, at the latest before a message takes it.
   */
  posted(request: WorkRequest): void
  /** A send has ended. An unsignaled one that succeeded has no completion. */
  ended(request: WorkRequest): void
  completed(request: WorkRequest, completion: RequestCompletion): void
  /** A message for this queue pair found no receive request; may be called again for its retransmissions. */
  receiverNotReady(qp: number): void
  /**
   * The number of completions of a CQ that the program has polled, whenever the device sees a higher one: before
   * `posted` and `completed` of requests whose CQ it is, and before calls about it.
   */
  polled(cq: number, count: number): void
  /** The queue pair or shared queue was reset or destroyed: its requests are gone without completions. */
  queueReset(owner: number): void
}

const { SEND, SEND_WITH_IMM, SEND_WITH_INV, RDMA_WRITE_WITH_IMM } = WrOpcode.values

/** Whether a send takes a receive request of the peer. */
export const takesReceive = ({ opcode }: WorkRequest): boolean =>
  opcode === SEND || opcode === SEND_WITH_IMM || opcode === SEND_WITH_INV || opcode === RDMA_WRITE_WITH_IMM
