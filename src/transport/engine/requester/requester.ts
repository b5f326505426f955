/*
 * The requester: it turns posted WQEs into request packets (InfiniBand Architecture Specification, volume 1, clauses
 * 9.4, 9.7.3, 9.7.7). Steps: fetch the next WQE (wqe-fetch.ts); check window, fence and max_rd_atomic; build as many of
 * its packets as fit in one run. After a loss the same steps run again from the oldest unacknowledged PSN, which may be
 * in the middle of a message.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { createCause } from '../../../spec/check/causes.ts'
import { QpState } from '../../../spec/enums.ts'
import { joinWords } from '../../../spec/memory.ts'
import { ICRC_BYTES } from '../../../spec/wire/headers.ts'
import { headerAt, OP_IMM, OP_INV, opcodeFlags, opcodeHeaderBytes } from '../../../spec/wire/opcodes.ts'
import { reliableService, Service, serviceBits } from '../../../spec/wire/services.ts'
import { ackTimeouts, KindFlags, SendFlags, SendKind, WcStatus } from '../../../spec/work.ts'
import { BTH_ACKREQ, BTH_PAD_SHIFT, BTH_SOLICITED } from '../../wire/bth.ts'
import { putIeth, putImmediate, putReth } from '../../wire/extensions.ts'
import { takeStoredCause } from '../causes.ts'
import { completeOldest, failOldest, onDrained } from '../completer/completion.ts'
import { withinRate } from '../congestion/congestion.ts'
import { DmaResult, flushDma, gather } from '../dma.ts'
import { QP, ReqFlag, WQE } from '../fields.ts'
import { closeWindow, openWindow } from '../flow-control/peer-window.ts'
import { FAST_QUANTUM, sendFastPath } from '../loopback/fast-path.ts'
import { addPollCounts, findLocalPeer, isLoopback } from '../loopback/local-peer.ts'
import { sendSlice } from '../loopback/slices.ts'
import { basicHeaderBytes, firstOf, lastOf, middleOf, onlyOf, operationOf } from '../operations.ts'
import { PSN_HALF, PSN_MASK, psnDistance } from '../psn.ts'
import { acceptRun, continueRun, openRun, openRunWithFirst } from '../run.ts'
import { advance, failLocalAccess, isScattered, PollResult, Step } from '../scheduling.ts'
import { type EngineState, MAX_LOCAL_BYTES, PACKET_WEIGHT, pkeyOf, readPartPackets } from '../state.ts'
import { isTimerSet, setTimer } from '../timers.ts'
import { isTurnOver } from '../transmit-queue.ts'
import { Send } from '../types.ts'
import { putDatagramHeader } from '../unreliable/datagram.ts'
import { sendFrame } from '../unreliable/raw-packet.ts'
import { onSent } from '../unreliable/unreliable.ts'
import { executeLocal, isFenced } from './local-operation.ts'
import { copySlice, ENDED, isCopy } from './memory-copy.ts'
import { putReadAtomicRequest, requestPayloadBytes } from './read-atomic-request.ts'
import { putRequestHeader, srqnOf } from './request-header.ts'
import { fetchWqe } from './wqe-fetch.ts'

const { RTS, SQD } = QpState.values
const { LOCAL, READ, WRITE } = SendKind
const { RESPONSE } = KindFlags
const { SUCCESS } = WcStatus.values
const { FENCE, SOLICITED } = SendFlags.values
const { SENT_SOME, WAITS, PORT_FULL, FAILS } = Step
const IMM_AT = headerAt.ImmDt
const IETH_AT = headerAt.IETH
const DETH_AT = headerAt.DETH
const HEADER_BYTES = opcodeHeaderBytes
const FLAGS_OF = opcodeFlags

/** A poll of a QP without local peer ends after so many window bytes (payload plus PACKET_WEIGHT per packet). */
const QUANTUM = 0x1_0000

/** Sends as many requests of a QP as one poll may send. Returns a PollResult. */
export const transmitRequests = (s: EngineState, row: number, now: number): number => {
  const base = row * QP.WORDS
  const sentBefore = s.rows[base + QP.REQ_SENT_BYTES]
  const localBefore = s.localBytes
  const isReliable = reliableService[s.rows[base + QP.SERVICE]] !== 0
  openWindow(s, row, now)
  const isLocal = s.env.localDevice !== undefined && findLocalPeer(s, row)
  let result: number = PollResult.DONE
  /** Each poll makes a step, however long the work before it was. */
  let hasStepped = false
  if (isLocal) {
    // If the peer's pending DMA fails, a NAK is due, so the messages are sent as packets (`isLoopback`).
    flushDma(s.peerState as EngineState)
    sendFastPath(s, row)
  }
  for (;;) {
    const w = s.rows
    const state = w[base + QP.STATE]
    if ((w[base + QP.REQ_FLAGS] & ReqFlag.RNR_WAIT) !== 0 || s.paceLeft <= 0) break
    // what copies within memory count for, too
    const used = Math.max((w[base + QP.REQ_SENT_BYTES] - sentBefore) | 0, s.localBytes - localBefore)
    if (
      s.isPaused ||
      (hasStepped && isTurnOver(s)) ||
      s.localBytes >= MAX_LOCAL_BYTES ||
      used >= (isLocal ? FAST_QUANTUM : QUANTUM)
    ) {
      result = PollResult.MORE
      break
    }
    let request = w[base + QP.REQ_CURRENT]
    if (request === 0) {
      if (state !== RTS || (w[base + QP.REQ_FLAGS] & ReqFlag.MORE) === 0) break
      request = fetchWqe(s, row)
      if (request === 0) break
    }
    if (s.pool[request + WQE.STATUS] !== 0) {
      failIfOldest(s, row, request)
      break
    }
    const kind = s.pool[request + WQE.KIND]
    hasStepped = true
    const step =
      isLocal && isLoopback(s, row, request) ? sendSlice(s, row, request, now) : sendStep(s, row, request, kind)
    if (step === SENT_SOME) {
      if (!isReliable && kind !== LOCAL) onSent(s, row, request)
      continue
    }
    // frames have a buffer of their own: the port may have room for other rows
    if (step === PORT_FULL) result = s.rows[base + QP.SERVICE] === Service.RAW ? PollResult.MORE : PollResult.FULL
    if (step === FAILS) failIfOldest(s, row, request)
    break
  }
  if (isLocal) addPollCounts(s)
  closeWindow(s, row, (s.rows[base + QP.REQ_SENT_BYTES] - sentBefore) | 0, now)
  if (isReliable) armAckTimer(s, row, now)
  return result
}

/** One step for a WQE, as packets or as a local operation. Returns a `Step`. */
const sendStep = (s: EngineState, row: number, request: number, kind: number): number => {
  if ((kind & RESPONSE) !== 0) return sendReadAtomicRequest(s, row, request)
  if (kind === LOCAL) return sendLocal(s, row, request)
  if (isScattered(s, row)) s.isPaused = true
  return s.rows[row * QP.WORDS + QP.SERVICE] === Service.RAW ? sendFrame(s, row, request) : sendMessage(s, row, request)
}

/** A WQE with a local error fails once it is the oldest. Until then no later WQE is sent. */
const failIfOldest = (s: EngineState, row: number, request: number): void => {
  if (s.rows[row * QP.WORDS + QP.REQ_HEAD] === request)
    failOldest(s, row, s.pool[request + WQE.STATUS], takeStoredCause(s, row))
}

/** Starts the local ACK timer if PSNs are outstanding and the timer is not set. */
const armAckTimer = (s: EngineState, row: number, now: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  const state = w[base + QP.STATE]
  if (state !== RTS && state !== SQD) return
  if (w[base + QP.REQ_PSN] !== w[base + QP.COMP_PSN] && !isTimerSet(s.timers, row)) {
    const timeout = ackTimeouts[w[base + QP.TIMEOUT]]
    if (timeout !== Number.POSITIVE_INFINITY) setTimer(s.timers, row, now + timeout)
  }
}

/** Whether the first packet of a WQE may be sent. */
const mayStart = (s: EngineState, row: number, request: number): boolean => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  if (psnDistance(w[base + QP.COMP_PSN], p[request + WQE.FIRST_PSN]) + p[request + WQE.PSNS] > PSN_HALF) return false
  if ((p[request + WQE.WR + Send.FLAGS] & FENCE) !== 0 && w[base + QP.REQ_RD_ATOMIC] > 0) return false
  return true
}

/** The shared window (transport/engine/flow-control/peer-window.ts) is full. `bytes`: free bytes that the row needs. */
const waitForWindow = (s: EngineState, bytes: number): number => {
  s.windows.neededBytes = bytes
  return WAITS
}

/**
 * Sends the request packet of a READ, atomic, FLUSH or ATOMIC WRITE. A READ is requested as a whole, or part by part
 * (`readPartBytes`). After a loss, the rest of the READ or part is requested.
 */
const sendReadAtomicRequest = (s: EngineState, row: number, request: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  const done = psnDistance(p[request + WQE.FIRST_PSN], w[base + QP.REQ_PSN])
  if ((done === 0 && !mayStart(s, row, request)) || w[base + QP.REQ_RD_ATOMIC] >= w[base + QP.MAX_RD_ATOMIC])
    return WAITS
  const mtu = w[base + QP.MTU]
  const offset = done * mtu
  const isRead = p[request + WQE.KIND] === READ
  let count = p[request + WQE.PSNS] - done
  let length = p[wr + Send.LENGTH] - offset
  let weight = PACKET_WEIGHT
  if (isRead && s.readPartBytes !== 0) {
    const part = readPartPackets(s, mtu)
    const left = part - (done % part)
    if (left < count) {
      count = left
      length = left * mtu
    }
    weight = length + count * PACKET_WEIGHT
    const inFlight = (w[base + QP.REQ_SENT_BYTES] - w[base + QP.COMP_ACKED_BYTES]) | 0
    if (inFlight > 0 && inFlight + weight > w[base + QP.REQ_CWND]) return WAITS
    if (inFlight + weight > s.windows.rowLimit) return waitForWindow(s, weight)
  }
  const service = w[base + QP.SERVICE]
  const opcode = serviceBits[service] | onlyOf[operationOf(service, p[wr + Send.OPCODE])]
  const header = HEADER_BYTES[opcode]
  const size = header + requestPayloadBytes(p[request + WQE.KIND]) + ICRC_BYTES
  if (openRun(s, size, w[base + QP.FLOW], 1) === 0) return PORT_FULL
  const at = s.result.runAt
  const psn = w[base + QP.REQ_PSN] | BTH_ACKREQ
  putRequestHeader(
    s.sink!.arena.view,
    at,
    opcode,
    0,
    pkeyOf(s, base),
    w[base + QP.DEST_QPN],
    psn,
    srqnOf(s, base, request),
  )
  if (putReadAtomicRequest(s, row, request, s.sink!.arena, at, opcode, header, offset, length) !== DmaResult.OK)
    return failLocalAccess(s, row, request)
  acceptRun(s, 1, size, size)
  p[request + WQE.COUNTED]++
  w[base + QP.REQ_RD_ATOMIC]++
  w[base + QP.REQ_BYTES_SINCE_ACKREQ] = 0
  advance(s, row, request, count, weight, done + count === p[request + WQE.PSNS])
  return SENT_SOME
}

/**
 * Executes a local operation, or a slice of a copy, and completes it if it is the oldest WQE. It has the weight of a
 * packet without payload, so that a poll ends after many local operations.
 */
const sendLocal = (s: EngineState, row: number, request: number): number => {
  const w = s.rows
  const base = row * QP.WORDS
  if (isFenced(s, row, request)) return WAITS
  if (isCopy(s, request)) {
    const step = copySlice(s, row, request)
    if (step !== ENDED) return step
  }
  if (!executeLocal(s, row, request)) return FAILS
  advance(s, row, request, 0, PACKET_WEIGHT, true)
  if (w[base + QP.REQ_HEAD] !== request) return SENT_SOME
  completeOldest(s, row, SUCCESS)
  // Nothing is outstanding, since no later WQE is fetched before this one is executed. With pacing, sent bytes of UC
  // and UD count against `rowLimit` until the next `openWindow`.
  const isPaced = s.pacingInterval !== 0 && reliableService[w[base + QP.SERVICE]] === 0
  if (!isPaced) w[base + QP.COMP_ACKED_BYTES] = w[base + QP.REQ_SENT_BYTES]
  if ((w[base + QP.REQ_FLAGS] & ReqFlag.DRAINING) !== 0) onDrained(s, row)
  return SENT_SOME
}

/** Sends one or more packets of a SEND or WRITE, if the window has room. */
const sendMessage = (s: EngineState, row: number, request: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const mtu = w[base + QP.MTU]
  const psns = p[request + WQE.PSNS]
  const done = psnDistance(p[request + WQE.FIRST_PSN], w[base + QP.REQ_PSN])
  if (done === 0 && !mayStart(s, row, request)) return WAITS
  const inFlight = (w[base + QP.REQ_SENT_BYTES] - w[base + QP.COMP_ACKED_BYTES]) | 0
  const { rowLimit } = s.windows
  const cwnd = w[base + QP.REQ_CWND]
  if (inFlight >= rowLimit) return waitForWindow(s, 1)
  if (inFlight >= cwnd) return WAITS
  const free = (cwnd < rowLimit ? cwnd : rowLimit) - inFlight
  if (isDatagram(w, base) && psns > 1) {
    // C10-93.1.1: a datagram that is longer than the path MTU is not sent, which is not an error.
    const cause = createCause('DATAGRAM_TOO_LONG', { length: p[request + WQE.WR + Send.LENGTH], mtu })
    const wr = request + WQE.WR
    s.env.causes?.dropped(row, cause, joinWords(p[wr + Send.ID_HI], p[wr + Send.ID_LO]))
    // It has the weight of a packet without payload, so that a poll ends after many of them.
    advance(s, row, request, 0, PACKET_WEIGHT, true)
    return SENT_SOME
  }
  const left = psns - done
  const service = w[base + QP.SERVICE]
  const operation = operationOf(service, p[request + WQE.WR + Send.OPCODE])
  const lastOpcode = serviceBits[service] | (psns === 1 ? onlyOf[operation] : lastOf[operation])
  if (left === 1) return sendLastPacket(s, row, request, lastOpcode, done * mtu)
  const allowed = s.isPaused ? 1 : withinRate(s, Math.ceil(free / (mtu + PACKET_WEIGHT)), mtu + PACKET_WEIGHT)
  // A LAST with further headers is left to the next step.
  const maxPackets = HEADER_BYTES[lastOpcode] === basicHeaderBytes[service] ? left : left - 1
  const want = allowed < maxPackets ? allowed : maxPackets
  if (done === 0 && p[request + WQE.KIND] === WRITE) return sendWriteFirst(s, row, request, want)
  return sendBasicPackets(s, row, request, done, want)
}

const isDatagram = (w: Int32Array, base: number): boolean => w[base + QP.SERVICE] === Service.UD

/** Sends the LAST or ONLY packet of a message, whose payload begins at byte `offset`. */
const sendLastPacket = (s: EngineState, row: number, request: number, opcode: number, offset: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  const header = HEADER_BYTES[opcode]
  const payload = p[wr + Send.LENGTH] - offset
  const pad = -payload & 3
  const size = header + payload + pad + ICRC_BYTES
  const isUd = isDatagram(w, base)
  if (openRun(s, size, isUd ? p[wr + Send.FLOW] | 0 : w[base + QP.FLOW], 1) === 0) return PORT_FULL
  const at = s.result.runAt
  const arena = s.sink!.arena
  const view = arena.view
  if (payload > 0 && gather(s, row, request, offset, payload, arena, at + header, payload, payload) !== DmaResult.OK)
    return failLocalAccess(s, row, request)
  for (let i = 0; i < pad; i++) arena.bytes[at + header + payload + i] = 0
  const flags = FLAGS_OF[opcode]
  const solicitedBit =
    (p[wr + Send.FLAGS] & SOLICITED) !== 0 && maySolicit(p[request + WQE.KIND], flags) ? BTH_SOLICITED : 0
  const psn = w[base + QP.REQ_PSN] | ackReqBit(w, base)
  const srqn = srqnOf(s, base, request)
  const qpn = isUd ? p[wr + Send.DEST_QPN] & 0xff_ffff : w[base + QP.DEST_QPN]
  putRequestHeader(view, at, opcode, solicitedBit | (pad << BTH_PAD_SHIFT), pkeyOf(s, base), qpn, psn, srqn)
  if (isUd) putDatagramHeader(s, row, wr, view, at + DETH_AT[opcode])
  else if (p[request + WQE.KIND] === WRITE && offset === 0)
    putReth(
      view,
      at + basicHeaderBytes[w[base + QP.SERVICE]],
      p[wr + Send.REMOTE_HI],
      p[wr + Send.REMOTE_LO],
      p[wr + Send.RKEY],
      payload,
    )
  if ((flags & OP_IMM) !== 0) putImmediate(view, at + IMM_AT[opcode], p[wr + Send.IMM])
  else if ((flags & OP_INV) !== 0) putIeth(view, at + IETH_AT[opcode], p[wr + Send.IMM])
  acceptRun(s, 1, size, size)
  w[base + QP.REQ_BYTES_SINCE_ACKREQ] = 0
  advance(s, row, request, 1, payload + PACKET_WEIGHT, true)
  return SENT_SOME
}

/** The SE bit applies only where a receive WQE completes: SEND, and WRITE with immediate. */
const maySolicit = (kind: number, flags: number): boolean => kind !== WRITE || (flags & OP_IMM) !== 0

/**
 * Sends up to `want` packets of a WRITE from its FIRST on. The FIRST has a RETH, so it is longer and in another run.
 * The stride from payload to payload is always `size`, so one read of client memory fills all payloads.
 */
const sendWriteFirst = (s: EngineState, row: number, request: number, want: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  const mtu = w[base + QP.MTU]
  const service = w[base + QP.SERVICE]
  const opcode = serviceBits[service] | firstOf[operationOf(service, p[wr + Send.OPCODE])]
  const header = HEADER_BYTES[opcode]
  const basicBytes = basicHeaderBytes[service]
  const firstSize = header + mtu + ICRC_BYTES
  const size = basicBytes + mtu + ICRC_BYTES
  const followers = openRunWithFirst(s, firstSize, size, w[base + QP.FLOW], want - 1)
  if (followers < 0) return PORT_FULL
  const at = s.result.runAt
  const view = s.sink!.arena.view
  const total = payloadBytes(s, row, request, 0, followers + 1)
  if (gather(s, row, request, 0, total, s.sink!.arena, at + header, mtu, size) !== DmaResult.OK)
    return failLocalAccess(s, row, request)
  const psn = w[base + QP.REQ_PSN] | nextAckReq(s, base, mtu, followers === 0)
  putRequestHeader(view, at, opcode, 0, pkeyOf(s, base), w[base + QP.DEST_QPN], psn, srqnOf(s, base, request))
  putReth(view, at + basicBytes, p[wr + Send.REMOTE_HI], p[wr + Send.REMOTE_LO], p[wr + Send.RKEY], p[wr + Send.LENGTH])
  acceptRun(s, 1, firstSize, firstSize)
  advance(s, row, request, 1, mtu + PACKET_WEIGHT, false)
  if (followers > 0) {
    continueRun(s, size)
    putPackets(s, row, request, 1, followers, total - mtu)
  }
  return SENT_SOME
}

/**
 * Sends up to `want` packets, from packet number `done` on, that have only the basic headers (BTH, XRCETH): SEND FIRST,
 * and MIDDLE and LAST without immediate and IETH.
 */
const sendBasicPackets = (s: EngineState, row: number, request: number, done: number, want: number): number => {
  const w = s.rows
  const base = row * QP.WORDS
  const mtu = w[base + QP.MTU]
  const basicBytes = basicHeaderBytes[w[base + QP.SERVICE]]
  const size = basicBytes + mtu + ICRC_BYTES
  const count = openRun(s, size, w[base + QP.FLOW], want)
  if (count === 0) return PORT_FULL
  const total = payloadBytes(s, row, request, done, count)
  if (
    gather(s, row, request, done * mtu, total, s.sink!.arena, s.result.runAt + basicBytes, mtu, size) !== DmaResult.OK
  )
    return failLocalAccess(s, row, request)
  putPackets(s, row, request, done, count, total)
  return SENT_SOME
}

/** Payload bytes of `count` packets of a message, from packet number `done` on. */
const payloadBytes = (s: EngineState, row: number, request: number, done: number, count: number): number => {
  const p = s.pool
  const mtu = s.rows[row * QP.WORDS + QP.MTU]
  return done + count === p[request + WQE.PSNS] ? p[request + WQE.WR + Send.LENGTH] - done * mtu : count * mtu
}

/**
 * Writes headers and padding of `count` packets, from packet number `done` on, and adds the packets to the run. Their
 * payloads, `total` bytes, are already there.
 */
const putPackets = (s: EngineState, row: number, request: number, done: number, count: number, total: number): void => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const mtu = w[base + QP.MTU]
  const service = w[base + QP.SERVICE]
  const basicBytes = basicHeaderBytes[service]
  const size = basicBytes + mtu + ICRC_BYTES
  const arena = s.sink!.arena
  const view = arena.view
  const srqn = srqnOf(s, base, request)
  const bits = serviceBits[service]
  const operation = operationOf(service, p[request + WQE.WR + Send.OPCODE])
  const middle = bits | middleOf[operation]
  const pkey = pkeyOf(s, base)
  const qpn = w[base + QP.DEST_QPN]
  const ends = done + count === p[request + WQE.PSNS]
  const fullPackets = ends ? count - 1 : count
  let psn = w[base + QP.REQ_PSN]
  let at = s.result.runAt
  for (let i = 0; i < fullPackets; i++, at += size) {
    const opcode = done + i === 0 ? bits | firstOf[operation] : middle
    putRequestHeader(view, at, opcode, 0, pkey, qpn, psn | nextAckReq(s, base, mtu, i === count - 1), srqn)
    psn = (psn + 1) & PSN_MASK
  }
  let lastSize = size
  if (ends) {
    const lastPayload = total - fullPackets * mtu
    const pad = -lastPayload & 3
    lastSize = basicBytes + lastPayload + pad + ICRC_BYTES
    for (let i = 0; i < pad; i++) arena.bytes[at + basicBytes + lastPayload + i] = 0
    const solicitedBit =
      (p[request + WQE.WR + Send.FLAGS] & SOLICITED) !== 0 && p[request + WQE.KIND] !== WRITE ? BTH_SOLICITED : 0
    const bthBits = solicitedBit | (pad << BTH_PAD_SHIFT)
    putRequestHeader(view, at, bits | lastOf[operation], bthBits, pkey, qpn, psn | ackReqBit(w, base), srqn)
    w[base + QP.REQ_BYTES_SINCE_ACKREQ] = 0
  }
  acceptRun(s, count, size, lastSize)
  advance(s, row, request, count, total + count * PACKET_WEIGHT, ends)
}

/** BTH_ACKREQ for a reliable service, else 0. */
const ackReqBit = (w: Int32Array, base: number): number =>
  reliableService[w[base + QP.SERVICE]] !== 0 ? BTH_ACKREQ : 0

/**
 * The AckReq bit of a packet that is not the last of its message. It is set once per quarter of the congestion window,
 * so that ACKs arrive before the window is full. For the shared window it is also set at the end of a run (`endsRun`),
 * if `requestsAcks` (transport/engine/flow-control/peer-window.ts).
 */
const nextAckReq = (s: EngineState, base: number, mtu: number, endsRun: boolean): number => {
  const w = s.rows
  const since = w[base + QP.REQ_BYTES_SINCE_ACKREQ] + mtu + PACKET_WEIGHT
  if (since * 4 >= w[base + QP.REQ_CWND] || (endsRun && s.windows.requestsAcks)) {
    w[base + QP.REQ_BYTES_SINCE_ACKREQ] = 0
    return ackReqBit(w, base)
  }
  w[base + QP.REQ_BYTES_SINCE_ACKREQ] = since
  return 0
}
