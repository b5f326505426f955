/*
 * The requester: from posted WQEs to request packets (InfiniBand Architecture Specification, volume 1, clauses 9.4,
 * 9.7.3, 9.7.7). A pipeline: fetch the next WQE (wqe-fetch.ts), check window, fence and max_rd_atomic, and build as
 * many of its packets as fit in one run, with the payload read from client memory by one DMA. After a NAK, a gap or a
 * timeout the same steps run again from the oldest unacknowledged PSN, also in the middle of a message.
 * transport/completer/completer.ts handles the responses.
 */
import { because } from '../../spec/check/causes.ts'
import { QpState } from '../../spec/enums.ts'
import { joinWords } from '../../spec/memory.ts'
import { ICRC_BYTES } from '../../spec/wire/headers.ts'
import { headerAt, OP_IMM, OP_INV, opcodeFlags, opcodeHeaderBytes } from '../../spec/wire/opcodes.ts'
import { reliableService, Service, serviceBits } from '../../spec/wire/services.ts'
import { ackTimeouts, KindFlags, SendFlags, SendKind, WcStatus } from '../../spec/work.ts'
import { BTH_ACKREQ, BTH_PAD_SHIFT, BTH_SOLICITED } from '../../wire/bth.ts'
import { putIeth, putImmediate, putReth } from '../../wire/extensions.ts'
import { keptCause } from '../causes.ts'
import { completeOldest, failOldest, onDrained } from '../completer/completion.ts'
import { DmaResult, flushDma, gather } from '../dma.ts'
import { QP, ReqFlag, WQE } from '../fields.ts'
import { closeWindow, openWindow } from '../flow-control/peer-window.ts'
import { FAST_QUANTUM, sendFastPath } from '../loopback/fast-path.ts'
import { findLocalPeer, isLoopback, settleCounts } from '../loopback/local-peer.ts'
import { sendSlice } from '../loopback/slices.ts'
import { basicHeaderBytes, firstOf, lastOf, middleOf, onlyOf, operationOf } from '../operations.ts'
import { PSN_HALF, PSN_MASK, psnDistance } from '../psn.ts'
import { acceptRun, continueRun, openRun, openRunWithFirst } from '../run.ts'
import { advance, failLocalAccess, Step, Turn } from '../scheduling.ts'
import { type EngineState, PACKET_WEIGHT, readPart } from '../state.ts'
import { isSet, setTimer } from '../timers.ts'
import { Send } from '../types.ts'
import { putDatagramHeader } from '../unreliable/datagram.ts'
import { onSent } from '../unreliable/unreliable.ts'
import { executeLocal, isFenced } from './local-operation.ts'
import { putReadAtomicRequest, requestPayloadBytes } from './read-atomic-request.ts'
import { putRequestHeader, srqnOf } from './request-header.ts'
import { fetchWqe } from './wqe-fetch.ts'

const { RTS, SQD } = QpState.values
const { LOCAL, READ, WRITE } = SendKind
const { RESPONSE } = KindFlags
const { SUCCESS } = WcStatus.values
const { FENCE, SOLICITED } = SendFlags.values
const { SENT_SOME, WAITS, PORT_FULL, REFUSES } = Step
const IMM_AT = headerAt.ImmDt
const IETH_AT = headerAt.IETH
const DETH_AT = headerAt.DETH
const HEADER_BYTES = opcodeHeaderBytes
const FLAGS_OF = opcodeFlags

/** Window bytes that a QP sends per poll. */
const QUANTUM = 0x1_0000

/** Sends for a QP. Returns Turn.MORE if there is more to send than one poll allows, Turn.FULL if the port is full. */
export const transmitRequests = (s: EngineState, row: number, now: number): number => {
  const base = row * QP.WORDS
  const before = s.rows[base + QP.REQ_SENT_BYTES]
  const reliable = reliableService[s.rows[base + QP.SERVICE]] !== 0
  openWindow(s, row, now)
  const isLocal = s.env.localDevice !== undefined && findLocalPeer(s, row)
  let answer: number = Turn.DONE
  if (isLocal) {
    // Executes the peer's pending DMA first: if that fails, the peer sends a NAK packet.
    flushDma(s.peerState as EngineState)
    sendFastPath(s, row)
  }
  for (;;) {
    const w = s.rows
    const state = w[base + QP.STATE]
    if ((state !== RTS && state !== SQD) || (w[base + QP.REQ_FLAGS] & ReqFlag.RNR_WAIT) !== 0) break
    if (((w[base + QP.REQ_SENT_BYTES] - before) | 0) >= (isLocal ? FAST_QUANTUM : QUANTUM)) {
      answer = Turn.MORE
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
    const step =
      isLocal && isLoopback(s, row, request) ? sendSlice(s, row, request, now) : sendStep(s, row, request, kind)
    if (step === SENT_SOME) {
      if (!reliable && kind !== LOCAL) onSent(s, row, request)
      continue
    }
    if (step === PORT_FULL) answer = Turn.FULL
    if (step === REFUSES) failIfOldest(s, row, request)
    break
  }
  if (isLocal) settleCounts(s)
  closeWindow(s, row, (s.rows[base + QP.REQ_SENT_BYTES] - before) | 0, now)
  if (reliable) armAckTimer(s, row, now)
  return answer
}

const sendStep = (s: EngineState, row: number, request: number, kind: number): number =>
  (kind & RESPONSE) !== 0
    ? sendReadAtomicRequest(s, row, request)
    : kind === LOCAL
      ? sendLocal(s, row, request)
      : sendMessage(s, row, request)

/** A WQE that cannot be sent completes after all earlier ones; later ones are not sent. */
const failIfOldest = (s: EngineState, row: number, request: number): void => {
  if (s.rows[row * QP.WORDS + QP.REQ_HEAD] === request)
    failOldest(s, row, s.pool[request + WQE.STATUS], keptCause(s, row))
}

/** Starts the local ACK timer if PSNs are outstanding and it is not running. */
const armAckTimer = (s: EngineState, row: number, now: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  const state = w[base + QP.STATE]
  if (state !== RTS && state !== SQD) return
  if (w[base + QP.REQ_PSN] !== w[base + QP.COMP_PSN] && !isSet(s.timers, row)) {
    const timeout = ackTimeouts[w[base + QP.TIMEOUT]]
    if (timeout !== Number.POSITIVE_INFINITY) setTimer(s.timers, row, now + timeout)
  }
}

/** Whether a WQE may be started: PSN space, fence. */
const mayStart = (s: EngineState, row: number, request: number): boolean => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  if (psnDistance(w[base + QP.COMP_PSN], p[request + WQE.FIRST_PSN]) + p[request + WQE.PSNS] > PSN_HALF) return false
  if ((p[request + WQE.WR + Send.FLAGS] & FENCE) !== 0 && w[base + QP.REQ_RD_ATOMIC] > 0) return false
  return true
}

/** The window shared by senders to the peer is full: records the missing bytes. */
const waitForWindow = (s: EngineState, bytes: number): number => {
  s.windows.missing = bytes
  return WAITS
}

/** Sends a request that has a response. For a READ: requests one part, or after a loss the rest of it. */
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
  if (isRead && s.readBytes !== 0) {
    const part = readPart(s, mtu)
    const left = part - (done % part)
    if (left < count) {
      count = left
      length = left * mtu
    }
    weight = length + count * PACKET_WEIGHT
    const out = (w[base + QP.REQ_SENT_BYTES] - w[base + QP.COMP_ACKED_BYTES]) | 0
    if (out > 0 && out + weight > w[base + QP.REQ_CWND]) return WAITS
    if (out + weight > s.windows.limit) return waitForWindow(s, weight)
  }
  const service = w[base + QP.SERVICE]
  const code = onlyOf[operationOf(service, p[wr + Send.OPCODE])]
  const opcode = serviceBits[service] | code
  const header = HEADER_BYTES[opcode]
  const size = header + requestPayloadBytes(p[request + WQE.KIND]) + ICRC_BYTES
  if (openRun(s, size, w[base + QP.FLOW], 1) === 0) return PORT_FULL
  const at = s.result.runAt
  const psn = w[base + QP.REQ_PSN] | BTH_ACKREQ
  putRequestHeader(s.sink!.arena.view, at, opcode, 0, w[base + QP.DEST_QPN], psn, srqnOf(s, base, request))
  if (putReadAtomicRequest(s, row, request, s.sink!.arena, at, opcode, header, offset, length) !== DmaResult.OK)
    return failLocalAccess(s, row, request)
  acceptRun(s, 1, size, size)
  p[request + WQE.COUNTED]++
  w[base + QP.REQ_RD_ATOMIC]++
  w[base + QP.REQ_BYTES_SINCE_ACKREQ] = 0
  advance(s, row, request, count, weight, done + count === p[request + WQE.PSNS])
  return SENT_SOME
}

/** Executes a local operation, and completes it if nothing is before it. It counts as a packet, so that a poll ends. */
const sendLocal = (s: EngineState, row: number, request: number): number => {
  const w = s.rows
  const base = row * QP.WORDS
  if (isFenced(s, row, request)) return WAITS
  if (!executeLocal(s, row, request)) return REFUSES
  advance(s, row, request, 0, PACKET_WEIGHT, true)
  if (w[base + QP.REQ_HEAD] !== request) return SENT_SOME
  completeOldest(s, row, SUCCESS)
  // Nothing is outstanding; a paced queue pair counts it until its poll ends.
  if (s.pace === 0 || reliableService[w[base + QP.SERVICE]] !== 0)
    w[base + QP.COMP_ACKED_BYTES] = w[base + QP.REQ_SENT_BYTES]
  if ((w[base + QP.REQ_FLAGS] & ReqFlag.DRAINING) !== 0) onDrained(s, row)
  return SENT_SOME
}

/** Sends as many packets of a SEND or WRITE as the window and one run permit. */
const sendMessage = (s: EngineState, row: number, request: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const mtu = w[base + QP.MTU]
  const psns = p[request + WQE.PSNS]
  const done = psnDistance(p[request + WQE.FIRST_PSN], w[base + QP.REQ_PSN])
  if (done === 0 && !mayStart(s, row, request)) return WAITS
  const out = (w[base + QP.REQ_SENT_BYTES] - w[base + QP.COMP_ACKED_BYTES]) | 0
  if (out >= s.windows.limit) return waitForWindow(s, 1)
  if (out >= w[base + QP.REQ_CWND]) return WAITS
  const room = (w[base + QP.REQ_CWND] < s.windows.limit ? w[base + QP.REQ_CWND] : s.windows.limit) - out
  if (isDatagram(w, base) && psns > 1) {
    // C10-93.1.1: sends nothing, which is not an error.
    const cause = because('DATAGRAM_TOO_LONG', { length: p[request + WQE.WR + Send.LENGTH], mtu })
    const wr = request + WQE.WR
    s.env.causes?.dropped(row, cause, joinWords(p[wr + Send.ID_HI], p[wr + Send.ID_LO]))
    w[base + QP.REQ_CURRENT] = p[request + WQE.NEXT]
    return SENT_SOME
  }
  const left = psns - done
  const service = w[base + QP.SERVICE]
  const operation = operationOf(service, p[request + WQE.WR + Send.OPCODE])
  const end = serviceBits[service] | (psns === 1 ? onlyOf[operation] : lastOf[operation])
  if (left === 1) return sendEnd(s, row, request, end, done * mtu)
  const plainEnd = HEADER_BYTES[end] === basicHeaderBytes[service]
  const allowed = Math.ceil(room / (mtu + PACKET_WEIGHT))
  const reach = plainEnd ? left : left - 1
  const want = allowed < reach ? allowed : reach
  if (done === 0 && p[request + WQE.KIND] === WRITE) return sendWriteFirst(s, row, request, want)
  return sendMiddle(s, row, request, done, want)
}

const isDatagram = (w: Int32Array, base: number): boolean => w[base + QP.SERVICE] === Service.UD

/** Sends the last or only packet. */
const sendEnd = (s: EngineState, row: number, request: number, opcode: number, offset: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  const header = HEADER_BYTES[opcode]
  const payload = p[wr + Send.LENGTH] - offset
  const pad = -payload & 3
  const size = header + payload + pad + ICRC_BYTES
  const datagram = isDatagram(w, base)
  if (openRun(s, size, datagram ? p[wr + Send.FLOW] | 0 : w[base + QP.FLOW], 1) === 0) return PORT_FULL
  const at = s.result.runAt
  const arena = s.sink!.arena
  const view = arena.view
  if (payload > 0 && gather(s, row, request, offset, payload, arena, at + header, payload, payload) !== DmaResult.OK)
    return failLocalAccess(s, row, request)
  for (let i = 0; i < pad; i++) arena.bytes[at + header + payload + i] = 0
  const flags = FLAGS_OF[opcode]
  const solicited =
    (p[wr + Send.FLAGS] & SOLICITED) !== 0 && maySolicit(p[request + WQE.KIND], flags) ? BTH_SOLICITED : 0
  const psn = w[base + QP.REQ_PSN] | endAck(w, base)
  const srqn = srqnOf(s, base, request)
  const qpn = datagram ? p[wr + Send.DEST_QPN] & 0xff_ffff : w[base + QP.DEST_QPN]
  putRequestHeader(view, at, opcode, solicited | (pad << BTH_PAD_SHIFT), qpn, psn, srqn)
  if (datagram) putDatagramHeader(s, row, wr, view, at + DETH_AT[opcode])
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

/** Whether the SE bit applies: where a receive WQE completes, that is SEND, and WRITE with immediate. */
const maySolicit = (kind: number, flags: number): boolean => kind !== WRITE || (flags & OP_IMM) !== 0

/**
 * Sends up to `want` packets of a WRITE, starting with its FIRST, which has a RETH and so is a run of its own. The
 * payloads of the other packets have the same stride, so one read of client memory fills all of them.
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
  const plain = basicHeaderBytes[service]
  const lead = header + mtu + ICRC_BYTES
  const size = plain + mtu + ICRC_BYTES
  const more = openRunWithFirst(s, lead, size, w[base + QP.FLOW], want - 1)
  if (more < 0) return PORT_FULL
  const at = s.result.runAt
  const view = s.sink!.arena.view
  const total = payloadBytes(s, row, request, 0, more + 1)
  if (gather(s, row, request, 0, total, s.sink!.arena, at + header, mtu, size) !== DmaResult.OK)
    return failLocalAccess(s, row, request)
  const psn = w[base + QP.REQ_PSN] | ackReq(s, base, mtu)
  putRequestHeader(view, at, opcode, 0, w[base + QP.DEST_QPN], psn, srqnOf(s, base, request))
  putReth(view, at + plain, p[wr + Send.REMOTE_HI], p[wr + Send.REMOTE_LO], p[wr + Send.RKEY], p[wr + Send.LENGTH])
  acceptRun(s, 1, lead, lead)
  advance(s, row, request, 1, mtu + PACKET_WEIGHT, false)
  if (more > 0) {
    continueRun(s, size)
    putPackets(s, row, request, 1, more, total - mtu)
  }
  return SENT_SOME
}

/**
 * Sends up to `want` packets that have only the headers of every packet: SEND FIRST, MIDDLE, and LAST without
 * immediate.
 */
const sendMiddle = (s: EngineState, row: number, request: number, done: number, want: number): number => {
  const w = s.rows
  const base = row * QP.WORDS
  const mtu = w[base + QP.MTU]
  const plain = basicHeaderBytes[w[base + QP.SERVICE]]
  const size = plain + mtu + ICRC_BYTES
  const count = openRun(s, size, w[base + QP.FLOW], want)
  if (count === 0) return PORT_FULL
  const total = payloadBytes(s, row, request, done, count)
  if (gather(s, row, request, done * mtu, total, s.sink!.arena, s.result.runAt + plain, mtu, size) !== DmaResult.OK)
    return failLocalAccess(s, row, request)
  putPackets(s, row, request, done, count, total)
  return SENT_SOME
}

/** Payload bytes of `count` packets of a message, starting at packet `done`. */
const payloadBytes = (s: EngineState, row: number, request: number, done: number, count: number): number => {
  const p = s.pool
  const mtu = s.rows[row * QP.WORDS + QP.MTU]
  return done + count === p[request + WQE.PSNS] ? p[request + WQE.WR + Send.LENGTH] - done * mtu : count * mtu
}

/** Writes headers and padding of `count` packets in the run, with `total` bytes of payload. */
const putPackets = (s: EngineState, row: number, request: number, done: number, count: number, total: number): void => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const mtu = w[base + QP.MTU]
  const service = w[base + QP.SERVICE]
  const head = basicHeaderBytes[service]
  const size = head + mtu + ICRC_BYTES
  const arena = s.sink!.arena
  const view = arena.view
  const srqn = srqnOf(s, base, request)
  const bits = serviceBits[service]
  const operation = operationOf(service, p[request + WQE.WR + Send.OPCODE])
  const middle = bits | middleOf[operation]
  const qpn = w[base + QP.DEST_QPN]
  const ends = done + count === p[request + WQE.PSNS]
  const plain = ends ? count - 1 : count
  let psn = w[base + QP.REQ_PSN]
  let to = s.result.runAt
  for (let i = 0; i < plain; i++, to += size) {
    const code = done + i === 0 ? bits | firstOf[operation] : middle
    putRequestHeader(view, to, code, 0, qpn, psn | ackReq(s, base, mtu), srqn)
    psn = (psn + 1) & PSN_MASK
  }
  let lastSize = size
  if (ends) {
    const tail = total - plain * mtu
    const pad = -tail & 3
    lastSize = head + tail + pad + ICRC_BYTES
    for (let i = 0; i < pad; i++) arena.bytes[to + head + tail + i] = 0
    const solicited =
      (p[request + WQE.WR + Send.FLAGS] & SOLICITED) !== 0 && p[request + WQE.KIND] !== WRITE ? BTH_SOLICITED : 0
    const bthBits = solicited | (pad << BTH_PAD_SHIFT)
    putRequestHeader(view, to, bits | lastOf[operation], bthBits, qpn, psn | endAck(w, base), srqn)
    w[base + QP.REQ_BYTES_SINCE_ACKREQ] = 0
  }
  acceptRun(s, count, size, lastSize)
  advance(s, row, request, count, total + count * PACKET_WEIGHT, ends)
}

/** The AckReq bit of a message's last packet. */
const endAck = (w: Int32Array, base: number): number => (reliableService[w[base + QP.SERVICE]] !== 0 ? BTH_ACKREQ : 0)

/** The AckReq bit of a packet inside a message: set often enough that the window advances before it is full. */
const ackReq = (s: EngineState, base: number, mtu: number): number => {
  const w = s.rows
  const since = w[base + QP.REQ_BYTES_SINCE_ACKREQ] + mtu + PACKET_WEIGHT
  if (since * 4 >= w[base + QP.REQ_CWND]) {
    w[base + QP.REQ_BYTES_SINCE_ACKREQ] = 0
    return endAck(w, base)
  }
  w[base + QP.REQ_BYTES_SINCE_ACKREQ] = since
  return 0
}
