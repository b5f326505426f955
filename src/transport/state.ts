/*
 * The engine's state: rows of typed arrays for queue pairs, and one pool of words for what is in flight (design.md
 * section 7).
 *
 * A queue pair is a row of `rows`, 56 words; an idle one costs nothing else. Requests that were started, the receive
 * request being filled and the responder's READ and atomic resources live in blocks of the pool, 2^n words each, on
 * free lists by size; block numbers are word indices, 0 is none. Arrays grow by being replaced: functions load `s.rows`
 * and `s.pool` after each call that may create, never keep them. The names below are the only description of the
 * layout.
 */
import type { Cause } from '../spec/causes.ts'
import { engineCounters } from '../spec/counters.ts'
import { type Arena, plainArena } from '../wire/arena.ts'
import { createPeerWindows, growWindows, type PeerWindows } from './flow-control/peer-window-accounting.ts'
import { createTimers, type Timers } from './timers.ts'
import {
  Completion,
  type Counters,
  type Environment,
  type LocalPeerDevice,
  Send,
  Sge,
  type TransmitSink,
} from './types.ts'

/** Words of a row. Requester's, responder's and common ones; addresses, keys and lengths are read with `>>> 0`. */
export const Row = {
  STATE: 0,
  QPN: 1,
  PD: 2,
  SEND_CQ: 3,
  RECV_CQ: 4,
  /** What it was made with, see qp-layout.ts. */
  SHAPE: 5,
  /** Protection domain of the memory that receive requests name: that of a shared queue may be another than PD. */
  RECV_PD: 6,
  /** Attributes, up to REQUESTER. */
  ATTRIBUTES: 7,
  MTU: 7,
  DEST_QPN: 8,
  FLOW: 9,
  PEER: 10,
  ACCESS: 11,
  PKEY_INDEX: 12,
  RETRY_CNT: 13,
  RNR_RETRY: 14,
  TIMEOUT: 15,
  MIN_RNR: 16,
  MAX_RD: 17,
  MAX_DEST_RD: 18,

  /** Bits of `Q`. */
  REQUESTER: 19,
  /** Number of the send request to load next. */
  NEXT_INDEX: 20,
  /**
   * Started requests, oldest first, linked by Request.NEXT; CURRENT is the one to send from, 0 for the next new one.
   */
  HEAD: 21,
  TAIL: 22,
  CURRENT: 23,
  /** Oldest unacknowledged PSN, PSN to send next, and the one after the highest that was ever sent. */
  UNACKED: 24,
  SEND_PSN: 25,
  MAX_PSN: 26,
  /**
   * Window bytes (`windowBytes`) up to SEND_PSN and up to UNACKED, modulo 2^32, and since the last packet with AckReq.
   */
  SENT: 27,
  ACKED: 28,
  SINCE: 29,
  /** READs and atomics on their way. */
  RD_OUT: 30,
  RETRIES: 31,
  /** ERR and SQE: the code of the cause with which requests are flushed. */
  FLUSH_CODE: 31,
  RNR_LEFT: 32,

  /** Bits of `R`. */
  RESPONDER: 33,
  EXPECTED: 34,
  MSN: 35,
  /** Message being received: SendKind.SEND or WRITE, 0 for none. */
  MESSAGE: 36,
  /** The receive request in use, 0 for none, and the bytes of the message that came. */
  RECEIVE: 37,
  DONE: 38,
  /** WRITE: where the next byte goes, and how many are to come. */
  WRITE_HI: 39,
  WRITE_LO: 40,
  WRITE_KEY: 41,
  WRITE_LEFT: 42,
  NAK_SYNDROME: 43,
  NAK_PSN: 44,
  NAK_MSN: 45,
  /**
   * Block of READ and atomic resources, how many it holds, the one to use next, and how many have responses to send.
   */
  RESOURCES: 46,
  RESOURCE_COUNT: 47,
  RESOURCE_NEXT: 48,
  PENDING: 49,

  /** Whether the row is in the transmit queue. */
  SCHEDULED: 50,
  ALIVE: 51,
  /** Most window bytes that may be unacknowledged now: less after a loss, growing again with what is acknowledged. */
  WINDOW: 52,
  /** A number of `Service`. */
  SERVICE: 53,
  /** XRC target: number of the shared queue that the message is for, -1 for one that is gone. */
  SRQN: 54,
  /** Datagrams: of the packet that is being received the service level; DEST_QPN is who sent it. And the Q_Key. */
  SL: 54,
  QKEY: 55,
  WORDS: 56,
} as const

/** Bits of Row.REQUESTER. */
export const Q = {
  /** The program may have posted more than was loaded. */
  MORE: 1,
  /** A receiver was not ready: the timer runs until sending may go on. */
  RNR_WAIT: 2,
  /** Resent after a NAK, RNR NAK or a gap, and no progress since: signs of the gap behind it are ignored. */
  RESENT: 4,
  /** SQD: the drain event is to come. */
  DRAINING: 8,
  /** ERR: more requests are to be flushed than one turn allows. */
  FLUSHING: 16,
  /** The ACK timeout was noticed late, and runs on for a while, once. */
  LATE: 32,
} as const

/** Bits of Row.RESPONDER. */
export const R = {
  ACK_DUE: 1,
  NAK_DUE: 2,
  /** A NAK was sent for the expected PSN: silence until it comes. */
  NAK_SENT: 4,
  /** RTR: the event of the first packet was told. */
  ESTABLISHED: 8,
  /** Unreliable: what comes is passed over until a message begins. */
  DROPPING: 16,
} as const

/** Words of a started send request, before the work request itself (`Send`, from REQUEST on). */
export const Request = {
  NEXT: 0,
  FIRST_PSN: 1,
  PSNS: 2,
  /** Row.SENT at its first packet. */
  START: 3,
  /** SendKind. */
  KIND: 4,
  /** How often it is counted in Row.RD_OUT: by the parts of a READ that are on their way. */
  COUNTED: 5,
  /** Not 0: a local error, the status with which it ends once it is the oldest. */
  STATUS: 6,
  /** LOCAL: it has had its effect, and waits for what was before it. */
  DONE: 7,
  WR: 8,
} as const

/** Words of a READ or atomic resource of the responder: what a duplicate of the request is answered from. */
export const Resource = {
  /** SendKind from READ on, 0 unused. */
  KIND: 0,
  FIRST_PSN: 1,
  PSNS: 2,
  MSN: 3,
  HI: 4,
  LO: 5,
  KEY: 6,
  LENGTH: 7,
  /**
   * Response packets [NEXT, END) are still to be sent; packet BASE has address READ_HI, READ_LO and READ_LENGTH bytes
   * follow.
   */
  NEXT: 8,
  END: 9,
  BASE: 10,
  READ_HI: 11,
  READ_LO: 12,
  READ_LENGTH: 13,
  /** These responses are a repetition, and may be given up. READ: 1 or 0. */
  REPLAY: 14,
  /** READ: the protection domain of what is read. */
  PD: 15,
  /** ATOMIC: the word before the operation, instead of the address to read. */
  RESULT_HI: 11,
  RESULT_LO: 12,
  WORDS: 16,
} as const

/** Words of the pending move, see dma.ts. */
export const PendingDma = {
  ROW: 0,
  KIND: 1,
  PD: 2,
  KEY: 3,
  ACCESS: 4,
  HI: 5,
  LO: 6,
  AT: 7,
  CHUNK: 8,
  STRIDE: 9,
  PIECES: 10,
  TOTAL: 11,
  CLOSED: 12,
  PSN: 13,
  MSN: 14,
  WORDS: 16,
} as const

/** Packets and bytes of a turn that went to a partner and came back, see transport/loopback/local-peer.ts. */
export const TurnCounts = { THERE: 0, THERE_BYTES: 1, BACK: 2, BACK_BYTES: 3, WORDS: 4 } as const

/**
 * Requests that are done together (transport/loopback/fast-path.ts): their blocks, the partner's receive requests for
 * SENDs (0 for others), and what moves where.
 */
export interface FastBatch {
  readonly requests: Int32Array
  readonly receives: Int32Array
  readonly from: Arena[]
  readonly fromAt: Float64Array
  readonly to: Arena[]
  readonly toAt: Float64Array
}

/** What a packet weighs in the send window beside its payload, in bytes. */
export const PACKET_WEIGHT = 64

/** Called when a move that was put off fails, see dma.ts. `psn` and `msn` are those of its first packet. */
export type DmaFailed = (s: EngineState, row: number, kind: number, why: number, psn: number, msn: number) => void

export interface EngineState {
  readonly env: Environment
  readonly counters: Counters
  /** Most bytes (payload and PACKET_WEIGHT per packet) that one QP has unacknowledged: the limit of Row.WINDOW. */
  readonly window: number
  /**
   * A READ is asked for in parts of at most so many bytes (as `window` counts), which count in the window; 0: whole,
   * and it does not.
   */
  readonly readBytes: number
  /** What queue pairs to one peer share of its buffer. */
  readonly shares: PeerWindows
  rows: Int32Array
  rowCount: number
  /** Rows that were destroyed, to be used again. */
  readonly spare: number[]
  pool: Uint32Array
  poolTop: number
  readonly free: Int32Array
  readonly timers: Timers
  /** µs in which all unreliable QPs together send no more than `window`; 0: no limit. */
  readonly pace: number
  /** Queue of rows that may have something to send: head, tail, and next by row; -1 ends it. */
  queueHead: number
  queueTail: number
  queueNext: Int32Array

  /** What is free of the room reserved, and the run being built, see run.ts. */
  sink: TransmitSink | undefined
  /** The sink's `soonPackets`, or `maxPackets`. */
  soonPackets: number
  roomAt: number
  roomEnd: number
  runOffset: number
  runPacket: number
  runCount: number
  runLast: number
  runFlow: number
  runClosed: boolean
  /** Where the packets that `openRun` allowed go. */
  runAt: number

  /** The pending move, see dma.ts. */
  readonly move: Uint32Array
  moveArena: Arena | undefined
  /** How many payloads `scatterPayloads` took. */
  pieces: number
  readonly moveFailed: DmaFailed

  /** Whom the row whose turn it is reaches without packets, and what is being handed over, see transport/loopback/slices.ts. */
  partner: LocalPeerDevice | undefined
  partnerState: EngineState | undefined
  partnerRow: number
  sourceArena: Arena
  sourceAt: number
  readonly place: Float64Array
  /** Window bytes that were handed over since `pollTransmit` was called. */
  handed: number
  /** What is done together, once anything was, see transport/loopback/fast-path.ts. */
  together: FastBatch | undefined
  /** What this turn has to count (`Tally`). */
  readonly tally: Float64Array

  /** Scratch: a completion, and the word before an atomic operation (lo, hi). */
  readonly completion: Uint32Array
  readonly original: Uint32Array
  /** Scratch: protection domain and CQ of a shared queue. */
  readonly shared: Int32Array

  /** Why what was looked at last is refused, see causes.ts. */
  cause: Cause | undefined
  /** By row: why its request to be sent next cannot be; and the PSN that was answered with RNR NAKs, and how often. */
  readonly stopped: Map<number, Cause>
  readonly notReady: Map<number, { psn: number; times: number }>
}

const noArena = plainArena(0)
const FIRST_ROWS = 16
const FIRST_POOL = 4096
/** Block 0 is none. */
const POOL_START = 16
const { WORDS, SCHEDULED, ALIVE } = Row

export const createState = (
  env: Environment,
  window: number,
  sharedWindow: number,
  readBytes: number,
  pace: number,
  moveFailed: DmaFailed,
): EngineState => ({
  env,
  window,
  readBytes,
  shares: createPeerWindows(sharedWindow, sharedWindow === 0 && pace === 0 ? 0 : FIRST_ROWS),
  counters: Object.fromEntries(Object.keys(engineCounters).map(name => [name, 0])) as Counters,
  rows: new Int32Array(FIRST_ROWS * WORDS),
  rowCount: 0,
  spare: [],
  pool: new Uint32Array(FIRST_POOL),
  poolTop: POOL_START,
  free: new Int32Array(32),
  timers: createTimers(),
  pace,
  queueHead: -1,
  queueTail: -1,
  queueNext: new Int32Array(FIRST_ROWS),
  sink: undefined,
  soonPackets: 0,
  roomAt: 0,
  roomEnd: 0,
  runOffset: 0,
  runPacket: 0,
  runCount: 0,
  runLast: 0,
  runFlow: 0,
  runClosed: false,
  runAt: 0,
  move: new Uint32Array(PendingDma.WORDS),
  moveArena: undefined,
  pieces: 0,
  moveFailed,
  partner: undefined,
  partnerState: undefined,
  partnerRow: -1,
  sourceArena: noArena,
  sourceAt: 0,
  place: new Float64Array(1),
  handed: 0,
  together: undefined,
  tally: new Float64Array(TurnCounts.WORDS),
  completion: new Uint32Array(Completion.WORDS),
  original: new Uint32Array(2),
  shared: new Int32Array(2),
  cause: undefined,
  stopped: new Map(),
  notReady: new Map(),
})

/**
 * Packets of a part of a READ: parts begin at multiples of it, counted from the READ's first PSN, also when asked for
 * again.
 */
export const readPart = (s: EngineState, mtu: number): number =>
  s.readBytes === 0 ? 0x80_0000 : Math.max(1, Math.floor(s.readBytes / (mtu + PACKET_WEIGHT)))

/** A row for a new queue pair, all zero. */
export const takeRow = (s: EngineState): number => {
  let row = s.spare.pop()
  if (row === undefined) {
    row = s.rowCount++
    if (row * WORDS === s.rows.length) growRows(s, largerCount(row))
  }
  const base = row * WORDS
  const scheduled = s.rows[base + SCHEDULED]
  s.rows.fill(0, base, base + WORDS)
  s.rows[base + SCHEDULED] = scheduled
  s.rows[base + ALIVE] = 1
  return row
}

/**
 * How many rows a table has next that is full with `count`: an eighth more, so that of very many little lies idle; what
 * is copied for that is a few microseconds for a queue pair.
 */
export const largerCount = (count: number): number => count + Math.max(FIRST_ROWS, count >> 3)

const growRows = (s: EngineState, count: number): void => {
  const rows = new Int32Array(count * WORDS)
  rows.set(s.rows)
  s.rows = rows
  const queueNext = new Int32Array(count)
  queueNext.set(s.queueNext)
  s.queueNext = queueNext
  growWindows(s.shares, count)
}

/** log2 of the words that a block for a request with up to `elements` scatter/gather elements has. */
export const requestBlock = (elements: number): number =>
  Math.max(5, Math.ceil(Math.log2(Request.WR + Send.SGE + Math.max(1, elements) * Sge.WORDS)))

/** log2 of the words of a block for `count` resources. */
export const resourceBlock = (count: number): number => Math.ceil(Math.log2(Math.max(1, count) * Resource.WORDS))

/** A block of 2^size words of the pool; its contents are undefined. `s.pool` may be another array afterwards. */
export const takeBlock = (s: EngineState, size: number): number => {
  const first = s.free[size]
  if (first !== 0) {
    s.free[size] = s.pool[first]
    return first
  }
  const words = 1 << size
  const at = s.poolTop
  if (at + words > s.pool.length) {
    const pool = new Uint32Array(s.pool.length + Math.max(FIRST_POOL, s.pool.length >> 2, words))
    pool.set(s.pool)
    s.pool = pool
  }
  s.poolTop = at + words
  return at
}

export const giveBlock = (s: EngineState, size: number, block: number): void => {
  s.pool[block] = s.free[size]
  s.free[size] = block
}

/** Words of the pool that are in no free list; for statistics, since it walks the lists. */
export const usedWords = (s: EngineState): number => {
  let words = s.poolTop - POOL_START
  for (let size = 0; size < s.free.length; size++)
    for (let block = s.free[size]; block !== 0; block = s.pool[block]) words -= 1 << size
  return words
}

/** Puts a row into the transmit queue, at its end, unless it is there. */
export const schedule = (s: EngineState, row: number): void => {
  const w = s.rows
  const base = row * WORDS
  if (w[base + SCHEDULED] !== 0) return
  w[base + SCHEDULED] = 1
  s.queueNext[row] = -1
  if (s.queueTail < 0) s.queueHead = row
  else s.queueNext[s.queueTail] = row
  s.queueTail = row
}

/** Takes the first row out of the transmit queue; -1 if it is empty. */
export const dequeueScheduled = (s: EngineState): number => {
  const row = s.queueHead
  if (row < 0) return -1
  s.queueHead = s.queueNext[row]
  if (s.queueHead < 0) s.queueTail = -1
  s.rows[row * WORDS + SCHEDULED] = 0
  return row
}

/** Puts a row back to the front of the transmit queue: it was its turn, but the port was full. */
export const scheduleFirst = (s: EngineState, row: number): void => {
  const w = s.rows
  const base = row * WORDS
  if (w[base + SCHEDULED] !== 0) return
  w[base + SCHEDULED] = 1
  s.queueNext[row] = s.queueHead
  s.queueHead = row
  if (s.queueTail < 0) s.queueTail = row
}
