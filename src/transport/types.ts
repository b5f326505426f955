/*
 * Interfaces between a transport engine and the driver that owns it (docs/decisions/engines-without-io.md). The engine
 * does no I/O: packets, doorbells and time go in; runs of packets, completions and events come out, through interfaces
 * that the driver implements. Times are microseconds of any monotonic clock, as Numbers.
 *
 * Queue pairs are rows: small integers that index the engine's arrays. 64-bit addresses are pairs of u32 (hi, lo),
 * since a remote address may be any 64-bit number. Nothing here allocates per packet or per work request, but for
 * causes of failures.
 */
import type { Cause } from '../spec/check/causes.ts'
import type { EngineCounter } from '../spec/counters.ts'
import type { Arena } from '../wire/arena.ts'

// ---- work requests: 32-bit words, in the same layout for every kind of ring ----

/** Words of a send work request; scatter/gather elements follow at `SGE`, four words each (lo, hi, length, lkey). */
export const Send = {
  /**
   * ibv_wr_opcode: 0 WRITE, 1 WRITE_WITH_IMM, 2 SEND, 3 SEND_WITH_IMM, 4 READ, 5 CMP_SWAP, 6 FETCH_ADD, 7 LOCAL_INV, 8
   * BIND_MW (`BindMw`), 9 SEND_WITH_INV, 14 FLUSH (`Flush`), 15 ATOMIC_WRITE (8 bytes of data).
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
  /** Position of inline data in the WorkSource; passed back to its `copyInline`. */
  INLINE_AT: 14,
  /**
   * UD, in words that it does not use otherwise: QPN (24 bits); Q_Key (top bit set: the QP's own is sent); the port's
   * number of the path to the destination.
   */
  DEST_QPN: 8,
  QKEY: 9,
  FLOW: 10,
  /**
   * 0 for a valid request. For an invalid one (too many elements, unknown opcode): bits 0 to 7 are the ibv_wc_status
   * with which it completes, the bits above are the number of the cause (spec/check/causes.ts), 0 if unknown.
   */
  REFUSED: 15,
  SGE: 16,
} as const

/** Words of a BIND_MW request: words of `Send` that a bind does not use otherwise. */
export const BindMw = {
  /** The new key, of which the low byte is used. */
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

/** Words of a receive work request; elements follow at `SGE` as above. */
export const Receive = { ID_LO: 0, ID_HI: 1, SGES: 2, LENGTH: 3, SGE: 4 } as const

/** Words of one scatter/gather element. */
export const Sge = { LO: 0, HI: 1, LENGTH: 2, LKEY: 3, WORDS: 4 } as const

/** Words of a completion (ibv_wc). Status, opcode and flags have libibverbs' numbers. */
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
  SL: 11,
  WORDS: 12,
} as const

/**
 * The rings of queue pairs, in any layout. A hostile program may write to them: an implementation must bound what it
 * reads, and reports invalid requests through `Send.REFUSED`. The engine checks and executes its copy of a WQE.
 */
export interface WorkSource {
  /**
   * Copies send WQE number `index` (counted from 0 since RESET, modulo 2^32) to word `at` of `into`; false if it was
   * not posted yet. Writes at most the number of elements given to `Engine.create`.
   */
  loadSend(row: number, index: number, into: Uint32Array, at: number): boolean
  /** The `count` oldest send WQEs have completed: their slots are free. */
  retireSend(row: number, count: number): void
  /**
   * Copies `total` inline bytes, from byte `start` on, of the request whose INLINE_AT is `inlineAt`, to the arena; in
   * chunks as in `Memory.read`.
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
   * XRC target: from now on `takeReceive` of this row takes from the SRQ with number `srqn`; `into` gets its protection
   * domain and CQ. False if the row's XRC domain has no such SRQ. Absent if no row is an XRC target.
   */
  selectShared?(row: number, srqn: number, into: Int32Array): boolean
}

/** Access rights to check: bits of ibv_access_flags. */
export const Access = {
  /** No bit: every region grants it. */
  LOCAL_READ: 0,
  LOCAL_WRITE: 1,
  REMOTE_WRITE: 2,
  REMOTE_READ: 4,
  REMOTE_ATOMIC: 8,
  FLUSH_GLOBAL: 0x100,
  FLUSH_PERSISTENT: 0x200,
} as const

/**
 * Registered memory. A region is a small integer that is valid until the engine's current call returns; later the key
 * is resolved again, so a deregistered region is never accessed. Data is copied in strides: `total` bytes are
 * consecutive in memory, and chunks of `chunk` bytes every `stride` bytes in the arena, like payloads in a run of
 * packets.
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
   * Copies memory to the arena, from offset `at` on. Returns 0, or the errno (EFAULT: the pages were unmapped), and
   * then the bytes in the arena are undefined.
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
  /**
   * Whether the last access failed because the process has ended. Its queue pairs will be destroyed; until then they do
   * not respond.
   */
  hasProcessEnded(): boolean
  /** Whether the last access failed because missing pages took too long. Absent if that cannot happen. */
  hasTimedOut?(): boolean
  /**
   * Copies from the arena to memory; if `completeWrites` is absent, in ascending order and in as few steps as possible.
   * Returns as `read`.
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
  ): number
  /**
   * When this returns, all bytes that `write` got for the queue pair `qpn` are in memory. Absent: they are when `write`
   * returns.
   */
  completeWrites?(qpn: number): void
  /**
   * For memory of this process that JavaScript can access: returns the arena with these bytes, and in `offset[0]` their
   * offset, valid until the engine's current call returns. Undefined for other memory. Absent: all data is copied with
   * `read` and `write`.
   */
  locate?(region: number, hi: number, lo: number, length: number, offset: Float64Array): Arena | undefined
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
  /**
   * Copies bytes between located ranges, which may overlap. Defined together with `locate`.
   */
  copyLocated?(source: Arena, sourceAt: number, target: Arena, targetAt: number, length: number): void
  /**
   * 64-bit compare and swap, host byte order, atomic among this device's operations. `original` gets (lo, hi). Returns
   * as `read`.
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
   * Executes a BIND_MW of the queue pair `qpn`: the request's words begin at `words[at]` (`Send`, with the names of
   * `BindMw`). False, without any change, if a rule forbids it (IBA 10.6.7).
   */
  bindWindow(pd: number, qpn: number, words: Uint32Array, at: number): boolean
  /** Why `bindWindow` refuses; as `explain`. */
  explainBind?(pd: number, words: Uint32Array, at: number): Cause | undefined
  /**
   * Executes a LOCAL_INV, or the invalidation of a peer's SEND: invalidates `key` of `pd`, a window that is bound to
   * the queue pair `qpn` and may be invalidated this way. Returns 0, or the ibv_wc_status with which a LOCAL_INV of
   * this key completes.
   */
  invalidate(pd: number, qpn: number, key: number): number
}

export interface Completions {
  /**
   * Adds a completion (`words` as in `Completion`, valid during the call) to CQ `cq`. `solicited`: it raises an event
   * also on a CQ that is armed for solicited completions only.
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
 * Receives the causes of failures (spec/check/causes.ts): `send` and `receive` before the completion, `flushed` after
 * the completions. `status`: ibv_wc_status, never SUCCESS.
 */
export interface Causes {
  /** A send request failed; its words (`Send`) begin at `words[at]`. */
  send(row: number, words: Uint32Array, at: number, status: number, cause: Cause): void
  /** The receive request with this wr_id failed. */
  receive(row: number, idHi: number, idLo: number, status: number, cause: Cause): void
  /** `count` WQEs of the send or of the receive queue were flushed; `code`: vendor error of the cause. */
  flushed(row: number, isSend: boolean, count: number, code: number): void
  /** The request with `psn` was refused with a NAK that moves the queue pair to ERR. */
  nak(row: number, psn: number, cause: Cause): void
  /** A message or packet was dropped silently. `wrId`: of its request, or of the receive that it would use. */
  dropped(row: number, cause: Cause, wrId?: bigint): void
  /** Why the peer of a queue pair has refused `psn`; undefined if unknown, as of a peer in another process. */
  causeAtPeer(row: number, psn: number): Cause | undefined
}

/**
 * The destination of packets. A run is `count` back-to-back packets in the sink's arena, each `packetBytes` long except
 * the last, which is `lastBytes` ≤ packetBytes long. A packet is a UDP payload: BTH … payload, padding, and 4 bytes of
 * space for the ICRC, which the port writes.
 */
export interface TransmitSink {
  readonly arena: Arena
  /** Limits: packets of a run, and bytes of a run and of a reservation. */
  readonly maxPackets: number
  readonly maxBytes: number
  /** A packet that is added alone joins a run only while that has fewer packets than this; absent: maxPackets. */
  readonly maxSinglePacketRun?: number | undefined
  /**
   * Reserves `bytes` in the arena for runs. Returns the offset (a multiple of 64), or -1 if the port is full. A
   * reservation ends with the next successful one, and at the end of the poll.
   */
  reserve(bytes: number): number
  /**
   * Sends a run that was built in the last reservation, behind the runs sent from it before; `flow` as in
   * `QpAttributes.flow`. Back-to-back runs let the receiver write memory with one DMA.
   */
  commit(offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void
}

/** Builds the GRH of received datagrams (IBA 11.4.1.2, annex A17.4.5.2). */
export interface DatagramRoute {
  /**
   * Writes the GRH (40 bytes) of the received packet, which is `length` bytes at `at` of `arena`, to another place in
   * `arena`, where space for 4096 bytes of payload follows. Over IPv4 its last 20 bytes are the IPv4 header. Returns
   * the offset of the GRH.
   */
  header(arena: Arena, at: number, length: number): number
}

/**
 * A device that receives messages from engines of this process without packets (transport/loopback/slices.ts). Flows
 * and peers are numbers of its port.
 */
export interface LocalPeerDevice {
  /** The state of the device's engine, set by `createEngine`. */
  state: object | undefined
  /** Staging buffer of 64 KiB, for a slice, in an arena that all local devices share. */
  readonly arena: Arena
  readonly staging: number
  /** The port's counters, updated as for packets. */
  readonly counters: { sentPackets: number; sentBytes: number; receivedPackets: number; receivedBytes: number }
  /** The row of a QPN; -1 if there is none. */
  rowOf(qpn: number): number
  /** The device that receives this flow; null if it is not in this process, or must be sent packets. */
  receiverOf(flow: number): LocalPeerDevice | null
  /** The number of this port's address among the peers of the device that receives this flow (`QpAttributes.peer`). */
  peerAt(flow: number): number
  /** Whether no packets are waiting to be received. */
  isIdle(): boolean
}

/** Choices that the specification leaves to a responder (drivers/rxe/torment/). */
export interface Choices {
  /** Whether the row's ACK or NAK, which is to be sent now, waits until `Engine.resume`. */
  holdsAcknowledge(row: number, isNak: boolean): boolean
  /** The timer code of an RNR NAK; its time is at least that of `code`, the row's min_rnr_timer. */
  rnrTimer(row: number, code: number): number
}

/** The surroundings of an engine, given at its creation. */
export interface Environment {
  /** The engine's own device as other engines see it. Absent: all messages are sent as packets. */
  readonly localDevice?: LocalPeerDevice
  /** Required for UD queue pairs. */
  readonly route?: DatagramRoute
  readonly work: WorkSource
  readonly memory: Memory
  readonly completions: Completions
  readonly events: Events
  readonly causes?: Causes
  /** Absent: no ACK or NAK waits, and RNR NAKs have the timer code of the row. */
  readonly choices?: Choices
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
  /** Whether it uses an SRQ, whose WQEs it does not flush. */
  readonly hasSrq?: boolean
  /** Protection domain of its receive WQEs' memory; absent: `pd`. */
  readonly recvPd?: number | undefined
  /** sq_sig_all. */
  readonly sqSigAll: boolean
}

/** Attributes of MODIFY_QP; absent ones are not changed. spec/qp-states.ts has the legal ones of each transition. */
export interface QpAttributes {
  readonly destQpn?: number
  /** 24 bits. */
  readonly rqPsn?: number
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
  /** UD: the Q_Key that received packets must have, and that is sent if the request selects the QP's own. */
  readonly qkey?: number
  /** The port's number of the path to the peer, passed with each run. */
  readonly flow?: number
  /** The port's number of the peer's address: packets from other sources are dropped. -1: not set. */
  readonly peer?: number
}

/** Attributes for a MODIFY_QP; undefined ones are not changed. */
export type QpAttributeChanges = { readonly [K in keyof QpAttributes]?: QpAttributes[K] | undefined }

/** Result of QUERY_QP: the attributes, with the current PSNs, and the state. */
export interface QpSnapshot extends Required<Omit<QpAttributes, 'flow' | 'peer' | 'rqPsn' | 'sqPsn'>> {
  readonly state: number
  readonly sqSigAll: boolean
  readonly rqPsn: number
  readonly sqPsn: number
  /** In SQD: whether fetched WQEs have not completed yet. */
  readonly isDraining: boolean
}

/** Counters of one engine. */
export type Counters = Record<EngineCounter, number>
