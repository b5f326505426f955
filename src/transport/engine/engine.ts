/*
 * The transport engine: queue pairs of all services (InfiniBand Architecture Specification, volume 1, chapter 9),
 * without I/O (docs/decisions/engines-without-io.md). This file creates queue pairs, changes their states, dispatches
 * received packets to responder and completer, and polls responder and requester for packets to send. Methods of
 * `Environment` and `TransmitSink` may query the engine but not change it. The driver checks which transitions a
 * program may request (spec/qp-states.ts).
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { type Cause, createCause } from '../../spec/check/causes.ts'
import { QpState } from '../../spec/enums.ts'
import { CNP, OP_REQUEST, OP_RESPONSE, opcodeFlags, TRANSPORT_MASK } from '../../spec/wire/opcodes.ts'
import { reliableService, Service, serviceBits } from '../../spec/wire/services.ts'
import { SendKind } from '../../spec/work.ts'
import type { Arena } from '../wire/arena.ts'
import { bthPkey, bthVersion, doPkeysMatch } from '../wire/bth.ts'
import { checkPacket } from '../wire/packet.ts'
import { forgetCauses, partitionCause, rnrNaksOf } from './causes.ts'
import { onReadDmaFailed, onResponse, onTimer } from './completer/completer.ts'
import { enterError, enterSqe, flushReceives, flushSends, onDrained } from './completer/completion.ts'
import { closeRate, isConnected, onCnp, onMarked, openRate } from './congestion/congestion.ts'
import { type DcqcnParameters, forgetRate, rateOf } from './congestion/dcqcn.ts'
import { DmaKind, flushDma, flushDmaOf } from './dma.ts'
import { QP, RES, ReqFlag, RespFlag, WQE } from './fields.ts'
import {
  leaveWindow,
  nextWindowDeadline,
  onWindowTimer,
  requeue,
  takeWaiting,
  windowOf,
} from './flow-control/peer-window.ts'
import { sendIdleFastPath } from './loopback/fast-path.ts'
import { onMiddles } from './middle-batch.ts'
import { psnDistance } from './psn.ts'
import {
  qpLayoutOf,
  recvBlockLog2,
  resourcesBlockLog2,
  sendBlockLog2,
  setResourcesBlockLog2,
  signalsAll,
} from './qp-layout.ts'
import { transmitRequests } from './requester/requester.ts'
import { onRequestDmaFailed } from './responder/nak.ts'
import { onRequest, scheduleAck } from './responder/responder.ts'
import { transmitResponses } from './responder/responses.ts'
import { dropSrq } from './responder/xrc.ts'
import { endRun } from './run.ts'
import { isBusy, isScattered, PollResult } from './scheduling.ts'
import {
  createState,
  type DmaFailed,
  type EngineState,
  giveBlock,
  log2OfResources,
  MAX_LOCAL_BYTES,
  pkeyOf,
  takeBlock,
  takeRow,
  usedWords,
} from './state.ts'
import { clearTimer, nextDeadline, takeExpired } from './timers.ts'
import {
  beginTurn,
  dequeueScheduled,
  isTransmitQueueEmpty,
  isTurnOver,
  leaveOwner,
  schedule,
  scheduleFirst,
  setOwner,
} from './transmit-queue.ts'
import type { Counters, Environment, QpAttributeChanges, QpInit, QpSnapshot, TransmitSink } from './types.ts'
import { datagramSource, onDatagram } from './unreliable/datagram.ts'
import { onFrame } from './unreliable/raw-packet.ts'

const { RESET, INIT, RTR, RTS, SQD, SQE, ERR } = QpState.values
const FLAGS_OF = opcodeFlags
/** The P_Key without its membership bit. */
const { XRC_INI, XRC_TGT, DCI } = Service

export interface Engine {
  readonly counters: Counters
  /** Creates a queue pair in RESET; returns its row, the number that identifies it to the engine. */
  create(init: QpInit): number
  /** Destroys a queue pair, without completions. Its row is reused. */
  destroy(row: number): void
  /**
   * Sets attributes, and the state (`QpState`) unless it is undefined. The transition must be legal. `cause`: why the
   * QP goes to ERR; absent: the program requested it.
   */
  modify(row: number, state: number | undefined, attributes: QpAttributeChanges, cause?: Cause): void
  query(row: number): QpSnapshot
  /** Returns the state (`QpState`). */
  stateOf(row: number): number
  /** Whether each send has a completion (sq_sig_all). */
  signalsAll(row: number): boolean
  /** Bytes that a queue pair may have unacknowledged, with 64 bytes per packet: `windowBytes`, or less after a loss. */
  windowOf(row: number): number
  /**
   * Calls `visit` for each row whose oldest send got RNR NAKs and nothing else so far. `psn`: the send's PSN; `since`:
   * the time of the first RNR NAK, in microseconds.
   */
  visitRnrWaits(visit: (row: number, psn: number, rnrNaks: number, since: number) => void): void
  /** Number of RNR NAKs for the oldest outstanding request. */
  rnrNaks(row: number): number
  /** The outstanding send with packet `psn`: its words (`Send`) begin at `words[at]`. Undefined: there is none. */
  sendWith(row: number, psn: number): { readonly words: Uint32Array; readonly at: number } | undefined
  /**
   * Sends the oldest responses of a queue pair, and the ACK or NAK that is due, if the port has space. False if there
   * are none.
   */
  sendResponses(row: number, sink: TransmitSink): boolean
  /** The XRC SRQ with this number was destroyed: messages for it end without completions. */
  forgetSrq(srqn: number): void
  /** Send doorbell: WQEs may have been posted. In ERR and SQE they are flushed. */
  onDoorbell(row: number): void
  /** Schedules a queue pair whose acknowledgement was held (`Choices.holdsAcknowledge`). */
  resume(row: number): void
  /** Receive WQEs may have been posted: a QP in ERR flushes them. */
  onReceiveScan(row: number): void
  /**
   * Handles a UDP payload from `peer` for the queue pair: `length` bytes at `offset`. The bytes include the ICRC, which
   * the engine does not check. They must not change until `endBurst`.
   */
  onPacket(row: number, arena: Arena, offset: number, length: number, peer: number, now: number): void
  /**
   * Handles the first of `count` back-to-back packets, which is for `row`, and as many of the following packets as
   * possible. All have `packetBytes` bytes, except the last, which has `lastBytes`. Returns the number of handled
   * packets. Pass the rest in another call, with the row of its first packet.
   */
  onRun(
    row: number,
    arena: Arena,
    offset: number,
    packetBytes: number,
    count: number,
    lastBytes: number,
    peer: number,
    now: number,
  ): number
  /**
   * Handles a frame of the link for a queue pair of the service RAW: `length` bytes at `offset`. `tag` and `headers`
   * are the IMM and SL of its completion.
   */
  onFrame(row: number, arena: Arena, offset: number, length: number, tag: number, headers: number): void
  /**
   * The last `count` packets for the row, from `peer`, the first at `offset`, were marked by a switch: the ECN field of
   * their IP headers is "congestion experienced". Call this after `onRun`.
   */
  onMarked(row: number, arena: Arena, offset: number, count: number, peer: number, now: number): void
  /** The rate to which rate control limits a queue pair, bytes/µs; Infinity: none. */
  rateOf(row: number, now: number): number
  /** Call this at the start of each poll of the device. */
  beginPoll(): void
  /** Whether a packet for the queue pair may take long to copy. */
  isScattered(row: number): boolean
  /** Whether copies of such packets have taken so long in this poll that further ones should wait for the next one. */
  isBusy(): boolean
  /** Writes all received payloads to memory. Call this before the bytes of the packets are reused. */
  endBurst(): void
  /**
   * Sends for scheduled rows, and continues their flushes. Returns a `PollResult`; MORE: a call is limited, call again;
   * PAUSE: call again after other work.
   */
  pollTransmit(sink: TransmitSink, now: number): number
  /** Whether there is nothing to send: `pollTransmit` need not be called before the next input. */
  isIdle(): boolean
  /** The time at which to call `onTimeout`, µs; Infinity: never. */
  nextTimeout(): number
  onTimeout(now: number): void
  /** Number of queue pairs, and of words in use in the pool (state.ts). */
  stat(): { queuePairs: number; poolWords: number }
}

export interface EngineOptions {
  /**
   * Maximum congestion window of one QP, in window bytes: payload plus 64 bytes per packet. A QP with so many
   * unacknowledged window bytes sends no packets of SENDs and WRITEs. A loss shrinks the window temporarily. Default
   * 256 KiB.
   */
  readonly windowBytes?: number
  /** Maximum window that all reliable QPs with the same peer share, in window bytes. Default 0: unlimited. */
  readonly sharedWindowBytes?: number
  /**
   * Whether READ responses count in the window. If so, a READ is requested in parts of at most half the window.
   * Default false.
   */
  readonly boundReads?: boolean
  /**
   * Pacing of unreliable QPs, µs. Once they have together sent `windowBytes` (but no more than 256 KiB) within this
   * interval, they wait for its end. Default 0: unlimited.
   */
  readonly pacingInterval?: number
  /** Rate control of connected queue pairs (transport/engine/congestion/dcqcn.ts). Default: none. */
  readonly rateControl?: DcqcnParameters | undefined
  /** Whether a loss leaves the congestion window as it is, for comparisons (src/tools/sim/). Default false. */
  readonly fixedWindow?: boolean
}

const onDmaFailed: DmaFailed = (s, row, kind, result, psn, msn) => {
  if (kind === DmaKind.READ_RESPONSE) onReadDmaFailed(s, row)
  else onRequestDmaFailed(s, row, kind, result, psn, msn)
}

export const createEngine = (env: Environment, options: EngineOptions = {}): Engine => {
  const { windowBytes = 0x4_0000, sharedWindowBytes = 0, boundReads = false, pacingInterval = 0 } = options
  const s = createState(
    env,
    windowBytes,
    sharedWindowBytes,
    boundReads ? windowBytes >> 1 : 0,
    pacingInterval,
    options.fixedWindow ?? false,
    options.rateControl,
    onDmaFailed,
  )
  if (env.localDevice !== undefined) env.localDevice.state = s
  return {
    counters: s.counters,
    create: init => create(s, init),
    destroy: row => destroy(s, row),
    modify: (row, state, attributes, cause) => modify(s, row, state, attributes, cause),
    query: row => query(s, row),
    stateOf: row => s.rows[requireRow(s, row) + QP.STATE],
    signalsAll: row => signalsAll(s.rows, requireRow(s, row)),
    windowOf: row => windowOf(s, row),
    visitRnrWaits(visit) {
      for (const [row, { psn, since }] of s.rnrNaks) {
        const times = rnrNaksOf(s, row)
        if (times > 0) visit(row, psn, times, since)
      }
    },
    rnrNaks: row => rnrNaksOf(s, row),
    sendWith: (row, psn) => sendWith(s, row, psn),
    sendResponses: (row, sink) => sendResponses(s, row, sink),
    forgetSrq: srqn => dropSrq(s, srqn),
    onDoorbell: row => onDoorbell(s, row),
    resume: row => schedule(s, row),
    onReceiveScan: row => {
      if (s.rows[row * QP.WORDS + QP.STATE] === ERR) flushReceives(s, row)
    },
    onPacket: (row, arena, offset, length, peer, now) => onPacket(s, row, arena, offset, length, peer, now),
    onRun: (row, arena, offset, packetBytes, count, lastBytes, peer, now) =>
      onRun(s, row, arena, offset, packetBytes, count, lastBytes, peer, now),
    onFrame: (row, arena, offset, length, tag, headers) => onFrame(s, row, arena, offset, length, tag, headers),
    onMarked: (row, arena, offset, count, peer, now) => onMarked(s, row, arena, offset, count, peer, now),
    rateOf: (row, now) => (s.rates === undefined ? Number.POSITIVE_INFINITY : rateOf(s.rates, row, now)),
    beginPoll: () => {
      s.rangesBefore = s.env.memory.rangeAccesses?.() ?? 0
      beginTurn(s)
    },
    isScattered: row => isScattered(s, row),
    isBusy: () => isBusy(s),
    endBurst: () => flushDma(s),
    pollTransmit: (sink, now) => pollTransmit(s, sink, now),
    isIdle: () => isTransmitQueueEmpty(s) && s.windows.waitingWindows.length === 0,
    nextTimeout: () => Math.min(nextDeadline(s.timers), nextWindowDeadline(s), nextDeadline(s.paceTimers)),
    onTimeout: now => {
      if (now >= nextWindowDeadline(s)) onWindowTimer(s, now)
      for (let row = takeExpired(s.paceTimers, now); row >= 0; row = takeExpired(s.paceTimers, now)) schedule(s, row)
      for (let row = takeExpired(s.timers, now); row >= 0; row = takeExpired(s.timers, now)) onTimer(s, row, now)
    },
    stat: () => ({ queuePairs: s.rowCount - s.freeRows.length, poolWords: usedWords(s) }),
  }
}

const create = (s: EngineState, init: QpInit): number => {
  if (init.service === Service.UD && s.env.grh === undefined)
    throw new Error('this engine has no datagrams: its environment has no `grh`')
  if (init.service === Service.RAW && s.env.frames === undefined)
    throw new Error('this engine has no raw packets: its environment has no `frames`')
  const layout = qpLayoutOf(init.maxSendSge, init.maxRecvSge, init.sqSigAll, init.hasSrq)
  const row = takeRow(s)
  const w = s.rows
  const base = row * QP.WORDS
  w[base + QP.SERVICE] = init.service
  w[base + QP.QPN] = init.qpn
  w[base + QP.PD] = init.pd
  w[base + QP.RECV_PD] = init.recvPd ?? init.pd
  w[base + QP.SEND_CQ] = init.sendCq
  w[base + QP.RECV_CQ] = init.recvCq
  w[base + QP.LAYOUT] = layout
  clearRow(w, base)
  setOwner(s, row, init.owner ?? 0)
  return row
}

/** Clears a row's attributes and protocol state: the QP is in RESET. */
const clearRow = (w: Int32Array, base: number): void => {
  w.fill(0, base + QP.STATE, base + QP.WORDS)
  w[base + QP.STATE] = RESET
  w[base + QP.MTU] = 256
  w[base + QP.PEER] = -1
}

/** Returns the index of a row's first word. Throws an Error if the row has no queue pair. */
const requireRow = (s: EngineState, row: number): number => {
  const base = row * QP.WORDS
  if (row < 0 || row >= s.rowCount || s.rows[base + QP.ALIVE] === 0)
    throw new Error(`there is no queue pair in row ${row}`)
  return base
}

const destroy = (s: EngineState, row: number): void => {
  const base = requireRow(s, row)
  reset(s, row)
  s.rows[base + QP.ALIVE] = 0
  leaveOwner(s, row)
  s.freeRows.push(row)
}

/** Moves a QP to RESET: drops everything in flight, without completions, and clears all attributes. */
const reset = (s: EngineState, row: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  if (w[base + QP.STATE] === ERR) s.env.taps?.inError(w[base + QP.QPN], false)
  // First the state: if the pending DMA fails, nothing completes, and no event is raised.
  w[base + QP.STATE] = RESET
  flushDmaOf(s, row)
  leaveWindow(s, row)
  forgetCauses(s, row)
  for (let request = w[base + QP.REQ_HEAD]; request !== 0; ) {
    const next = s.pool[request + WQE.NEXT]
    giveBlock(s, sendBlockLog2(w, base), request)
    request = next
  }
  if (w[base + QP.RESP_RECEIVE] !== 0) giveBlock(s, recvBlockLog2(w, base), w[base + QP.RESP_RECEIVE])
  if (w[base + QP.RESP_RESOURCES] !== 0) giveBlock(s, resourcesBlockLog2(w, base), w[base + QP.RESP_RESOURCES])
  clearTimer(s.timers, row)
  clearTimer(s.paceTimers, row)
  if (s.rates !== undefined) forgetRate(s.rates, row)
  clearRow(w, base)
}

/**
 * Resizes the ring of READ and atomic resources to max_dest_rd_atomic, and keeps the youngest ones. The ring is
 * allocated at the first READ or atomic (transport/engine/responder/rd-atomic.ts).
 */
const sizeResources = (s: EngineState, row: number): void => {
  const base = row * QP.WORDS
  const count = s.rows[base + QP.MAX_DEST_RD_ATOMIC]
  if (s.rows[base + QP.RESP_RESOURCES] === 0) {
    s.rows[base + QP.RESP_RESOURCE_COUNT] = count
    return
  }
  const log2 = log2OfResources(count)
  const block = takeBlock(s, log2)
  s.pool.fill(0, block, block + count * RES.WORDS)
  const w = s.rows
  const p = s.pool
  const oldBlock = w[base + QP.RESP_RESOURCES]
  const oldCount = w[base + QP.RESP_RESOURCE_COUNT]
  w[base + QP.RESP_PENDING] = 0
  // Youngest first, from the end of the new ring backwards.
  for (let i = 1; i <= oldCount && i <= count; i++) {
    const source = oldBlock + ((w[base + QP.RESP_RESOURCE_NEXT] - i + oldCount) % oldCount) * RES.WORDS
    const target = block + (count - i) * RES.WORDS
    p.copyWithin(target, source, source + RES.WORDS)
    if (p[target + RES.KIND] !== 0 && p[target + RES.NEXT] < p[target + RES.END]) w[base + QP.RESP_PENDING]++
  }
  giveBlock(s, resourcesBlockLog2(w, base), oldBlock)
  w[base + QP.RESP_RESOURCES] = block
  setResourcesBlockLog2(w, base, log2)
  w[base + QP.RESP_RESOURCE_COUNT] = count
  w[base + QP.RESP_RESOURCE_NEXT] = 0
}

/** One statement per attribute: a loop over names would look up each name. */
const setAttributes = (w: Int32Array, base: number, attributes: QpAttributeChanges): void => {
  const { sqPsn, retryCnt, rnrRetry } = attributes
  if (attributes.destQpn !== undefined) w[base + QP.DEST_QPN] = attributes.destQpn
  if (attributes.pathMtu !== undefined) w[base + QP.MTU] = attributes.pathMtu
  if (attributes.timeout !== undefined) w[base + QP.TIMEOUT] = attributes.timeout
  if (attributes.minRnrTimer !== undefined) w[base + QP.MIN_RNR_TIMER] = attributes.minRnrTimer
  if (attributes.maxRdAtomic !== undefined) w[base + QP.MAX_RD_ATOMIC] = attributes.maxRdAtomic
  if (attributes.maxDestRdAtomic !== undefined) w[base + QP.MAX_DEST_RD_ATOMIC] = attributes.maxDestRdAtomic
  if (attributes.access !== undefined) w[base + QP.ACCESS] = attributes.access
  if (attributes.pkeyIndex !== undefined) w[base + QP.PKEY_INDEX] = attributes.pkeyIndex
  if (attributes.qkey !== undefined) w[base + QP.QKEY] = attributes.qkey
  if (attributes.flow !== undefined) w[base + QP.FLOW] = attributes.flow
  if (attributes.peer !== undefined) w[base + QP.PEER] = attributes.peer
  if (attributes.rqPsn !== undefined) w[base + QP.RESP_EPSN] = attributes.rqPsn
  if (sqPsn !== undefined) {
    w[base + QP.COMP_PSN] = sqPsn
    w[base + QP.REQ_PSN] = sqPsn
    w[base + QP.REQ_MAX_PSN] = sqPsn
  }
  if (retryCnt !== undefined) {
    w[base + QP.RETRY_CNT] = retryCnt
    w[base + QP.COMP_RETRIES] = retryCnt
  }
  if (rnrRetry !== undefined) {
    w[base + QP.RNR_RETRY] = rnrRetry
    w[base + QP.COMP_RNR_RETRIES] = rnrRetry
  }
}

/**
 * Bounds the flush of a queue that a program refills meanwhile. With MAX_FLUSHED (completion.ts) WQEs per call, the
 * bound is above the 32,767 completions that a CQ of the soft device can hold.
 */
const MAX_FLUSH_CALLS = 64

/** Before the transition from SQE to RTS: flushes what is left, so that later posts are not flushed. */
const finishFlush = (s: EngineState, row: number): void => {
  const base = row * QP.WORDS
  for (let left = MAX_FLUSH_CALLS; left > 0 && (s.rows[base + QP.REQ_FLAGS] & ReqFlag.FLUSHING) !== 0; left--) {
    s.rows[base + QP.REQ_FLAGS] &= ~ReqFlag.FLUSHING
    flushSends(s, row)
  }
  s.rows[base + QP.REQ_FLAGS] &= ~ReqFlag.FLUSHING
}

const modify = (
  s: EngineState,
  row: number,
  state: number | undefined,
  attributes: QpAttributeChanges,
  cause?: Cause,
): void => {
  const base = requireRow(s, row)
  const w = s.rows
  const before = w[base + QP.STATE]
  const after = state ?? before
  setAttributes(w, base, attributes)
  const isReliable = reliableService[w[base + QP.SERVICE]] !== 0
  if (isReliable && after === RTR && before === INIT) sizeResources(s, row)
  else if (attributes.maxDestRdAtomic !== undefined && before === SQD) sizeResources(s, row)
  if (after === ERR) enterError(s, row, cause ?? createCause('MODIFIED', {}))
  else if (after === SQE && before !== SQE) enterSqe(s, row, cause ?? createCause('MODIFIED', {}))
  else if (after === RESET) reset(s, row)
  else if (after !== before) {
    if (before === SQE) finishFlush(s, row)
    w[base + QP.STATE] = after
    if (after === RTS) {
      w[base + QP.REQ_CWND] = s.maxCwnd
      w[base + QP.REQ_FLAGS] = (w[base + QP.REQ_FLAGS] | ReqFlag.MORE) & ~ReqFlag.DRAINING
      schedule(s, row)
    } else if (after === SQD) {
      w[base + QP.REQ_FLAGS] |= ReqFlag.DRAINING
      if (w[base + QP.REQ_HEAD] === 0) onDrained(s, row)
    }
  }
}

const query = (s: EngineState, row: number): QpSnapshot => {
  const base = requireRow(s, row)
  const w = s.rows
  return {
    state: w[base + QP.STATE],
    sqSigAll: signalsAll(w, base),
    // DEST_QPN of a UD or RAW queue pair belongs to the last datagram or frame.
    destQpn: isConnected(w[base + QP.SERVICE]) ? w[base + QP.DEST_QPN] : 0,
    pathMtu: w[base + QP.MTU],
    timeout: w[base + QP.TIMEOUT],
    retryCnt: w[base + QP.RETRY_CNT],
    retriesLeft: w[base + QP.COMP_RETRIES],
    retries: w[base + QP.COMP_LOSSES],
    rnrRetry: w[base + QP.RNR_RETRY],
    minRnrTimer: w[base + QP.MIN_RNR_TIMER],
    maxRdAtomic: w[base + QP.MAX_RD_ATOMIC],
    maxDestRdAtomic: w[base + QP.MAX_DEST_RD_ATOMIC],
    access: w[base + QP.ACCESS],
    pkeyIndex: w[base + QP.PKEY_INDEX],
    qkey: w[base + QP.QKEY] >>> 0,
    rqPsn: w[base + QP.RESP_EPSN],
    sqPsn: w[base + QP.REQ_MAX_PSN],
    isDraining: (w[base + QP.REQ_FLAGS] & ReqFlag.DRAINING) !== 0,
    sendCq: w[base + QP.SEND_CQ],
    recvCq: w[base + QP.RECV_CQ],
  }
}

const sendWith = ({ rows, pool }: EngineState, row: number, psn: number) => {
  const base = row * QP.WORDS
  for (let wqe = rows[base + QP.REQ_HEAD]; wqe !== 0; wqe = pool[wqe + WQE.NEXT])
    if (pool[wqe + WQE.KIND] !== SendKind.LOCAL && psnDistance(pool[wqe + WQE.FIRST_PSN], psn) < pool[wqe + WQE.PSNS])
      return { words: pool, at: wqe + WQE.WR }
  return undefined
}

const onDoorbell = (s: EngineState, row: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  const state = w[base + QP.STATE]
  if (state === ERR || state === SQE) {
    flushSends(s, row)
    return
  }
  w[base + QP.REQ_FLAGS] |= ReqFlag.MORE
  // A row with a current WQE is already scheduled, or waits for an event that schedules it.
  if (state !== RTS || w[base + QP.REQ_CURRENT] !== 0) return
  // If no other row is scheduled, the fast path to a local peer can run without scheduling.
  if (isTransmitQueueEmpty(s) && s.env.localDevice !== undefined && !isTurnOver(s) && sendIdleFastPath(s, row)) return
  schedule(s, row)
}

const onPacket = (
  s: EngineState,
  row: number,
  arena: Arena,
  offset: number,
  length: number,
  peer: number,
  now: number,
): void => {
  const w = s.rows
  const base = row * QP.WORDS
  const state = w[base + QP.STATE]
  const service = w[base + QP.SERVICE]
  s.counters.receivedPackets++
  const view = arena.view
  if (
    state < RTR ||
    state === ERR ||
    (service !== Service.UD && (peer !== w[base + QP.PEER] || peer < 0)) ||
    checkPacket(view, offset, length) !== 0 ||
    bthVersion(view, offset) !== 0
  ) {
    s.counters.dropped++
    return
  }
  const pkey = bthPkey(view, offset)
  const portPkey = pkeyOf(s, base)
  if (!doPkeysMatch(pkey, portPkey)) {
    s.counters.pkeyViolations++
    s.counters.dropped++
    const sourceQpn = service === Service.UD ? datagramSource(view, offset) : w[base + QP.DEST_QPN]
    s.env.causes?.dropped(row, partitionCause(sourceQpn, pkey, w[base + QP.QPN], portPkey))
    return
  }
  const opcode = view.getUint8(offset)
  const flags = FLAGS_OF[opcode]
  if (opcode === CNP && isConnected(service)) onCnp(s, row, now)
  else if ((opcode & TRANSPORT_MASK) !== serviceBits[service]) s.counters.dropped++
  else if (service === Service.UD) onDatagram(s, row, arena, offset, length)
  // An initiator has no responder, an XRC target no requester.
  else if ((flags & OP_REQUEST) !== 0 && service !== XRC_INI && service !== DCI)
    onRequest(s, row, arena, offset, length)
  else if ((flags & OP_RESPONSE) !== 0 && (state === RTS || state === SQD) && service !== XRC_TGT)
    onResponse(s, row, arena, offset, length, now)
  else s.counters.dropped++
}

const onRun = (
  s: EngineState,
  row: number,
  arena: Arena,
  offset: number,
  packetBytes: number,
  count: number,
  lastBytes: number,
  peer: number,
  now: number,
): number => {
  const base = row * QP.WORDS
  const state = s.rows[base + QP.STATE]
  if (isScattered(s, row)) {
    onPacket(s, row, arena, offset, count === 1 ? lastBytes : packetBytes, peer, now)
    flushDma(s)
    // a peer whose packets take long gets its ACKs before its timer expires
    const after = s.rows[base + QP.STATE]
    if (after >= RTR && after !== ERR) scheduleAck(s, row, isBusy(s))
    return 1
  }
  if (count > 1 && state >= RTR && state !== ERR && peer === s.rows[base + QP.PEER] && peer >= 0) {
    const equalPackets = lastBytes === packetBytes ? count : count - 1
    const handled = onMiddles(s, row, arena, offset, packetBytes, equalPackets, now)
    if (handled > 0) {
      s.counters.receivedPackets += handled
      return handled
    }
  }
  onPacket(s, row, arena, offset, count === 1 ? lastBytes : packetBytes, peer, now)
  return 1
}

/**
 * Maximum number of row polls in one call. A row with WQEs to flush costs FLUSH_COST more. A row that has used its
 * quantum costs MORE_COST more, because some requests, such as local operations, do not fill the port.
 */
const MAX_ROW_POLLS = 0x1_0000
const FLUSH_COST = 0x4000
const MORE_COST = 0x100

const beginSending = (s: EngineState, sink: TransmitSink): void => {
  flushDma(s)
  s.localBytes = 0
  s.isPaused = false
  s.sink = sink
  s.maxSinglePacketRun = sink.maxSinglePacketRun ?? sink.maxPackets
}

const sendResponses = (s: EngineState, row: number, sink: TransmitSink): boolean => {
  const base = requireRow(s, row)
  const isDue = (s.rows[base + QP.RESP_FLAGS] & (RespFlag.ACK_DUE | RespFlag.NAK_DUE)) !== 0
  if (s.rows[base + QP.RESP_PENDING] === 0 && !isDue) return false
  beginSending(s, sink)
  transmitResponses(s, row)
  endRun(s)
  return true
}

const pollTransmit = (s: EngineState, sink: TransmitSink, now: number): number => {
  beginSending(s, sink)
  beginTurn(s)
  const { counters } = s
  const sentBefore = counters.sentPackets
  let outcome: number = PollResult.DONE
  let pollsLeft = MAX_ROW_POLLS
  for (let row = firstRow(s); row >= 0; row = nextRow(s)) {
    // A program can refill its queue while it is flushed, so a call flushes only a few rows.
    if ((s.rows[row * QP.WORDS + QP.REQ_FLAGS] & ReqFlag.FLUSHING) !== 0) pollsLeft -= FLUSH_COST
    const sentBeforeRow = counters.sentPackets
    const hasPollsLeft = pollsLeft-- > 0
    const result = hasPollsLeft ? transmitRow(s, row, now) : PollResult.FULL
    if (result === PollResult.FULL) {
      // A row that has sent something loses its turn: otherwise it would keep a slow port for itself.
      const atFront = counters.sentPackets === sentBeforeRow
      if (s.windows.servedRow === row) requeue(s, row, atFront, now)
      else if (atFront) scheduleFirst(s, row)
      else schedule(s, row)
      outcome = hasPollsLeft ? PollResult.FULL : PollResult.MORE
      break
    }
    if (result === PollResult.MORE) {
      schedule(s, row)
      pollsLeft -= MORE_COST
    }
    if (s.isPaused || isTurnOver(s)) {
      outcome = PollResult.PAUSE
      break
    }
    if (s.localBytes >= MAX_LOCAL_BYTES) {
      outcome = isTransmitQueueEmpty(s) ? PollResult.DONE : PollResult.MORE
      break
    }
  }
  endRun(s)
  if (counters.sentPackets !== sentBefore) s.windows.beginsWithWaiting = !s.windows.beginsWithWaiting
  return outcome
}

/**
 * The first row to poll; -1: none. Polls that send begin in turn with a scheduled row and with a row that waited for
 * its shared window, because the port may be full after one row.
 */
const firstRow = (s: EngineState): number => {
  s.windows.servedRow = -1
  const row = s.windows.beginsWithWaiting ? takeWaiting(s) : -1
  return row >= 0 ? row : nextRow(s)
}

/** The next row to poll: a scheduled row, else a row that waited for its shared window; -1: none. */
const nextRow = (s: EngineState): number => {
  s.windows.servedRow = -1
  const row = dequeueScheduled(s)
  return row >= 0 || s.windows.waitingWindows.length === 0 ? row : takeWaiting(s)
}

/** Sends a row's responses, continues its flush, then sends its requests, at its rate. Returns a PollResult. */
const transmitRow = (s: EngineState, row: number, now: number): number => {
  const base = row * QP.WORDS
  if (s.rows[base + QP.ALIVE] === 0 || s.rows[base + QP.STATE] < RTR) return PollResult.DONE
  if (s.rates === undefined) return transmitQueues(s, row, now)
  openRate(s, row, now)
  const result = transmitQueues(s, row, now)
  closeRate(s, row, now)
  return result
}

const transmitQueues = (s: EngineState, row: number, now: number): number => {
  const base = row * QP.WORDS
  const responses = transmitResponses(s, row)
  if (responses === PollResult.FULL) return responses
  if ((s.rows[base + QP.REQ_FLAGS] & ReqFlag.FLUSHING) !== 0) {
    s.rows[base + QP.REQ_FLAGS] &= ~ReqFlag.FLUSHING
    flushSends(s, row)
    if (s.rows[base + QP.STATE] === ERR) flushReceives(s, row)
  }
  const requests = transmitRequests(s, row, now)
  return requests === PollResult.DONE ? responses : requests
}
