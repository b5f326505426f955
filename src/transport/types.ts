/*
 * What a transport engine needs and gives (docs/decisions/engines-without-io.md). An engine is sans-IO: packets,
 * doorbells and time come in, runs of packets, completions and events go out. Whoever joins it with a device implements
 * the interfaces below. No socket, clock, random source, core object or node module is known here. Times are
 * microseconds on any monotonic scale, as Numbers.
 *
 * Queue pairs are rows: small integers that index the engine's slabs. 64-bit addresses are pairs of u32 (hi, lo), since
 * a remote address may be any 64-bit number. Nothing here allocates per packet or per work request.
 */
import type { Cause } from '../spec/causes.ts'
import type { EngineCounter } from '../spec/counters.ts'
import type { Arena } from '../wire/arena.ts'

// ---- work requests: the compact layout, 32-bit words (docs/decisions/rings.md) ----

/** Words of a send work request; scatter/gather elements follow at `SGE`, four words each (lo, hi, length, lkey). */
export const Send = {
  /**
   * ibv_wr_opcode: 0 WRITE, 1 WRITE_WITH_IMM, 2 SEND, 3 SEND_WITH_IMM, 4 READ, 5 CMP_SWAP, 6 FETCH_ADD, 7 LOCAL_INV, 8
   * BIND_MW (`BindMw`), 9 SEND_WITH_INV, 14 FLUSH (`Flush`), 15 ATOMIC_WRITE (8 bytes of data).
   */
  OPCODE: 0,
  /**
   * ibv_send_flags: 1 fence, 2 signaled, 4 solicited, 8 inline. Of an XRC request the bits from 8 on are the number of
   * the receiver's shared queue.
   */
  FLAGS: 1,
  ID_LO: 2,
  ID_HI: 3,
  /** Number of scatter/gather elements; 0 when inline. */
  SGES: 4,
  /** Sum of the elements' lengths, or of the inline data, in bytes. */
  LENGTH: 5,
  /** Immediate as it goes onto the wire (the u32 whose big-endian bytes are sent), or the key to invalidate. */
  IMM: 6,
  RKEY: 7,
  REMOTE_LO: 8,
  REMOTE_HI: 9,
  /** CMP_SWAP: compare; FETCH_ADD: add. */
  COMPARE_LO: 10,
  COMPARE_HI: 11,
  SWAP_LO: 12,
  SWAP_HI: 13,
  /** Where the source keeps inline data: its own business, handed back to `copyInline`. */
  INLINE_AT: 14,
  /** Datagrams, instead of the remote address: 24 bits; top bit set: the QP's own; the port's number for the path. */
  DEST_QPN: 8,
  QKEY: 9,
  FLOW: 10,
  /**
   * 0, or the ibv_wc_status with which a request that makes no sense (too many elements, unknown opcode) must end, and
   * above its 8 bits the code of the cause (spec/causes.ts) if one is known.
   */
  REFUSED: 15,
  SGE: 16,
} as const

/** Words of a BIND_MW request, where `Send` has what a window has no use for. */
export const BindMw = {
  /** What the low byte of the window's key becomes. */
  KEY: Send.IMM,
  /** The window's key as it is. */
  WINDOW: Send.RKEY,
  LO: Send.REMOTE_LO,
  HI: Send.REMOTE_HI,
  LENGTH_LO: Send.COMPARE_LO,
  LENGTH_HI: Send.COMPARE_HI,
  /** The region. */
  LKEY: Send.SWAP_LO,
  /** ibv_access_flags of the window. */
  ACCESS: Send.SWAP_HI,
} as const

/** Words of a FLUSH request, which has no data of its own. */
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
  VENDOR: 9,
  PKEY_INDEX: 10,
  SL: 11,
  WORDS: 12,
} as const

/**
 * The queues of queue pairs, whatever their layout. Written by a hostile program: an implementation bounds what it
 * reads, and reports nonsense through `Send.REFUSED`; the engine copies a request once, when it starts it, and never
 * looks again.
 */
export interface WorkSource {
  /**
   * Copies send request number `index` (counted from 0 since RESET, modulo 2^32) into `into` from word `at` on; false
   * if the program has not posted it yet. At most `maxSge` elements are written (given at `create`).
   */
  loadSend(row: number, index: number, into: Uint32Array, at: number): boolean
  /** `count` oldest send requests are complete: their slots may be posted to again. */
  retireSend(row: number, count: number): void
  /**
   * Copies `total` inline bytes from `from` on of the request whose INLINE_AT is `inlineAt`, in pieces as in
   * `Memory.read`.
   */
  copyInline(
    row: number,
    inlineAt: number,
    from: number,
    to: Arena,
    at: number,
    chunk: number,
    stride: number,
    total: number,
  ): void
  /** Copies the oldest receive request that has not been taken, and takes it; false if there is none. */
  takeReceive(row: number, into: Uint32Array, at: number): boolean
  /**
   * XRC target: `takeReceive` of this row takes from the shared queue with number `srqn` from now on; `into` gets its
   * protection domain and its CQ. False if the row's domain has no such queue. Not there: no row is an XRC target.
   */
  selectShared?(row: number, srqn: number, into: Int32Array): boolean
}

/** Rights asked of a region: the bits of ibv_access_flags. */
export const Access = {
  LOCAL_READ: 0,
  LOCAL_WRITE: 1,
  REMOTE_WRITE: 2,
  REMOTE_READ: 4,
  REMOTE_ATOMIC: 8,
  FLUSH_GLOBAL: 0x100,
  FLUSH_PERSISTENT: 0x200,
} as const

/**
 * Registered memory. A region is a small integer that stays valid until the engine's current call returns; later the
 * key is resolved again, so a deregistered region is never touched. Data moves in strided pieces: `total` bytes of
 * consecutive memory against pieces of `chunk` bytes that start every `stride` bytes in the arena, which is how
 * payloads lie in a run of packets.
 */
export interface Memory {
  /**
   * The region for `key` if it belongs to `pd`, grants `access` to queue pair number `qp` and contains the range; -1 if
   * not. A memory window is as good as a region, for remote access.
   */
  resolve(pd: number, key: number, hi: number, lo: number, length: number, access: number, qp: number): number
  /** Why `resolve` refuses these arguments; not there, or undefined: nobody knows more than that. */
  explain?(
    pd: number,
    key: number,
    hi: number,
    lo: number,
    length: number,
    access: number,
    qp: number,
  ): Cause | undefined
  /** Whether `key` belongs to `pd` and grants `access` to queue pair number `qp`, wherever it lies. */
  grants(pd: number, key: number, access: number, qp: number): boolean
  /** Memory → arena. Returns 0, or the errno (EFAULT: the pages are gone) after which nothing may be relied on. */
  read(
    region: number,
    hi: number,
    lo: number,
    to: Arena,
    at: number,
    chunk: number,
    stride: number,
    total: number,
  ): number
  /**
   * Whether the last move failed because the program whose memory it is has ended. Its queue pairs are about to go;
   * until then they answer nobody.
   */
  vanished(): boolean
  /** Whether the last move failed because memory kept us waiting for too long; not there: none does. */
  tooSlow?(): boolean
  /** Arena → memory, ascending, in as few steps as possible. Returns as `read`. */
  write(
    region: number,
    hi: number,
    lo: number,
    from: Arena,
    at: number,
    chunk: number,
    stride: number,
    total: number,
  ): number
  /**
   * Memory of this process that JavaScript reaches: what holds `length` bytes, and in `place[0]` where they begin in
   * it, valid until the engine's current call returns. Undefined for any other; not there: no memory is such.
   */
  locate?(region: number, hi: number, lo: number, length: number, place: Float64Array): Arena | undefined
  /**
   * `resolve` and `locate` in one, for regions that both would find; undefined if not, whatever the reason. There with
   * `locate`.
   */
  find?(
    pd: number,
    key: number,
    hi: number,
    lo: number,
    length: number,
    access: number,
    place: Float64Array,
  ): Arena | undefined
  /** Moves bytes from one place that was located to another, which may be in the same memory; there with `locate`. */
  move?(from: Arena, at: number, to: Arena, into: number, length: number): void
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
   * BIND_MW of queue pair `qp`: the request's words begin at `words[at]` (`Send`, with the names of `BindMw`). False if
   * a rule forbids it, and then nothing has changed (IBA 10.6.7).
   */
  bindWindow(pd: number, qp: number, words: Uint32Array, at: number): boolean
  /** Why `bindWindow` answers false; as `explain`. */
  explainBind?(pd: number, words: Uint32Array, at: number): Cause | undefined
  /**
   * LOCAL_INV, or a peer's SEND with invalidate: revokes `key` of `pd`, a window that is bound to queue pair `qp` and
   * may be invalidated this way. Returns 0, or the ibv_wc_status with which a LOCAL_INV of this key ends.
   */
  invalidate(pd: number, qp: number, key: number): number
}

export interface Completions {
  /**
   * Adds a completion (`words` in the layout above, valid during the call) to CQ `cq`; `solicited`: it may wake a
   * solicited-only waiter.
   */
  push(cq: number, words: Uint32Array, solicited: boolean): void
}

export interface Events {
  /**
   * An affiliated asynchronous event of a QP (ibv_event_type: 1 QP_FATAL, 2 QP_REQ_ERR, 3 QP_ACCESS_ERR, 4 COMM_EST, 5
   * SQ_DRAINED, 16 LAST_WQE_REACHED …).
   */
  qp(row: number, type: number, cause: Cause): void
}

/**
 * Who is told why requests fail (spec/causes.ts), before their completions are made. `status`: ibv_wc_status, never
 * SUCCESS.
 */
export interface Causes {
  /** A send request: its words (`Send`) begin at `words[at]`. */
  send(row: number, words: Uint32Array, at: number, status: number, cause: Cause): void
  /** A receive request with this wr_id. */
  receive(row: number, idHi: number, idLo: number, status: number, cause: Cause): void
  /** So many requests to send or to receive were flushed; `code`: of the cause. */
  flushed(row: number, sends: boolean, count: number, code: number): void
  /** The request with `psn` is answered with a NAK that ends the queue pair. */
  nak(row: number, psn: number, cause: Cause): void
  /** A message is passed over: a service without acknowledgements tells nobody. */
  dropped(row: number, cause: Cause): void
  /** Why the peer of a queue pair has refused `psn`, as it told with `nak`, if it is known here. */
  ofPeer(row: number, psn: number): Cause | undefined
}

/**
 * Where packets go. A run is `count` packets that lie back to back in the sink's arena, each `packetBytes` long but the
 * last, which has `lastBytes` ≤ packetBytes; a packet is a UDP payload: BTH … payload, pad, and 4 bytes of room for the
 * ICRC, which the port seals.
 */
export interface TransmitSink {
  readonly arena: Arena
  /** Most packets of one run, most bytes of one run and of one reservation. */
  readonly maxPackets: number
  readonly maxBytes: number
  /** A run of messages of one packet each ends after so many, if there is a number. */
  readonly soonPackets?: number | undefined
  /**
   * Room for runs of together `bytes` in the arena: its offset (a multiple of 64), or -1 when the port can take no more
   * now; then the room reserved before stays the sender's, which otherwise ends, as it does with the port's turn of
   * sending.
   */
  reserve(bytes: number): number
  /**
   * Sends a run that was built in the room reserved last, anywhere behind the runs that were sent from it before; flow
   * as in `QpAttributes.flow`. Runs that lie back to back let the receiver's memory be written across them in one move.
   */
  commit(offset: number, packetBytes: number, count: number, lastBytes: number, flow: number): void
}

/** How datagrams show where they came from (IBA 11.4.1.2, annex A17.4.5.2). */
export interface DatagramRoute {
  /**
   * Writes the global route header of the packet, of `length` bytes at `at`, that is being handed in, into `arena`,
   * where a payload of 4096 bytes may follow it: 40 bytes, of IPv4 the last 20 its header. Answers the offset.
   */
  header(arena: Arena, at: number, length: number): number
}

/**
 * A device whose engine takes messages of others in this process without packets (transport/loopback/slices.ts), as
 * they see it. Flows and numbers of peers are its port's.
 */
export interface LocalPeerDevice {
  /** What only engines understand: the state of its own, set by `createEngine`. */
  state: object | undefined
  /** Room of STAGING_BYTES in an arena, which all that may meet share. */
  readonly arena: Arena
  readonly staging: number
  /** What the port counts, as if packets had passed. */
  readonly counters: { sentPackets: number; sentBytes: number; receivedPackets: number; receivedBytes: number }
  /** The row of a queue pair's number, -1 for none. */
  rowOf(qpn: number): number
  /** Who receives what this flow carries; null if that is nobody in this process, or must be packets. */
  at(flow: number): LocalPeerDevice | null
  /** By which number those who receive it know the flow's source. */
  peerAt(flow: number): number
  /** Whether no packets wait to be received here. */
  isIdle(): boolean
}

/** Everything an engine is given, once. */
export interface Environment {
  /** What the engine's own device is to others; not there: all messages are packets. */
  readonly localDevice?: LocalPeerDevice
  /** Needed for queue pairs of datagrams. */
  readonly route?: DatagramRoute
  readonly work: WorkSource
  readonly memory: Memory
  readonly completions: Completions
  readonly events: Events
  readonly causes?: Causes
}

// ---- queue pairs ----

/** What is fixed when a QP is made. */
export interface QpInit {
  /** A number of `Service` (spec/wire/services.ts). */
  readonly service: number
  readonly qpn: number
  readonly pd: number
  readonly sendCq: number
  readonly recvCq: number
  readonly maxSendWr: number
  readonly maxSendSge: number
  readonly maxRecvSge: number
  /** Its receive requests come from a queue that others use too: what it has not taken is not its to flush. */
  readonly sharedReceive?: boolean
  /** Protection domain of the memory that its receive requests name; absent: `pd`. */
  readonly recvPd?: number | undefined
  /** Every send completes visibly, signaled or not. */
  readonly signalAll: boolean
}

/**
 * Attributes as MODIFY_QP sets them; an absent one keeps its value. Which are legal when is spec/qp-states.ts'
 * business.
 */
export interface QpAttributes {
  readonly destQpn?: number
  /** 24 bits. */
  readonly rqPsn?: number
  readonly sqPsn?: number
  /** Bytes: 256, 512, 1024, 2048 or 4096. */
  readonly pathMtu?: number
  /** Local ACK timeout code 0–31: 4.096 µs × 2^t, 0 never. */
  readonly timeout?: number
  /** 0–7. */
  readonly retryCnt?: number
  /** 0–7, 7 endless. */
  readonly rnrRetry?: number
  /** RNR NAK timer code 0–31. */
  readonly minRnrTimer?: number
  /** READs and atomics this side may have outstanding. */
  readonly maxRdAtomic?: number
  /** READs and atomics that this side serves at once. */
  readonly maxDestRdAtomic?: number
  /** ibv_access_flags for the peer: 2 remote write, 4 remote read, 8 remote atomic. */
  readonly access?: number
  readonly pkeyIndex?: number
  /** Datagrams: what arriving ones must have, and what is sent if the request says so. */
  readonly qkey?: number
  /** The port's number for the path to the peer: goes with each run. */
  readonly flow?: number
  /** The port's number for the peer's address: packets of another source are dropped. -1: none yet. */
  readonly peer?: number
}

/** Some of the attributes: what is undefined is not given. */
export type Given<A> = { readonly [K in keyof A]?: A[K] | undefined }

/** What QUERY_QP can tell: attributes as they were set last since RESET, and where the engine stands. */
export interface QpSnapshot extends Required<Omit<QpAttributes, 'flow' | 'peer' | 'rqPsn' | 'sqPsn'>> {
  readonly state: number
  readonly signalAll: boolean
  readonly rqPsn: number
  readonly sqPsn: number
  /** SQD: work requests are still being finished. */
  readonly draining: boolean
}

/** What one engine counts. */
export type Counters = Record<EngineCounter, number>
