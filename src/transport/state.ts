/*
 * The engine's state: rows of typed arrays for queue pairs, and one pool of words for what is in flight. fields.ts names
 * the words.
 *
 * A queue pair is one row of `rows`; an idle one costs nothing else. Fetched WQEs, the receive WQE in use and the
 * responder's READ and atomic resources live in blocks of the pool, 2^n words each, on free lists by size. A block's
 * number is its first word; 0 is none. The arrays are replaced when they grow: a function loads `s.rows` and `s.pool`
 * again after each call that may create or fetch.
 */
import type { Cause } from '../spec/causes.ts'
import { engineCounters } from '../spec/counters.ts'
import { type Arena, plainArena } from '../wire/arena.ts'
import { DMA, QP, RES, WQE } from './fields.ts'
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
  /** Most bytes (payload and PACKET_WEIGHT per packet) that one QP has unacknowledged: the limit of QP.REQ_CWND. */
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
  rows: new Int32Array(FIRST_ROWS * QP.WORDS),
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
  move: new Uint32Array(DMA.WORDS),
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
    if (row * QP.WORDS === s.rows.length) growRows(s, largerCount(row))
  }
  const base = row * QP.WORDS
  const scheduled = s.rows[base + QP.SCHEDULED]
  s.rows.fill(0, base, base + QP.WORDS)
  s.rows[base + QP.SCHEDULED] = scheduled
  s.rows[base + QP.ALIVE] = 1
  return row
}

/**
 * How many rows a table has next that is full with `count`: an eighth more, so that of very many little lies idle; what
 * is copied for that is a few microseconds for a queue pair.
 */
export const largerCount = (count: number): number => count + Math.max(FIRST_ROWS, count >> 3)

const growRows = (s: EngineState, count: number): void => {
  const rows = new Int32Array(count * QP.WORDS)
  rows.set(s.rows)
  s.rows = rows
  const queueNext = new Int32Array(count)
  queueNext.set(s.queueNext)
  s.queueNext = queueNext
  growWindows(s.shares, count)
}

/** log2 of the words that a block for a request with up to `elements` scatter/gather elements has. */
export const requestBlock = (elements: number): number =>
  Math.max(5, Math.ceil(Math.log2(WQE.WR + Send.SGE + Math.max(1, elements) * Sge.WORDS)))

/** log2 of the words of a block for `count` resources. */
export const resourceBlock = (count: number): number => Math.ceil(Math.log2(Math.max(1, count) * RES.WORDS))

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
  const base = row * QP.WORDS
  if (w[base + QP.SCHEDULED] !== 0) return
  w[base + QP.SCHEDULED] = 1
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
  s.rows[row * QP.WORDS + QP.SCHEDULED] = 0
  return row
}

/** Puts a row back to the front of the transmit queue: it was its turn, but the port was full. */
export const scheduleFirst = (s: EngineState, row: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  if (w[base + QP.SCHEDULED] !== 0) return
  w[base + QP.SCHEDULED] = 1
  s.queueNext[row] = s.queueHead
  s.queueHead = row
  if (s.queueTail < 0) s.queueTail = row
}
