/*
 * Work requests as a device sees them, for `userdma check`: records, and the receiver that a driver reports them to
 * (`Driver.watch` in core/model.ts). A device that nobody watches has no such records.
 *
 * Addresses are Numbers: exact below 2^53, as all addresses of Linux' programs are.
 */
import { WrOpcode } from '../work.ts'

/**
 * Sends whose bytes are compared before and after: a sample of the requests, and of long messages a sample of their
 * bytes; or all.
 */
export const bufferChecks = ['sampled', 'all'] as const
export type BufferCheck = (typeof bufferChecks)[number]

/** Bytes of the memory into which a driver reads messages to compare them: few long reads take less time than many short ones. */
export const SCRATCH_BYTES = 0x1_0000

/** Of an element of a scatter/gather list. `address`: as the request has it, an address of the region of `lkey`. */
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
  /** Unique in this process, ascending in the order in which the device saw them. */
  readonly id: number
  /** When the device saw it first, µs. */
  readonly time: number
  /** The queue pair or shared receive queue: `CoreObject.id`, which is also `ObjectName.id`. */
  readonly owner: number
  /** PostQueue (spec/session.ts): SEND, RECEIVE or SHARED. */
  readonly queue: number
  /** The number of the queue pair, or the handle of the shared queue: with `queue` and `wrId` it finds the stack. */
  readonly number: number
  /** Counts the requests of this queue since its creation or RESET, from 0. */
  readonly index: number
  readonly wrId: bigint
  /** ibv_wr_opcode; of a receive −1. */
  readonly opcode: number
  /** ibv_send_flags (`SendFlags`); INLINE also if the program left it out. */
  readonly flags: number
  /** It has a completion if it succeeds. */
  readonly isSignaled: boolean
  /** Bytes of the message; of a receive, room. */
  readonly length: number
  /** Empty for inline data, and for requests that the device refuses. */
  readonly elements: readonly RequestElement[]
  /** Of WRITEs, READs, atomics (8 bytes) and FLUSHes. */
  readonly remote: RemoteRange | undefined
  /** Of a datagram: where it goes. */
  readonly destQpn: number | undefined
  /** Of a datagram with an address handle. `qkey`: as in the request, 32 bits. */
  readonly destination?: { readonly gid: Uint8Array; readonly qkey: number } | undefined
}

/** A completion, written or lost. */
export interface RequestCompletion {
  readonly status: number
  /** ibv_wc_opcode. */
  readonly opcode: number
  readonly bytes: number
  /** `CoreObject.id` of the CQ. */
  readonly cq: number
  /** Counts the completions of this CQ, from 1: it is polled once `polled` reports this count. 0: the CQ was full. */
  readonly count: number
  /** `CoreObject.id` of the queue pair: of a shared receive, the one that took it. */
  readonly qp: number
  /** Of a receive: the SEND or WRITE with immediate that took it, if its queue pair is of this process. */
  readonly message: WorkRequest | undefined
}

/**
 * Receives the events of requests in their order. Of each request: `posted`, then for sends `ended`, then `completed`
 * if it has a completion; or `forgotten`. The device moves bytes between `posted` and `ended`.
 */
export interface RequestWatcher {
  /**
   * The device has seen a request for the first time: a send when it fetches it, before anything of it is executed; a
   * receive when the device checks the queue, at the latest before a message takes it.
   */
  posted(request: WorkRequest): void
  /** A send is over. An unsignaled one that succeeded has no completion. */
  ended(request: WorkRequest): void
  completed(request: WorkRequest, completion: RequestCompletion): void
  /** A message for this queue pair found no receive; for one message perhaps several times. */
  starved(qp: number): void
  /**
   * The number of completions of a CQ that the program has polled, whenever the device sees a higher one: before
   * `posted` and `completed` of requests whose CQ it is, and before calls about it.
   */
  polled(cq: number, count: number): void
  /** The queue pair or shared queue was reset or destroyed: its requests are gone without completions. */
  forgotten(owner: number): void
}

const { SEND, SEND_WITH_IMM, SEND_WITH_INV, RDMA_WRITE_WITH_IMM } = WrOpcode.values

/** Whether it is a send that takes a receive of the peer. */
export const takesReceive = ({ opcode }: WorkRequest): boolean =>
  opcode === SEND || opcode === SEND_WITH_IMM || opcode === SEND_WITH_INV || opcode === RDMA_WRITE_WITH_IMM
