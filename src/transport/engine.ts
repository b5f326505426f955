/*
 * The transport engine (design.md section 5): queue pairs of all services (InfiniBand Architecture Specification,
 * volume 1, chapter 9), sans-IO. Packets, doorbells and time go in; runs of packets, completions and events come out
 * through what `Environment` and `TransmitSink` implement, which never calls back into the engine. This file creates
 * rows, moves them between states, and hands packets to responder and completer, turns to responder and requester.
 * Which state changes a program may ask for is checked before, from spec/qp-states.ts.
 */
import { because, type Cause } from '../spec/causes.ts'
import { QpState } from '../spec/enums.ts'
import { DEFAULT_PKEY } from '../spec/wire/headers.ts'
import { OP_REQUEST, OP_RESPONSE, opcodeFlags, TRANSPORT_MASK } from '../spec/wire/opcodes.ts'
import { reliableService, Service, serviceBits } from '../spec/wire/services.ts'
import type { Arena } from '../wire/arena.ts'
import { bthPkey, bthVersion } from '../wire/bth.ts'
import { checkPacket } from '../wire/packet.ts'
import { forgetCauses } from './causes.ts'
import { onReadDmaFailed, onResponse, onTimer } from './completer/completer.ts'
import { enterError, flushReceives, flushSends, onDrained } from './completer/completion.ts'
import { onDatagram } from './datagram.ts'
import { DmaKind, flushDma, flushDmaOf } from './dma.ts'
import {
  leaveWindow,
  nextWindowDeadline,
  onWindowTimer,
  requeueFirst,
  takeWaiting,
} from './flow-control/peer-window.ts'
import { sendIdleFastPath } from './loopback/fast-path.ts'
import { onMiddles } from './middle-batch.ts'
import { qpLayoutOf, recvBlock, resourcesBlock, sendBlock, setResourcesBlock, signalsAll } from './qp-layout.ts'
import { transmitRequests } from './requester/requester.ts'
import { onRequestDmaFailed } from './responder/nak.ts'
import { onRequest } from './responder/responder.ts'
import { transmitResponses } from './responder/responses.ts'
import { forgetSrq } from './responder/xrc.ts'
import { endRun } from './run.ts'
import { Turn } from './scheduling.ts'
import {
  createState,
  type DmaFailed,
  dequeueScheduled,
  type EngineState,
  giveBlock,
  Q,
  Request,
  Resource,
  Row,
  resourceBlock,
  schedule,
  scheduleFirst,
  takeBlock,
  takeRow,
  usedWords,
} from './state.ts'
import { clearTimer, nextDeadline, takeExpired } from './timers.ts'
import type { Counters, Environment, Given, QpAttributes, QpInit, QpSnapshot, TransmitSink } from './types.ts'

const { WORDS, SERVICE, STATE, ALIVE, PEER, REQUESTER, HEAD, CURRENT, UNACKED, SEND_PSN, MAX_PSN } = Row
const { RETRIES, RNR_LEFT, RETRY_CNT, RNR_RETRY, EXPECTED, RESOURCES, RESOURCE_COUNT, RESOURCE_NEXT, PENDING } = Row
const { RESET, INIT, RTR, RTS, SQD, SQE, ERR } = QpState.values
const { MORE, DRAINING, FLUSHING } = Q
const FLAGS_OF = opcodeFlags
const PKEY_BASE = 0x7fff
const { XRC_INI, XRC_TGT } = Service

export interface Engine {
  readonly counters: Counters
  /** A new queue pair in RESET; answers its row. */
  create(init: QpInit): number
  /** The queue pair is gone, without completions. Its row may be given out again. */
  destroy(row: number): void
  /**
   * Sets attributes and, unless `state` is undefined, the state (a number of `QpState`). The transition must be legal.
   * `cause`: of a move to ERR that the program did not ask for.
   */
  modify(row: number, state: number | undefined, attributes: Given<QpAttributes>, cause?: Cause): void
  query(row: number): QpSnapshot
  /** Its state alone, a number of `QpState`. */
  stateOf(row: number): number
  /** XRC: the shared receive queue with this number is no more; its CQ may go too. Nothing is completed. */
  forgetShared(srqn: number): void
  /** Send requests may have been posted. */
  onDoorbell(row: number): void
  /** Receive requests may have been posted to a QP in error: they are flushed. */
  onReceiveScan(row: number): void
  /**
   * A UDP payload for the queue pair from `peer`, `length` bytes at `offset`, the ICRC (verified by the port) included.
   * The bytes must stay until `endBurst`.
   */
  onPacket(row: number, arena: Arena, offset: number, length: number, peer: number, now: number): void
  /**
   * The same for the first of `count` packets that lie back to back, each `packetBytes` long but the last, which has
   * `lastBytes`; the first one is for the queue pair. Answers how many were taken, at least one: hand the others in
   * again, each to its own row.
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
  /** The packets of a burst have been handed in: data that was put off is written. Call before their bytes go away. */
  endBurst(now: number): void
  /** Sends what may be sent. True if the port was full or there is more to do: call again. */
  pollTransmit(sink: TransmitSink, now: number): boolean
  /** Whether nothing is to be sent: until something is handed in, `pollTransmit` has nothing to do. */
  isIdle(): boolean
  /** When `onTimeout` is to be called, µs; Infinity for never. */
  nextTimeout(): number
  onTimeout(now: number): void
  /** Queue pairs, and the words of the pool that they hold: what is in flight, and nothing once they are in RESET. */
  stat(): { queuePairs: number; poolWords: number }
}

export interface EngineOptions {
  /**
   * Most bytes that one QP has unacknowledged: payload and 64 per packet. At least one packet always goes. Default 256
   * KiB. After losses it is less for a while.
   */
  readonly windowBytes?: number
  /** Most bytes, counted in the same way, that all QPs have unacknowledged to one peer. Default 0: no limit. */
  readonly sharedWindowBytes?: number
  /**
   * The responses of READs count in the window too, and a READ is asked for in parts of at most half of it: for links
   * that lose what comes faster than it is taken. Default false.
   */
  readonly boundReads?: boolean
  /**
   * All QPs without acknowledgements send together at most `windowBytes`, and at most MAX_PACED_BYTES, in so many µs.
   * Default 0: no limit.
   */
  readonly pace?: number
}

const moveFailed: DmaFailed = (s, row, kind, why, psn, msn) => {
  if (kind === DmaKind.READ_RESPONSE) onReadDmaFailed(s, row)
  else onRequestDmaFailed(s, row, kind, why, psn, msn)
}

export const createEngine = (env: Environment, options: EngineOptions = {}): Engine => {
  const { windowBytes = 0x4_0000, sharedWindowBytes = 0, boundReads = false, pace = 0 } = options
  const s = createState(env, windowBytes, sharedWindowBytes, boundReads ? windowBytes >> 1 : 0, pace, moveFailed)
  if (env.neighbour !== undefined) env.neighbour.state = s
  return {
    counters: s.counters,
    create: init => create(s, init),
    destroy: row => destroy(s, row),
    modify: (row, state, attributes, cause) => modify(s, row, state, attributes, cause),
    query: row => query(s, row),
    stateOf: row => s.rows[rowAlive(s, row) + STATE],
    forgetShared: srqn => forgetSrq(s, srqn),
    onDoorbell: row => onDoorbell(s, row),
    onReceiveScan: row => {
      if (s.rows[row * WORDS + STATE] === ERR) flushReceives(s, row)
    },
    onPacket: (row, arena, offset, length, peer, now) => onPacket(s, row, arena, offset, length, peer, now),
    onRun: (row, arena, offset, packetBytes, count, lastBytes, peer, now) =>
      onRun(s, row, arena, offset, packetBytes, count, lastBytes, peer, now),
    endBurst: () => flushDma(s),
    pollTransmit: (sink, now) => pollTransmit(s, sink, now),
    isIdle: () => s.queueHead < 0 && s.shares.full.length === 0,
    nextTimeout: () => Math.min(nextDeadline(s.timers), nextWindowDeadline(s)),
    onTimeout: now => {
      if (now >= nextWindowDeadline(s)) onWindowTimer(s, now)
      for (let row = takeExpired(s.timers, now); row >= 0; row = takeExpired(s.timers, now)) onTimer(s, row, now)
    },
    stat: () => ({ queuePairs: s.rowCount - s.spare.length, poolWords: usedWords(s) }),
  }
}

const create = (s: EngineState, init: QpInit): number => {
  if (init.service === Service.UD && s.env.route === undefined)
    throw new Error('this engine has no datagrams: no route')
  const shape = qpLayoutOf(init.maxSendSge, init.maxRecvSge, init.signalAll, init.sharedReceive)
  const row = takeRow(s)
  const w = s.rows
  const base = row * WORDS
  w[base + SERVICE] = init.service
  w[base + Row.QPN] = init.qpn
  w[base + Row.PD] = init.pd
  w[base + Row.RECV_PD] = init.recvPd ?? init.pd
  w[base + Row.SEND_CQ] = init.sendCq
  w[base + Row.RECV_CQ] = init.recvCq
  w[base + Row.SHAPE] = shape
  forgetAttributes(w, base)
  return row
}

/** What an attribute is that was never set. */
const forgetAttributes = (w: Int32Array, base: number): void => {
  for (let word = base + Row.ATTRIBUTES; word < base + REQUESTER; word++) w[word] = 0
  w[base + Row.QKEY] = 0
  w[base + EXPECTED] = 0
  w[base + Row.MTU] = 256
  w[base + PEER] = -1
  w[base + STATE] = RESET
}

const rowAlive = (s: EngineState, row: number): number => {
  const base = row * WORDS
  if (row < 0 || row >= s.rowCount || s.rows[base + ALIVE] === 0)
    throw new Error(`there is no queue pair in row ${row}`)
  return base
}

const destroy = (s: EngineState, row: number): void => {
  const base = rowAlive(s, row)
  reset(s, row)
  s.rows[base + ALIVE] = 0
  s.spare.push(row)
}

/** Forgets everything in flight, without completions, and all that was set. */
const reset = (s: EngineState, row: number): void => {
  flushDmaOf(s, row)
  leaveWindow(s, row)
  forgetCauses(s, row)
  const w = s.rows
  const base = row * WORDS
  for (let request = w[base + HEAD]; request !== 0; ) {
    const next = s.pool[request + Request.NEXT]
    giveBlock(s, sendBlock(w, base), request)
    request = next
  }
  if (w[base + Row.RECEIVE] !== 0) giveBlock(s, recvBlock(w, base), w[base + Row.RECEIVE])
  if (w[base + RESOURCES] !== 0) giveBlock(s, resourcesBlock(w, base), w[base + RESOURCES])
  clearTimer(s.timers, row)
  w.fill(0, base + REQUESTER, base + Row.SCHEDULED)
  forgetAttributes(w, base)
}

/**
 * The READs and atomics that the peer may have outstanding; those that it has keep their room as far as there is any.
 * Room is made with the first one (transport/responder/rd-atomic.ts).
 */
const sizeResources = (s: EngineState, row: number): void => {
  const base = row * WORDS
  const count = s.rows[base + Row.MAX_DEST_RD]
  if (s.rows[base + RESOURCES] === 0) {
    s.rows[base + RESOURCE_COUNT] = count
    return
  }
  const size = resourceBlock(count)
  const block = takeBlock(s, size)
  s.pool.fill(0, block, block + count * Resource.WORDS)
  const w = s.rows
  const p = s.pool
  const old = w[base + RESOURCES]
  const oldCount = w[base + RESOURCE_COUNT]
  w[base + PENDING] = 0
  // youngest first, from the end of the new ring backwards
  for (let i = 1; i <= oldCount && i <= count; i++) {
    const from = old + ((w[base + RESOURCE_NEXT] - i + oldCount) % oldCount) * Resource.WORDS
    const to = block + (count - i) * Resource.WORDS
    p.copyWithin(to, from, from + Resource.WORDS)
    if (p[to + Resource.KIND] !== 0 && p[to + Resource.NEXT] < p[to + Resource.END]) w[base + PENDING]++
  }
  if (old !== 0) giveBlock(s, resourcesBlock(w, base), old)
  w[base + RESOURCES] = block
  setResourcesBlock(w, base, size)
  w[base + RESOURCE_COUNT] = count
  w[base + RESOURCE_NEXT] = 0
}

/** Name by name, since a loop over names looks each of them up. */
const setAttributes = (w: Int32Array, base: number, given: Given<QpAttributes>): void => {
  const { sqPsn, retryCnt, rnrRetry } = given
  if (given.destQpn !== undefined) w[base + Row.DEST_QPN] = given.destQpn
  if (given.pathMtu !== undefined) w[base + Row.MTU] = given.pathMtu
  if (given.timeout !== undefined) w[base + Row.TIMEOUT] = given.timeout
  if (given.minRnrTimer !== undefined) w[base + Row.MIN_RNR] = given.minRnrTimer
  if (given.maxRdAtomic !== undefined) w[base + Row.MAX_RD] = given.maxRdAtomic
  if (given.maxDestRdAtomic !== undefined) w[base + Row.MAX_DEST_RD] = given.maxDestRdAtomic
  if (given.access !== undefined) w[base + Row.ACCESS] = given.access
  if (given.pkeyIndex !== undefined) w[base + Row.PKEY_INDEX] = given.pkeyIndex
  if (given.qkey !== undefined) w[base + Row.QKEY] = given.qkey
  if (given.flow !== undefined) w[base + Row.FLOW] = given.flow
  if (given.peer !== undefined) w[base + PEER] = given.peer
  if (given.rqPsn !== undefined) w[base + EXPECTED] = given.rqPsn
  if (sqPsn !== undefined) {
    w[base + UNACKED] = sqPsn
    w[base + SEND_PSN] = sqPsn
    w[base + MAX_PSN] = sqPsn
  }
  if (retryCnt !== undefined) {
    w[base + RETRY_CNT] = retryCnt
    w[base + RETRIES] = retryCnt
  }
  if (rnrRetry !== undefined) {
    w[base + RNR_RETRY] = rnrRetry
    w[base + RNR_LEFT] = rnrRetry
  }
}

const modify = (
  s: EngineState,
  row: number,
  state: number | undefined,
  attributes: Given<QpAttributes>,
  cause?: Cause,
): void => {
  const base = rowAlive(s, row)
  const w = s.rows
  const before = w[base + STATE]
  const after = state ?? before
  setAttributes(w, base, attributes)
  const reliable = reliableService[w[base + SERVICE]] !== 0
  if (reliable && after === RTR && before === INIT) sizeResources(s, row)
  else if (attributes.maxDestRdAtomic !== undefined && before === SQD) sizeResources(s, row)
  if (after === ERR) enterError(s, row, cause ?? because('MODIFIED', {}))
  else if (after === RESET) reset(s, row)
  else if (after !== before) {
    w[base + STATE] = after
    if (after === RTS) {
      w[base + Row.WINDOW] = s.window
      w[base + REQUESTER] = (w[base + REQUESTER] | MORE) & ~DRAINING
      schedule(s, row)
    } else if (after === SQD) {
      w[base + REQUESTER] |= DRAINING
      if (w[base + HEAD] === 0) onDrained(s, row)
    }
  }
}

const query = (s: EngineState, row: number): QpSnapshot => {
  const base = rowAlive(s, row)
  const w = s.rows
  return {
    state: w[base + STATE],
    signalAll: signalsAll(w, base),
    destQpn: w[base + Row.DEST_QPN],
    pathMtu: w[base + Row.MTU],
    timeout: w[base + Row.TIMEOUT],
    retryCnt: w[base + RETRY_CNT],
    rnrRetry: w[base + RNR_RETRY],
    minRnrTimer: w[base + Row.MIN_RNR],
    maxRdAtomic: w[base + Row.MAX_RD],
    maxDestRdAtomic: w[base + Row.MAX_DEST_RD],
    access: w[base + Row.ACCESS],
    pkeyIndex: w[base + Row.PKEY_INDEX],
    qkey: w[base + Row.QKEY] >>> 0,
    rqPsn: w[base + EXPECTED],
    sqPsn: w[base + MAX_PSN],
    draining: (w[base + REQUESTER] & DRAINING) !== 0,
  }
}

const onDoorbell = (s: EngineState, row: number): void => {
  const w = s.rows
  const base = row * WORDS
  const state = w[base + STATE]
  if (state === ERR || state === SQE) {
    flushSends(s, row)
    return
  }
  w[base + REQUESTER] |= MORE
  // with requests left to send from, the row is scheduled when they may go on
  if (state !== RTS || w[base + CURRENT] !== 0) return
  // nobody is before it, and what is plain and leads to a neighbour needs no turn of its own
  if (s.queueHead < 0 && s.env.neighbour !== undefined && sendIdleFastPath(s, row)) return
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
  const base = row * WORDS
  const state = w[base + STATE]
  const service = w[base + SERVICE]
  s.counters.receivedPackets++
  const view = arena.view
  if (
    state < RTR ||
    state === ERR ||
    (service !== Service.UD && (peer !== w[base + PEER] || peer < 0)) ||
    checkPacket(view, offset, length) !== 0 ||
    bthVersion(view, offset) !== 0
  ) {
    s.counters.dropped++
    return
  }
  if ((bthPkey(view, offset) & PKEY_BASE) !== (DEFAULT_PKEY & PKEY_BASE)) {
    s.counters.pkeyViolations++
    s.counters.dropped++
    return
  }
  const opcode = view.getUint8(offset)
  const flags = FLAGS_OF[opcode]
  if ((opcode & TRANSPORT_MASK) !== serviceBits[service]) s.counters.dropped++
  else if (service === Service.UD) onDatagram(s, row, arena, offset, length)
  // an XRC initiator has no responder, a target no requester
  else if ((flags & OP_REQUEST) !== 0 && service !== XRC_INI) onRequest(s, row, arena, offset, length)
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
  const base = row * WORDS
  const state = s.rows[base + STATE]
  if (count > 1 && state >= RTR && state !== ERR && peer === s.rows[base + PEER] && peer >= 0) {
    const alike = lastBytes === packetBytes ? count : count - 1
    const taken = onMiddles(s, row, arena, offset, packetBytes, alike, now)
    if (taken > 0) {
      s.counters.receivedPackets += taken
      return taken
    }
  }
  onPacket(s, row, arena, offset, count === 1 ? lastBytes : packetBytes, peer, now)
  return 1
}

/** Turns of queue pairs in one call, and how many of them a flush counts for. */
const MAX_TURNS = 0x1_0000
const FLUSH_TURNS = 0x4000

/** Window bytes that are handed over without packets in one call. */
const MAX_HANDED = 0x10_0000

const pollTransmit = (s: EngineState, sink: TransmitSink, now: number): boolean => {
  flushDma(s)
  s.handed = 0
  s.sink = sink
  s.soonPackets = sink.soonPackets ?? sink.maxPackets
  let full = false
  let turns = MAX_TURNS
  for (let row = nextRow(s); row >= 0; row = nextRow(s)) {
    // a queue in shared memory can be filled as fast as it is flushed: everybody else is served, and the caller asked
    // again
    if ((s.rows[row * WORDS + REQUESTER] & FLUSHING) !== 0) turns -= FLUSH_TURNS
    const turn = turns-- > 0 ? transmitRow(s, row, now) : Turn.FULL
    if (turn === Turn.FULL) {
      if (s.shares.serving === row) requeueFirst(s, row)
      else scheduleFirst(s, row)
      full = true
      break
    }
    if (turn === Turn.MORE) schedule(s, row)
    if (s.handed > MAX_HANDED) {
      full = s.queueHead >= 0
      break
    }
  }
  endRun(s)
  return full
}

/** The row whose turn it is: who has news, then who waited for room at its peer; -1 when all are done. */
const nextRow = (s: EngineState): number => {
  s.shares.serving = -1
  const row = dequeueScheduled(s)
  return row >= 0 || s.shares.full.length === 0 ? row : takeWaiting(s)
}

const transmitRow = (s: EngineState, row: number, now: number): number => {
  const base = row * WORDS
  if (s.rows[base + ALIVE] === 0 || s.rows[base + STATE] < RTR) return Turn.DONE
  const responses = transmitResponses(s, row)
  if (responses === Turn.FULL) return responses
  if ((s.rows[base + REQUESTER] & FLUSHING) !== 0) {
    s.rows[base + REQUESTER] &= ~FLUSHING
    flushSends(s, row)
    if (s.rows[base + STATE] === ERR) flushReceives(s, row)
  }
  const requests = transmitRequests(s, row, now)
  return requests === Turn.DONE ? responses : requests
}
