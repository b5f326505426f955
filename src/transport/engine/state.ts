/*
 * The engine's state: `rows`, an array of words with one row per queue pair, and `pool`, an array of words for requests
 * in flight. fields.ts has the word offsets.
 *
 * Fetched WQEs, the current receive WQE and the responder's READ and atomic resources are blocks of the pool, 2^n words
 * each, with free lists by size. A block's number is the index of its first word; 0 means none. The arrays are replaced
 * when they grow: a function must reload `s.rows` and `s.pool` after each call that may create a row or take a block.
 *
 * All files of the engine use these short names: `s` is the state, `w` its rows, `p` its pool, `row` the number of a
 * queue pair's row, `base` the row's first word, `request` the block of a fetched send WQE, and `wr` the first word of
 * the WQE's work request (`Send`).
 */
import type { Cause } from '../../spec/check/causes.ts'
import { engineCounters } from '../../spec/counters.ts'
import { DEFAULT_PKEY } from '../../spec/wire/headers.ts'
import { type Arena, plainArena } from '../wire/arena.ts'
import { createRateControl, type DcqcnParameters, type RateControl } from './congestion/dcqcn.ts'
import { DMA, QP, RES, WQE } from './fields.ts'
import { createPeerWindows, growByRow, type PeerWindows } from './flow-control/peer-window-accounting.ts'
import { PSN_HALF } from './psn.ts'
import { createTimers, type Timers } from './timers.ts'
import { createTransmitQueue, growTransmitQueue, type TransmitQueue } from './transmit-queue.ts'
import {
  Completion,
  type Counters,
  type Environment,
  type LocalPeerDevice,
  Send,
  Sge,
  type TransmitSink,
  type WorkTaps,
} from './types.ts'

/** Indices of `pollCounts`. */
export const PollCounts = { SENT: 0, SENT_BYTES: 1, RECEIVED: 2, RECEIVED_BYTES: 3, WORDS: 4 } as const

/**
 * A batch of WQEs of the fast path (transport/engine/loopback/fast-path.ts): arrays indexed by the position in the
 * batch.
 */
export interface FastBatch {
  /** Blocks of the WQEs, and of the peer's receive WQEs (0: not a SEND). */
  readonly requests: Int32Array
  readonly receives: Int32Array
  /** Source and target of the copy: arena and offset. */
  readonly source: Arena[]
  readonly sourceAt: Float64Array
  readonly target: Arena[]
  readonly targetAt: Float64Array
}

/** The window bytes of a packet are its payload plus this number. */
export const PACKET_WEIGHT = 64
/** A poll ends after so many window bytes were passed to local peers. */
export const MAX_LOCAL_BYTES = 0x10_0000

/**
 * Called when the pending DMA write fails (dma.ts). `kind`: DmaKind; `result`: DmaResult; `psn` and `msn`: expected PSN
 * and MSN before the first packet of the DMA.
 */
export type DmaFailed = (s: EngineState, row: number, kind: number, result: number, psn: number, msn: number) => void

/** Payloads to write to memory: `count` payloads of `bytes` bytes each, one every `stride` bytes from `at` on. */
interface Payloads {
  arena: Arena
  at: number
  bytes: number
  stride: number
  count: number
}

/** Second results of functions. Each field is valid until the next call of a function that sets it. */
interface Results {
  /** Of openRun, openRunWithFirst and continueRun: offset of the packets. */
  runAt: number
  /** Of scatterPayloads: number of payloads that were written. */
  written: number
  /** Of countMatching: whether one of the counted packets has AckReq. */
  isAckRequested: boolean
  /** Of locateLocal and locateRemote: arena and offset of a slice's data. */
  dataArena: Arena
  dataAt: number
  /** Of Memory.locate and Memory.resolveAndLocate: the offset in the arena, one element. */
  readonly offset: Float64Array
  /** Of Memory.compareSwap and fetchAdd: the word before the operation, lower half first. */
  readonly original: Uint32Array
  /** Of WorkSource.selectShared: two elements, protection domain and CQ of the SRQ. */
  readonly shared: Int32Array
  /** Of the last check that failed: its cause (causes.ts). */
  cause: Cause | undefined
}

export interface EngineState {
  // ---- set at creation ----
  readonly env: Environment
  /** The port's P_Key table, never empty. */
  readonly pkeys: Uint16Array
  /** Maximum of QP.REQ_CWND, window bytes (`PACKET_WEIGHT`). */
  readonly maxCwnd: number
  /**
   * Maximum window bytes of the responses to one part of a READ; a part has at least one packet. 0: READs are not
   * split, and their responses do not count in the window.
   */
  readonly readPartBytes: number
  /** As in EngineOptions (engine.ts). */
  readonly pacingInterval: number
  readonly onDmaFailed: DmaFailed
  readonly hasFixedWindow: boolean
  /** Undefined: no rate control. */
  readonly rates: RateControl | undefined

  // ---- kept between calls ----
  readonly counters: Counters
  rows: Int32Array
  rowCount: number
  /** Rows of destroyed QPs, to be reused. */
  readonly freeRows: number[]
  pool: Uint32Array
  /** From this index on, the pool was never used. */
  poolTop: number
  /** First free block, by log2 of its words. The first word of a free block is the number of the next free block. */
  readonly freeBlocks: Int32Array
  readonly timers: Timers
  /** By row: when a row that its rate stopped may send again. */
  readonly paceTimers: Timers
  /** By row: when the last CNP became due, µs; -Infinity: never. */
  lastCnp: Float64Array
  /** The windows that QPs with the same peer share. */
  readonly windows: PeerWindows
  readonly transmit: TransmitQueue
  /** By row: the cause of the local error of a WQE that waits for earlier WQEs (causes.ts). */
  readonly storedCauses: Map<number, Cause>
  /** By row: the PSN for which RNR NAKs were received, how many, and when the first came, in microseconds. */
  readonly rnrNaks: Map<number, { readonly psn: number; times: number; readonly since: number }>

  // ---- valid during a call: one poll for sending, or one burst of packets ----
  sink: TransmitSink | undefined
  /** `maxSinglePacketRun` of the sink; if absent, its `maxPackets`. */
  maxSinglePacketRun: number
  /** The unused part of the reservation in the sink's arena (run.ts). */
  reservedAt: number
  reservedEnd: number
  /** The open run (run.ts); `runCount` 0: none. */
  runOffset: number
  runPacketBytes: number
  runCount: number
  runLastBytes: number
  runFlow: number
  /** The last packet is shorter than the others, so no packet can follow. */
  isRunClosed: boolean
  /** The pending DMA write (dma.ts). */
  readonly dma: Uint32Array
  dmaArena: Arena | undefined
  /** The result of `findLocalPeer` (transport/engine/loopback/local-peer.ts). */
  peerDevice: LocalPeerDevice | undefined
  peerState: EngineState | undefined
  peerRow: number
  /** Window bytes sent to local peers since `pollTransmit` was called. */
  localBytes: number
  /** Whether a packet of scattered memory was sent since then (`isScattered`). */
  isPaused: boolean
  /** `Memory.rangeAccesses` when the poll began. */
  rangesBefore: number
  /** Bytes that the polled row may still send at its rate, and those that it might at the start; Infinity: any. */
  paceLeft: number
  paceOpened: number
  /** Packets and bytes that a poll has sent to local peers and received from them, by `PollCounts`. */
  readonly pollCounts: Float64Array
  /** Created at the first use of the fast path. */
  fastBatch: FastBatch | undefined

  // ---- arguments and results ----
  readonly payloads: Payloads
  readonly result: Results
  /** The completion that is being written. */
  readonly completion: Uint32Array
}

const noArena = plainArena(0)
const INITIAL_ROWS = 16
const INITIAL_POOL_WORDS = 4096
/** The first block: not 0, since block number 0 means none. */
const POOL_START = 16

export const createState = (
  env: Environment,
  maxCwnd: number,
  sharedWindowBytes: number,
  readPartBytes: number,
  pacingInterval: number,
  hasFixedWindow: boolean,
  rateControl: DcqcnParameters | undefined,
  onDmaFailed: DmaFailed,
): EngineState => ({
  env,
  pkeys: env.pkeys ?? Uint16Array.of(DEFAULT_PKEY),
  maxCwnd,
  readPartBytes,
  pacingInterval,
  onDmaFailed,
  hasFixedWindow,
  rates: rateControl && createRateControl(rateControl),
  counters: Object.fromEntries(Object.keys(engineCounters).map(name => [name, 0])) as Counters,
  rows: new Int32Array(INITIAL_ROWS * QP.WORDS),
  rowCount: 0,
  freeRows: [],
  pool: new Uint32Array(INITIAL_POOL_WORDS),
  poolTop: POOL_START,
  freeBlocks: new Int32Array(32),
  timers: createTimers(),
  paceTimers: createTimers(),
  lastCnp: new Float64Array(0),
  windows: createPeerWindows(sharedWindowBytes, sharedWindowBytes === 0 && pacingInterval === 0 ? 0 : INITIAL_ROWS),
  transmit: createTransmitQueue(INITIAL_ROWS),
  storedCauses: new Map(),
  rnrNaks: new Map(),
  sink: undefined,
  maxSinglePacketRun: 0,
  reservedAt: 0,
  reservedEnd: 0,
  runOffset: 0,
  runPacketBytes: 0,
  runCount: 0,
  runLastBytes: 0,
  runFlow: 0,
  isRunClosed: false,
  dma: new Uint32Array(DMA.WORDS),
  dmaArena: undefined,
  peerDevice: undefined,
  peerState: undefined,
  peerRow: -1,
  localBytes: 0,
  isPaused: false,
  rangesBefore: 0,
  paceLeft: Number.POSITIVE_INFINITY,
  paceOpened: Number.POSITIVE_INFINITY,
  pollCounts: new Float64Array(PollCounts.WORDS),
  fastBatch: undefined,
  payloads: { arena: noArena, at: 0, bytes: 0, stride: 0, count: 0 },
  result: {
    runAt: 0,
    written: 0,
    isAckRequested: false,
    dataArena: noArena,
    dataAt: 0,
    offset: new Float64Array(1),
    original: new Uint32Array(2),
    shared: new Int32Array(2),
    cause: undefined,
  },
  completion: new Uint32Array(Completion.WORDS),
})

/** The engine's taps, if anybody watches. */
/** The P_Key of a queue pair, which its packets have. */
export const pkeyOf = (s: EngineState, base: number): number => s.pkeys[s.rows[base + QP.PKEY_INDEX]]

export const tapsOf = ({ env: { taps } }: EngineState): WorkTaps | undefined =>
  taps?.watched.requests === undefined ? undefined : taps

/**
 * Number of response packets of one part of a READ. Every part ends at a multiple of this number, counted from the
 * READ's first PSN; so do parts that are requested again after a loss.
 */
export const readPartPackets = (s: EngineState, mtu: number): number =>
  s.readPartBytes === 0 ? PSN_HALF : Math.max(1, Math.floor(s.readPartBytes / (mtu + PACKET_WEIGHT)))

/** Takes a row for a new queue pair. Keeps SCHEDULED, because the row may still be in the transmit queue. */
export const takeRow = (s: EngineState): number => {
  let row = s.freeRows.pop()
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

/** The number of rows to which a full table of `count` rows grows. */
export const largerCount = (count: number): number => count + Math.max(INITIAL_ROWS, count >> 3)

const growRows = (s: EngineState, count: number): void => {
  const rows = new Int32Array(count * QP.WORDS)
  rows.set(s.rows)
  s.rows = rows
  growTransmitQueue(s.transmit, count)
  growByRow(s.windows, count)
}

/** log2 of the words of a block for a request with up to `elements` scatter/gather elements. */
export const log2OfRequest = (elements: number): number =>
  Math.ceil(Math.log2(WQE.WR + Send.SGE + Math.max(1, elements) * Sge.WORDS))

/** log2 of the words of a block for `count` resources. */
export const log2OfResources = (count: number): number => Math.ceil(Math.log2(Math.max(1, count) * RES.WORDS))

/** Takes a block of 2^log2 words of the pool; its contents are undefined. `s.pool` may be another array afterwards. */
export const takeBlock = (s: EngineState, log2: number): number => {
  const first = s.freeBlocks[log2]
  if (first !== 0) {
    s.freeBlocks[log2] = s.pool[first]
    return first
  }
  const words = 1 << log2
  const at = s.poolTop
  if (at + words > s.pool.length) {
    const pool = new Uint32Array(s.pool.length + Math.max(INITIAL_POOL_WORDS, s.pool.length >> 2, words))
    pool.set(s.pool)
    s.pool = pool
  }
  s.poolTop = at + words
  return at
}

/** Returns a block of 2^log2 words to the free list. */
export const giveBlock = (s: EngineState, log2: number, block: number): void => {
  s.pool[block] = s.freeBlocks[log2]
  s.freeBlocks[log2] = block
}

/** Number of words of the pool that are in use. Slow: walks the free lists. */
export const usedWords = (s: EngineState): number => {
  let words = s.poolTop - POOL_START
  for (let log2 = 0; log2 < s.freeBlocks.length; log2++)
    for (let block = s.freeBlocks[log2]; block !== 0; block = s.pool[block]) words -= 1 << log2
  return words
}
