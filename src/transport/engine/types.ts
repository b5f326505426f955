/*
 * Interfaces between a transport engine and the driver that owns it (docs/decisions/engines-without-io.md). The engine
 * does no I/O. Packets, doorbells and time go in; runs of packets, completions and events come out, through interfaces
 * that the driver implements. Times are microseconds of any monotonic clock.
 *
 * A queue pair is identified by its row, a small integer. 64-bit addresses are pairs of u32 (hi, lo). Only causes of
 * failures are allocated per packet or work request.
 */
import type { Cause } from '../../spec/check/causes.ts'
import type { EngineCounter } from '../../spec/counters.ts'
import type { ActingRule } from '../../spec/faults.ts'
import type { Arena } from '../wire/arena.ts'

// ---- work requests: 32-bit words, in the same layout for every kind of ring ----

/** Words of a send work request; scatter/gather elements (`Sge`) follow at `SGE`. */
export const Send = {
  /**
   * ibv_wr_opcode: 0 WRITE, 1 WRITE_WITH_IMM, 2 SEND, 3 SEND_WITH_IMM, 4 READ, 5 CMP_SWAP, 6 FETCH_ADD, 7 LOCAL_INV, 8
   * BIND_MW (`BindMw`), 9 SEND_WITH_INV, 12 MEMCPY (`Copy`), 14 FLUSH (`Flush`), 15 ATOMIC_WRITE (8 bytes of data).
   */
  OPCODE: 0,
  /**
   * ibv_send_flags: 1 fence, 2 signaled, 4 solicited, 8 inline. In an XRC request the bits from 8 on are the number of
   * the receiver's SRQ.
   */
  FLAGS: 1,
  ID_LO: 2,
  ID_HI: 3,
  /** Number of scatter/gather elements; 0 when inline. */
  SGES: 4,
  /** Bytes: sum of the elements' lengths, or length of the inline data. */
  LENGTH: 5,
  /** Immediate as sent (the u32 whose big-endian bytes are on the wire), or the key to invalidate. */
  IMM: 6,
  RKEY: 7,
  REMOTE_LO: 8,
  REMOTE_HI: 9,
  /** CMP_SWAP: the value to compare; FETCH_ADD: the value to add. */
  COMPARE_LO: 10,
  COMPARE_HI: 11,
  SWAP_LO: 12,
  SWAP_HI: 13,
  /** Position of inline data in the WorkSource; the engine passes it to `copyInline`. */
  INLINE_AT: 14,
  /**
   * UD only, in words that UD does not use otherwise: QPN (24 bits); Q_Key (if its top bit is set, the QP's own Q_Key
   * is sent); the port's number of the path to the destination.
   */
  DEST_QPN: 8,
  QKEY: 9,
  FLOW: 10,
  /**
   * RAW only, as for UD: the frame's first bytes, which precede the data, from INLINE_AT + HEADER_AT on, and their
   * number; `FrameChecksum` bits of the checksums that the device computes.
   */
  HEADER_AT: 7,
  HEADER_BYTES: 8,
  CHECKSUMS: 9,
  /**
   * 0 for a valid request. For an invalid request, such as one with too many elements: bits 0 to 7 are the
   * ibv_wc_status of its completion, the other bits the number of the cause (spec/check/causes.ts; 0: unknown).
   */
  REFUSED: 15,
  SGE: 16,
} as const

/** Words of a BIND_MW request. */
export const BindMw = {
  /** The new key; only its low byte is used. */
  KEY: Send.IMM,
  /** The window's current key. */
  WINDOW: Send.RKEY,
  LO: Send.REMOTE_LO,
  HI: Send.REMOTE_HI,
  LENGTH_LO: Send.COMPARE_LO,
  LENGTH_HI: Send.COMPARE_HI,
  /** lkey of the region. */
  LKEY: Send.SWAP_LO,
  /** ibv_access_flags of the window. */
  ACCESS: Send.SWAP_HI,
} as const

/** Words of a FLUSH request. */
export const Flush = {
  /** Bytes of the range at REMOTE. */
  LENGTH: Send.COMPARE_LO,
  /** `flushPlacement` and `flushSelectivity` (spec/wire/headers.ts). */
  PLACEMENT: Send.SWAP_LO,
  SELECTIVITY: Send.SWAP_HI,
} as const

/** A MEMCPY copies from its first element to its second one, of the same length. Its other words are the engine's. */
export const Copy = {
  /** Bytes that were copied. */
  DONE: Send.REMOTE_LO,
} as const

/** Of a request that is refused since the target of DC has another access key: the request's. */
export const AccessKey = { LO: Send.REMOTE_LO, HI: Send.REMOTE_HI } as const

/** Words of a receive work request; elements (`Sge`) follow at `SGE`. */
export const Receive = { ID_LO: 0, ID_HI: 1, SGES: 2, LENGTH: 3, SGE: 4 } as const

/** Words of one scatter/gather element. */
export const Sge = { LO: 0, HI: 1, LENGTH: 2, LKEY: 3, WORDS: 4 } as const

/** Words of a completion (ibv_wc), with libibverbs' numbers for status, opcode and flags. */
export const Completion = {
  ID_LO: 0,
  ID_HI: 1,
  STATUS: 2,
  OPCODE: 3,
  BYTES: 4,
  /** Immediate (wire value, see Send.IMM) or the invalidated rkey. */
  IMM: 5,
  QPN: 6,
  SRC_QPN: 7,
  /** ibv_wc_flags: 1 GRH, 2 WITH_IMM, 8 WITH_INV. */
  FLAGS: 8,
  /** vendor_err: the number of the cause of an error. */
  VENDOR: 9,
  PKEY_INDEX: 10,
  /**
   * Bits 0 to 3: service level; of a datagram on InfiniBand bits 16 to 31: the sender's LID. RAW: the headers of the
   * frame, and IMM the tag of its rule (`Engine.onFrame`).
   */
  SL: 11,
  WORDS: 12,
} as const

/**
 * The rings of queue pairs, in any layout. A hostile program may write to them, so the implementation must bound what
 * it reads. It reports invalid requests through `Send.REFUSED`. The engine checks and executes its own copy of a WQE.
 */
export interface WorkSource {
  /**
   * Copies send WQE number `index` (counted from 0 since RESET, modulo 2^32) to `into`, from word `at` on, with at most
   * the number of elements given to `Engine.create`. False if the WQE was not posted yet. Indices ascend by one; only
   * the last one may be loaded again. `isFlushed`: it completes at once and does nothing; default false.
   */
  loadSend(row: number, index: number, into: Uint32Array, at: number, isFlushed?: boolean): boolean
  /** The `count` oldest send WQEs have completed: their slots are free. */
  retireSend(row: number, count: number): void
  /**
   * Copies `total` bytes of inline data, from byte `start` on, to the arena, in chunks as in `Memory.read`. `inlineAt`:
   * the request's INLINE_AT.
   */
  copyInline(
    row: number,
    inlineAt: number,
    start: number,
    arena: Arena,
    at: number,
    chunk: number,
    stride: number,
    total: number,
  ): void
  /** Takes the oldest receive WQE and copies it; false if there is none. */
  takeReceive(row: number, into: Uint32Array, at: number): boolean
  /**
   * XRC target: from now on, `takeReceive` of this row takes from the SRQ with number `srqn`. `into` gets the SRQ's
   * protection domain and CQ. False if the row's XRC domain has no such SRQ. Absent if no row is an XRC target.
   */
  selectShared?(row: number, srqn: number, into: Int32Array): boolean
}

/** Access rights to check: bits of ibv_access_flags. */
export const Access = {
  /** Every region grants this. */
  LOCAL_READ: 0,
  LOCAL_WRITE: 1,
  REMOTE_WRITE: 2,
  REMOTE_READ: 4,
  REMOTE_ATOMIC: 8,
  FLUSH_GLOBAL: 0x100,
  FLUSH_PERSISTENT: 0x200,
} as const

/**
 * Registered memory. A region is a small integer that is valid until the engine's current call returns. Later the key
 * is resolved again, so a deregistered region is never accessed.
 *
 * Copies are strided. In memory the `total` bytes are consecutive. In the arena they are chunks of `chunk` bytes, one
 * every `stride` bytes, like payloads in a run of packets.
 */
export interface Memory {
  /**
   * The region of `key` if it belongs to `pd`, grants `access` to the queue pair `qpn` and contains the range;
   * otherwise -1. For remote access, a memory window is a region too.
   */
  resolve(pd: number, key: number, hi: number, lo: number, length: number, access: number, qpn: number): number
  /** Why `resolve` refuses these arguments; undefined if unknown. */
  explain?(
    pd: number,
    key: number,
    hi: number,
    lo: number,
    length: number,
    access: number,
    qpn: number,
  ): Cause | undefined
  /** Whether `key` belongs to `pd` and grants `access` to the queue pair `qpn`, regardless of the range. */
  grants(pd: number, key: number, access: number, qpn: number): boolean
  /**
   * Copies memory to the arena, from offset `at` on. Returns 0 or an errno (EFAULT: the pages were unmapped). After an
   * error the bytes in the arena are undefined.
   */
  read(
    region: number,
    hi: number,
    lo: number,
    arena: Arena,
    at: number,
    chunk: number,
    stride: number,
    total: number,
  ): number
  /** Whether `pd` has keys whose bytes are so scattered that copies take long. Absent: never. */
  isScattered?(pd: number): boolean
  /** Number of ranges that copies of scattered bytes have accessed. Absent: always 0. */
  rangeAccesses?(): number
  /** Whether the last access failed because the process has ended. If so, the queue pair does not respond. */
  hasProcessEnded(): boolean
  /** For the cause: whether the last access failed because missing pages took too long. Absent if it cannot happen. */
  hasTimedOut?(): boolean
  /** For the cause: the fault rule by which the last access failed. Absent: never. */
  injectedFault?(): ActingRule | undefined
  /**
   * Copies from the arena to memory. Returns as `read`. If `completeWrites` is absent, it copies in ascending order and
   * in as few steps as possible. `isOwn`: for a request of the queue
   * pair's own, such as a READ.
   */
  write(
    region: number,
    hi: number,
    lo: number,
    arena: Arena,
    at: number,
    chunk: number,
    stride: number,
    total: number,
    isOwn?: boolean,
  ): number
  /** Completes all writes for the queue pair `qpn`. Absent: they are complete when `write` returns. */
  completeWrites?(qpn: number): void
  /**
   * For memory that JavaScript can access: returns the arena with these bytes, and in `offset[0]` their offset. Both
   * are valid until the engine's current call returns. Undefined for other memory. Absent: all data is copied with
   * `read` and `write`.
   */
  locate?(region: number, hi: number, lo: number, length: number, offset: Float64Array): Arena | undefined
  /** Whether `locate` may find any memory: false if JavaScript can access no region. Defined together with `locate`. */
  canLocate?(): boolean
  /**
   * `resolve` and `locate` combined; undefined if one of them fails, and for the key of a memory window. Defined
   * together with `locate`.
   */
  resolveAndLocate?(
    pd: number,
    key: number,
    hi: number,
    lo: number,
    length: number,
    access: number,
    offset: Float64Array,
  ): Arena | undefined
  /** Copies bytes between located ranges, which may overlap. Defined together with `locate`. */
  copyLocated?(source: Arena, sourceAt: number, target: Arena, targetAt: number, length: number): void
  /**
   * 64-bit compare and swap in host byte order, atomic among this device's operations. `original` gets the old value
   * (lo, hi). Returns as `read`.
   */
  compareSwap(
    region: number,
    hi: number,
    lo: number,
    compareHi: number,
    compareLo: number,
    swapHi: number,
    swapLo: number,
    original: Uint32Array,
  ): number
  /** 64-bit fetch and add; otherwise as compareSwap. */
  fetchAdd(region: number, hi: number, lo: number, addHi: number, addLo: number, original: Uint32Array): number
  /**
   * Executes a BIND_MW of the queue pair `qpn`; its words (`BindMw`) begin at `words[at]`. False, without any change,
   * if a rule forbids it (IBA 10.6.7).
   */
  bindWindow(pd: number, qpn: number, words: Uint32Array, at: number): boolean
  /** Why `bindWindow` refuses; as `explain`. */
  explainBind?(pd: number, words: Uint32Array, at: number): Cause | undefined
  /**
   * Executes a LOCAL_INV, or the invalidation by a peer's SEND. `key` must be of a window in `pd` that is bound to the
   * queue pair `qpn` and may be invalidated this way. Returns 0, or the ibv_wc_status with which a LOCAL_INV fails.
   */
  invalidate(pd: number, qpn: number, key: number): number
}

export interface Completions {
  /**
   * Adds a completion to CQ `cq`. `words`: as in `Completion`, valid during the call. `solicited`: raises an event also
   * on a CQ that is armed for solicited completions only.
   */
  push(cq: number, words: Uint32Array, solicited: boolean): void
}

export interface Events {
  /**
   * Raises an affiliated asynchronous event of a QP (ibv_event_type: 1 QP_FATAL, 2 QP_REQ_ERR, 3 QP_ACCESS_ERR, 4
   * COMM_EST, 5 SQ_DRAINED, 16 LAST_WQE_REACHED).
   */
  raise(row: number, type: number, cause: Cause): void
}

/**
 * Receives the causes of failures (spec/check/causes.ts). `send` and `receive` are called before the completion,
 * `flushed` after the completions. `status`: ibv_wc_status, never SUCCESS.
 */
export interface Causes {
  /** A send request failed; its words (`Send`) begin at `words[at]`. */
  send(row: number, words: Uint32Array, at: number, status: number, cause: Cause): void
  /** The receive request with this wr_id failed. */
  receive(row: number, idHi: number, idLo: number, status: number, cause: Cause): void
  /** `count` WQEs of the send or receive queue were flushed; `code`: vendor error of the cause. */
  flushed(row: number, isSend: boolean, count: number, code: number): void
  /** The request with `psn` was refused with a NAK that moves the queue pair to ERR. */
  nak(row: number, psn: number, cause: Cause): void
  /**
   * A message or packet was dropped silently. `wrId`: of the affected send or receive request. `sourceQpn`: the sender
   * of a datagram that the receiver dropped, unless it was sent to a multicast group.
   */
  dropped(row: number, cause: Cause, wrId?: bigint, sourceQpn?: number): void
  /** Why the queue pair's peer has refused `psn`; undefined if unknown, as for a peer in another process. */
  causeAtPeer(row: number, psn: number): Cause | undefined
  /**
   * PSN_DIFFERS if the requester, which is the queue pair (`isRequester`) or its peer, sends from another first PSN
   * than the responder expects. Undefined if not, or if it is unknown, as for a peer in another process.
   */
  psnsDiffer(row: number, isRequester: boolean): Cause | undefined
  /** The responder answers a request with `psn` as a duplicate. */
  duplicate(row: number, psn: number): void
}

/**
 * The destination of packets. A run is `count` back-to-back packets in the sink's arena. Each has `packetBytes` bytes,
 * except the last, which has `lastBytes` ≤ packetBytes. A packet is a UDP payload: BTH … payload, padding, and 4 bytes
 * of space for the ICRC, which the port writes.
 */
export interface TransmitSink {
  readonly arena: Arena
  /** Limits: packets of a run, and bytes of a run and of a reservation. */
  readonly maxPackets: number
  readonly maxBytes: number
  /** A single packet is added to a run only if the run has fewer packets than this; absent: maxPackets. */
  readonly maxSinglePacketRun?: number | undefined
  /**
   * Reserves `bytes` in the arena for runs. Returns the offset (a multiple of 64), or -1 if the port is full. The
   * reservation ends with the next successful `reserve`, and at the end of the poll.
   */
  reserve(bytes: number): number
  /**
   * Sends a run that was built in the last reservation, behind the runs already sent from it. Back-to-back runs let the
   * receiver write memory with one DMA. `flow`: as in `QpAttributes`.
   */
  commit(offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void
}

/** Checksums that a sender of raw packets leaves to the device: of the IPv4 header; of TCP or UDP. */
export const FrameChecksum = { L3: 1, L4: 2 } as const

/** Where queue pairs of the service RAW send frames. */
export interface FrameSink {
  readonly arena: Arena
  /** Bytes of the longest frame. */
  readonly maxBytes: number
  /** The offset of `bytes` bytes in the arena; -1 if there is no room before the next poll. */
  reserve(bytes: number): number
  /** Sends the frame in the last reservation. `checksums`: `FrameChecksum`. */
  commit(at: number, bytes: number, checksums: number): void
}

/** Bits of `GrhBuilder.path`, beside those of `Completion.SL`. */
export const DatagramPath = { HAS_GRH: 1 << 4, LID_SHIFT: 16 } as const

/** Builds the GRH of received datagrams (IBA 11.4.1.2, annex A17.4.5.2). */
export interface GrhBuilder {
  /**
   * Of the packet of the last `header`: `Completion.SL`, and DatagramPath.HAS_GRH unless the 40 bytes are only room.
   */
  path: number
  /**
   * Writes the GRH (40 bytes) of a received packet to `arena`, and returns the GRH's offset. `at`, `length`: offset and
   * bytes of the packet. Over IPv4 the last 20 bytes of the GRH are the IPv4 header. Space for 4096 bytes of payload
   * follows the GRH.
   */
  header(arena: Arena, at: number, length: number): number
}

/**
 * A device that receives messages from engines of this process without packets (transport/engine/loopback/slices.ts).
 * Flows (`QpAttributes.flow`) are numbers of this device's port.
 */
export interface LocalPeerDevice {
  /** The state of the device's engine, set by `createEngine`. */
  state: object | undefined
  /** The arena that all local devices share. */
  readonly arena: Arena
  /** Offset of this device's staging buffer of 64 KiB in `arena`. */
  readonly staging: number
  /** The port's counters, updated as for packets. */
  readonly counters: { sentPackets: number; sentBytes: number; receivedPackets: number; receivedBytes: number }
  /** The row of a QPN; -1 if there is none. */
  rowOf(qpn: number): number
  /** The device that receives this flow; null if it is not in this process, or needs packets. */
  receiverOf(flow: number): LocalPeerDevice | null
  /** This port's address as a `QpAttributes.peer` of the device that receives this flow. */
  peerAt(flow: number): number
  /** Whether the device has received all packets sent to it. */
  isIdle(): boolean
}

/**
 * Told what the engine does, for observers: with work requests only while `watched.requests` is not undefined. Words
 * are valid during the call.
 */
export interface WorkTaps {
  readonly watched: { readonly requests: object | undefined }
  /** The WQE at `words[at]` (`Send`) was fetched. Its bytes are not read yet. */
  loaded(row: number, words: Uint32Array, at: number): void
  /** The `count` oldest send WQEs have ended, and their completions follow. `isFlushed`: with WR_FLUSH_ERR. */
  retired(row: number, count: number, isFlushed: boolean): void
  /** The WQE at `words[at]` (`Receive`) was taken. */
  taken(row: number, words: Uint32Array, at: number): void
  /** A message found no receive WQE. */
  notReady(row: number): void
  /** Always: a QP enters ERR, and its queues are not flushed yet; or it leaves ERR. */
  inError(qpn: number, isInError: boolean): void
}

/** Choices that the specification leaves to a responder (drivers/soft/torment/). */
export interface Choices {
  /** Whether an ACK or NAK that would be sent now waits until `Engine.resume`. `msn`: of the last executed message. */
  holdsAcknowledge(row: number, isNak: boolean, msn: number): boolean
  /** The timer code of an RNR NAK; its time is not below that of `code`, the row's min_rnr_timer. `msn`: as above. */
  rnrTimer(row: number, code: number, msn: number): number
}

export interface Environment {
  /** The engine's own device as other engines see it. Absent: all messages are sent as packets. */
  readonly localDevice?: LocalPeerDevice
  /** The port's P_Key table. Absent: one entry, the default P_Key. */
  readonly pkeys?: Uint16Array
  /** Required for UD queue pairs. */
  readonly grh?: GrhBuilder
  /**
   * Whether a datagram that is longer than the path MTU completes with LOC_LEN_ERR, as on adapters. If not, it is
   * dropped without an error, as by rxe.
   */
  readonly refusesLongDatagrams?: boolean
  /** Required for RAW queue pairs. */
  readonly frames?: FrameSink
  readonly work: WorkSource
  readonly memory: Memory
  readonly completions: Completions
  readonly events: Events
  readonly causes?: Causes
  readonly choices?: Choices
  readonly taps?: WorkTaps
  /** A clock, microseconds. Absent: owners of queue pairs have no turns (transmit-queue.ts). */
  readonly now?: () => number
}

// ---- queue pairs ----

/** Properties fixed at creation. */
export interface QpInit {
  /** A number of `Service` (spec/wire/services.ts). */
  readonly service: number
  readonly qpn: number
  readonly pd: number
  readonly sendCq: number
  readonly recvCq: number
  readonly maxSendSge: number
  readonly maxRecvSge: number
  /** With an SRQ, the queue pair does not flush receive WQEs. */
  readonly hasSrq?: boolean
  /** Protection domain of the receive WQEs' memory; absent: `pd`. */
  readonly recvPd?: number | undefined
  /** sq_sig_all. */
  readonly sqSigAll: boolean
  /** Whose it is, among those that take turns (transmit-queue.ts); default 0. */
  readonly owner?: number | undefined
}

/** Attributes of MODIFY_QP. Absent attributes are not changed. Legal attributes by transition: spec/qp-states.ts. */
export interface QpAttributes {
  readonly destQpn?: number
  /** 24 bits. */
  readonly rqPsn?: number
  /** 24 bits. */
  readonly sqPsn?: number
  /** Bytes: 256, 512, 1024, 2048 or 4096. */
  readonly pathMtu?: number
  /** Local ACK timeout code 0–31: 4.096 µs × 2^t; 0: never. */
  readonly timeout?: number
  /** 0–7. */
  readonly retryCnt?: number
  /** 0–7; 7: unlimited. */
  readonly rnrRetry?: number
  /** RNR NAK timer code 0–31. */
  readonly minRnrTimer?: number
  /** max_rd_atomic. */
  readonly maxRdAtomic?: number
  /** max_dest_rd_atomic. */
  readonly maxDestRdAtomic?: number
  /** ibv_access_flags (`Access`) for the peer. */
  readonly access?: number
  readonly pkeyIndex?: number
  /** UD: the Q_Key that received packets must have, and that is sent if a request selects the QP's own. */
  readonly qkey?: number
  /** The port's number of the path to the peer, passed with each run. */
  readonly flow?: number
  /** Not UD: the port's number of the peer's address; packets from others are dropped. -1: all packets are dropped. */
  readonly peer?: number
}

export type QpAttributeChanges = { readonly [K in keyof QpAttributes]?: QpAttributes[K] | undefined }

/** Result of QUERY_QP: the attributes, with the current PSNs, and the state. */
export interface QpSnapshot extends Required<Omit<QpAttributes, 'flow' | 'peer'>> {
  /** How often the oldest request may be sent again: retry_cnt after each answer of the peer. */
  readonly retriesLeft: number
  /** How often requests were sent again after a loss or a timeout, since RESET. */
  readonly retries: number
  readonly state: number
  readonly sqSigAll: boolean
  /** In SQD: whether fetched WQEs have not completed yet. */
  readonly isDraining: boolean
  readonly sendCq: number
  readonly recvCq: number
}

/** Counters of one engine. */
export type Counters = Record<EngineCounter, number>
