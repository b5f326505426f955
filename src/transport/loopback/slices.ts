/*
 * Messages between queue pairs of one process, without packets (docs/decisions/loopback.md). The peer's responder gets
 * slices of at most 64 KiB, and its response takes effect immediately. Programs and peers observe the same as with
 * packets: PSNs and MSNs advance, the responder's own checks and refusals apply (transport/responder/send-write.ts,
 * transport/responder/rd-atomic.ts, transport/responder/flush-atomic-write.ts), RNR timers and retries run, counters
 * count packets and their bytes.
 *
 * A queue pair is eligible while none of its PSNs is outstanding and its peer would accept its packets: connected back
 * to it, same service and path MTU, no message in progress. All other messages are sent as packets, and so is all
 * traffic while the port is captured (`LocalPeerDevice`). Between two slices both ends are in the state that packets
 * would have left, so each slice may take either path.
 */
import { QpState } from '../../spec/enums.ts'
import { ICRC_BYTES } from '../../spec/wire/headers.ts'
import {
  OP_FIRST,
  OP_IMM,
  OP_INV,
  OP_LAST,
  OP_MIDDLE,
  OP_ONLY,
  OP_SEND,
  OP_START,
  opcodeFlags,
  opcodeHeaderBytes,
  operationCode,
} from '../../spec/wire/opcodes.ts'
import { reliableService, Service, serviceBits } from '../../spec/wire/services.ts'
import { KindFlags, SendFlags, SendKind, WcStatus } from '../../spec/work.ts'
import { upperWord } from '../address.ts'
import { noteMemoryFault, noteRefusedKey, takeCause } from '../causes.ts'
import { onAcknowledge } from '../completer/completer.ts'
import { completeOldest, onDrained } from '../completer/completion.ts'
import { DmaKind, DmaResult, gather, scatter, setPayload } from '../dma.ts'
import { QP, RES, ReqFlag, RespFlag, WQE } from '../fields.ts'
import { lastOf, onlyOf, operationOf } from '../operations.ts'
import { PSN_MASK, psnAdd, psnDistance } from '../psn.ts'
import { putReadAtomicRequest, requestPayloadBytes } from '../requester/read-atomic-request.ts'
import { putRequestHeader, srqnOf } from '../requester/request-header.ts'
import { NakSyndrome, nakAt, nakFatal, nakInvalidRequest } from '../responder/nak.ts'
import { checkRead, takeResponse } from '../responder/rd-atomic.ts'
import { communicationEstablished, onRequest } from '../responder/responder.ts'
import { beginWrite, takeSend, takeWrite } from '../responder/send-write.ts'
import { nakSrq, selectSrq } from '../responder/xrc.ts'
import { advance, failLocalAccess, Step } from '../scheduling.ts'
import { type EngineState, PACKET_WEIGHT, readPart } from '../state.ts'
import { Access, type LocalPeerDevice, Send, Sge } from '../types.ts'
import { isAdmitted } from '../unreliable/unreliable.ts'
import { ACK_BYTES, AETH_BYTES, BTH_BYTES, countInbound, countMessage, countOutbound } from './local-peer.ts'

const { RTR, ERR } = QpState.values
const { SEND, READ, ATOMIC } = SendKind
const { RESPONSE } = KindFlags
const { SUCCESS, REM_INV_REQ_ERR } = WcStatus.values
const { SOLICITED, INLINE } = SendFlags.values
const { XRC_INI } = Service
const { SENT_SOME, WAITS } = Step
const HEADER_BYTES = opcodeHeaderBytes
const ATOMIC_ACK_BYTES = opcodeHeaderBytes[operationCode.ATOMIC_ACK] + ICRC_BYTES

/** Bytes of one slice. */
const SLICE_BYTES = 0x1_0000
/** Size of the staging buffer of a `LocalPeerDevice`: for a slice, or for the request packet of an atomic. */
export const STAGING_BYTES = SLICE_BYTES

// ---- slices ----

/** Sends a slice of `request`. Returns a `Step`. */
export const sendSlice = (s: EngineState, row: number, request: number, now: number): number => {
  const t = s.peerState as EngineState
  const other = s.peerRow
  const kind = s.pool[request + WQE.KIND]
  t.rows[other * QP.WORDS + QP.RESP_FLAGS] &= ~(RespFlag.NAK_SENT | RespFlag.NAK_DUE)
  if (t.rows[other * QP.WORDS + QP.STATE] === RTR) communicationEstablished(t, other)
  if ((kind & RESPONSE) === 0) return sendMessageSlice(s, row, request, now)
  return kind === READ ? sendReadSlice(s, row, request, now) : sendReadAtomicSlice(s, row, request, now)
}

/** Number of packets in the next slice of a message of `psns` packets, after `done`. */
const slicePackets = (mtu: number, psns: number, done: number): number => {
  const maxPackets = SLICE_BYTES / mtu
  return psns - done < maxPackets ? psns - done : maxPackets
}

/**
 * Finds `total` bytes of a WQE's data, from byte `from` on: in place if it is memory of this process, otherwise copied
 * to the staging buffer. Sets `s.result.arena` and `s.result.at`; returns a DmaResult.
 */
const locateLocal = (s: EngineState, row: number, request: number, from: number, total: number): number => {
  const { arena, staging } = s.env.localDevice as LocalPeerDevice
  const p = s.pool
  const wr = request + WQE.WR
  s.result.arena = arena
  s.result.at = staging
  if (total === 0) return DmaResult.OK
  if (p[wr + Send.SGES] === 1 && (p[wr + Send.FLAGS] & INLINE) === 0) {
    const end = p[wr + Send.SGE + Sge.LO] + from
    const hi = upperWord(p[wr + Send.SGE + Sge.HI], end)
    const key = p[wr + Send.SGE + Sge.LKEY]
    const why = locateInPlace(s, s, row, key, hi, end >>> 0, total, Access.LOCAL_READ)
    if (why !== UNLOCATED) return why
  }
  return gather(s, row, request, from, total, arena, staging, total, total)
}

const UNLOCATED = -1

/** Finds registered memory of `t` in place; UNLOCATED if that is not possible. */
const locateInPlace = (
  s: EngineState,
  t: EngineState,
  row: number,
  key: number,
  hi: number,
  lo: number,
  total: number,
  access: number,
): number => {
  const { memory } = t.env
  if (memory.locate === undefined || (s.env.localDevice as LocalPeerDevice).arena.address !== 0) return UNLOCATED
  const qp = t.rows[row * QP.WORDS + QP.QPN]
  const pd = t.rows[row * QP.WORDS + QP.PD]
  const region = memory.resolve(pd, key, hi, lo, total, access, qp)
  if (region < 0) {
    noteRefusedKey(t, pd, key, hi, lo, total, access, qp)
    return DmaResult.NO_REGION
  }
  const found = memory.locate(region, hi, lo, total, s.result.place)
  if (found === undefined) return UNLOCATED
  s.result.arena = found
  s.result.at = s.result.place[0]
  return DmaResult.OK
}

/** Sends a slice of a SEND or WRITE. */
const sendMessageSlice = (s: EngineState, row: number, request: number, now: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  const mtu = w[base + QP.MTU]
  const psns = p[request + WQE.PSNS]
  const done = psnDistance(p[request + WQE.FIRST_PSN], w[base + QP.REQ_PSN])
  const packets = slicePackets(mtu, psns, done)
  const ends = done + packets === psns
  const bytes = ends ? p[wr + Send.LENGTH] - done * mtu : packets * mtu
  if (locateLocal(s, row, request, done * mtu, bytes) !== DmaResult.OK) return failLocalAccess(s, row, request)
  const t = s.peerState as EngineState
  const reliable = reliableService[w[base + QP.SERVICE]] !== 0
  const taken =
    reliable || admits(t, s.peerRow, w[base + QP.REQ_PSN], p[request + WQE.KIND], done === 0)
      ? receiveMessageSlice(s, t, row, request, done, bytes, packets, ends)
      : 0
  countMessage(s, row, request, done === 0, ends, packets, bytes)
  if (reliable) return onSliceTaken(s, row, request, packets, taken, packets * PACKET_WEIGHT + bytes, ends, now)
  dropRest(t, s.peerRow, w[base + QP.REQ_PSN], p[request + WQE.KIND], taken, packets)
  s.localBytes += bytes + packets * PACKET_WEIGHT
  advance(s, row, request, packets, bytes + packets * PACKET_WEIGHT, ends)
  return SENT_SOME
}

/** Passes a slice to the responder. Returns how many packets it accepted. */
const receiveMessageSlice = (
  s: EngineState,
  t: EngineState,
  row: number,
  request: number,
  done: number,
  bytes: number,
  packets: number,
  ends: boolean,
): number => {
  const p = s.pool
  const wr = request + WQE.WR
  const other = s.peerRow
  const arena = s.result.arena
  const from = s.result.at
  const service = s.rows[row * QP.WORDS + QP.SERVICE]
  const operation = operationOf(service, p[wr + Send.OPCODE])
  const starts = done === 0
  if (service === XRC_INI && !selectSrq(t, other, srqnOf(s, row * QP.WORDS, request), starts ? OP_START : 0)) {
    nakInvalidRequest(t, other, nakSrq(srqnOf(s, row * QP.WORDS, request)))
    return 0
  }
  const place = starts ? (ends ? OP_ONLY : OP_FIRST) : ends ? OP_LAST : OP_MIDDLE
  const lastFlags = ends ? opcodeFlags[serviceBits[service] | lastOf[operation]] & (OP_IMM | OP_INV) : 0
  const flags = place | lastFlags
  const value = lastFlags === 0 ? 0 : p[wr + Send.IMM]
  const solicited = (p[wr + Send.FLAGS] & SOLICITED) !== 0
  setPayload(t, arena, from, bytes)
  if (p[request + WQE.KIND] === SEND) return takeSend(t, other, flags, packets, value, solicited, true)
  if (starts) {
    const many = p[request + WQE.PSNS] > 1
    const refusal = beginWrite(
      t,
      other,
      p[wr + Send.REMOTE_HI],
      p[wr + Send.REMOTE_LO],
      p[wr + Send.RKEY],
      p[wr + Send.LENGTH],
      many,
    )
    if (refusal !== 0) {
      nakFatal(t, other, refusal, REM_INV_REQ_ERR, takeCause(t))
      return 0
    }
  }
  // The immediate consumes its receive WQE with the last packet, after the data before it is written.
  if ((flags & OP_IMM) === 0 || packets === 1) return takeWrite(t, other, flags, packets, value, solicited, true)
  const before = (packets - 1) * s.rows[row * QP.WORDS + QP.MTU]
  const front = starts ? OP_FIRST : OP_MIDDLE
  setPayload(t, arena, from, before)
  if (takeWrite(t, other, front, packets - 1, 0, false, true) === 0) return 0
  setPayload(t, arena, from + before, bytes - before)
  return packets - 1 + takeWrite(t, other, OP_LAST | lastFlags, 1, value, solicited, true)
}

/** Sends a slice of a READ, which is requested in parts as with packets. */
const sendReadSlice = (s: EngineState, row: number, request: number, now: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  const mtu = w[base + QP.MTU]
  const psns = p[request + WQE.PSNS]
  const done = psnDistance(p[request + WQE.FIRST_PSN], w[base + QP.REQ_PSN])
  const part = readPart(s, mtu)
  const inPart = done % part
  const partEnd = psns - done > part - inPart ? done - inPart + part : psns
  const packets = slicePackets(mtu, partEnd, done)
  const ends = done + packets === psns
  const bytes = ends ? p[wr + Send.LENGTH] - done * mtu : packets * mtu
  const t = s.peerState as EngineState
  const peerBase = s.peerRow * QP.WORDS
  if (inPart === 0 && !beginReadPart(s, t, row, request, done, partEnd))
    return onSliceTaken(s, row, request, packets, 0, 0, false, now)
  const why = bytes === 0 ? DmaResult.OK : locateRemote(s, t, request, done * mtu, bytes)
  if (why !== DmaResult.OK) {
    const syndrome = why === DmaResult.NO_REGION ? NakSyndrome.REMOTE_ACCESS : NakSyndrome.REMOTE_OPERATION
    nakAt(t, s.peerRow, t.rows[peerBase + QP.RESP_EPSN], syndrome, takeCause(t))
    return onSliceTaken(s, row, request, packets, 0, 0, false, now)
  }
  const v = t.rows
  const endsPart = done + packets === partEnd
  v[peerBase + QP.RESP_EPSN] = (v[peerBase + QP.RESP_EPSN] + packets) & PSN_MASK
  if (endsPart) v[peerBase + QP.RESP_MSN] = (v[peerBase + QP.RESP_MSN] + 1) & PSN_MASK
  // The first and the last response of a part have an AETH.
  const extra = (inPart === 0 ? AETH_BYTES : 0) + (endsPart && inPart + packets > 1 ? AETH_BYTES : 0)
  countInbound(s, packets, packets * (BTH_BYTES + ICRC_BYTES) + extra + bytes + (-bytes & 3))
  if (bytes > 0) {
    setPayload(s, s.result.arena, s.result.at, bytes)
    const moved = scatter(s, row, DmaKind.READ_RESPONSE, wr + Send.SGE, p[wr + Send.SGES], done * mtu, true)
    if (moved !== DmaResult.OK) return failLocalAccess(s, row, request)
  }
  return onSliceTaken(s, row, request, packets, packets, bytes + packets * PACKET_WEIGHT, ends, now)
}

/** Begins a part of a READ, packets `done` to `end`. False if the responder refuses it. */
const beginReadPart = (
  s: EngineState,
  t: EngineState,
  row: number,
  request: number,
  done: number,
  end: number,
): boolean => {
  const p = s.pool
  const wr = request + WQE.WR
  const base = row * QP.WORDS
  const service = s.rows[base + QP.SERVICE]
  const mtu = s.rows[base + QP.MTU]
  const other = s.peerRow
  countOutbound(s, 1, HEADER_BYTES[serviceBits[service] | operationCode.READ_REQUEST] + ICRC_BYTES)
  if (service === XRC_INI && !selectSrq(t, other, srqnOf(s, base, request), OP_START)) {
    nakInvalidRequest(t, other, nakSrq(srqnOf(s, row * QP.WORDS, request)))
    return false
  }
  const low = p[wr + Send.REMOTE_LO] + done * mtu
  const hi = upperWord(p[wr + Send.REMOTE_HI], low)
  const length = (end === p[request + WQE.PSNS] ? p[wr + Send.LENGTH] : end * mtu) - done * mtu
  return checkRead(t, other, hi, low >>> 0, p[wr + Send.RKEY], length)
}

/** As `locateLocal`, for the peer's memory range of a READ. */
const locateRemote = (s: EngineState, t: EngineState, request: number, from: number, total: number): number => {
  const p = s.pool
  const wr = request + WQE.WR
  const other = s.peerRow
  const end = p[wr + Send.REMOTE_LO] + from
  const hi = upperWord(p[wr + Send.REMOTE_HI], end)
  const lo = end >>> 0
  const key = p[wr + Send.RKEY]
  const pd = t.rows[other * QP.WORDS + QP.PD]
  const { REMOTE_READ } = Access
  const why = locateInPlace(s, t, other, key, hi, lo, total, REMOTE_READ)
  if (why !== UNLOCATED) return why
  const { arena, staging } = s.env.localDevice as LocalPeerDevice
  const { memory } = t.env
  const qp = t.rows[other * QP.WORDS + QP.QPN]
  const region = memory.resolve(pd, key, hi, lo, total, REMOTE_READ, qp)
  if (region < 0) {
    noteRefusedKey(t, pd, key, hi, lo, total, REMOTE_READ, qp)
    return DmaResult.NO_REGION
  }
  s.result.arena = arena
  s.result.at = staging
  if (memory.read(region, hi, lo, arena, staging, total, total, total) === 0) return DmaResult.OK
  noteMemoryFault(t, key, hi, lo, total, REMOTE_READ)
  return DmaResult.FAULT
}

/**
 * Sends an atomic, FLUSH or ATOMIC WRITE. Its request consists of headers, so the responder gets the packet, and the
 * response is taken from its resource.
 */
const sendReadAtomicSlice = (s: EngineState, row: number, request: number, now: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  const { arena, staging } = s.env.localDevice as LocalPeerDevice
  const { view } = arena
  const service = w[base + QP.SERVICE]
  const opcode = serviceBits[service] | onlyOf[operationOf(service, p[wr + Send.OPCODE])]
  const header = HEADER_BYTES[opcode]
  const size = header + requestPayloadBytes(p[request + WQE.KIND]) + ICRC_BYTES
  putRequestHeader(view, staging, opcode, 0, w[base + QP.DEST_QPN], w[base + QP.REQ_PSN], srqnOf(s, base, request))
  if (putReadAtomicRequest(s, row, request, arena, staging, opcode, header, 0, 0) !== DmaResult.OK)
    return failLocalAccess(s, row, request)
  const t = s.peerState as EngineState
  const other = s.peerRow
  countOutbound(s, 1, size)
  onRequest(t, other, arena, staging, size)
  if (t.rows[other * QP.WORDS + QP.RESP_PENDING] === 0) return onSliceTaken(s, row, request, 1, 0, 0, true, now)
  const resource = takeResponse(t, other)
  const isAtomic = p[request + WQE.KIND] === ATOMIC
  countInbound(s, 1, isAtomic ? ATOMIC_ACK_BYTES : ACK_BYTES)
  if (isAtomic) {
    view.setUint32(staging, t.pool[resource + RES.DATA_LO], true)
    view.setUint32(staging + 4, t.pool[resource + RES.DATA_HI], true)
    setPayload(s, arena, staging, 8)
    const why = scatter(s, row, DmaKind.READ_RESPONSE, wr + Send.SGE, s.pool[wr + Send.SGES], 0, true)
    if (why !== DmaResult.OK) return failLocalAccess(s, row, request)
  }
  return onSliceTaken(s, row, request, 1, 1, PACKET_WEIGHT, true, now)
}

// ---- acknowledgement ----

/**
 * Handles the response of a reliable responder, which accepted `taken` of the slice's `packets`. `weight`: window bytes
 * of the slice; `ends`: whether it is the last slice of the WQE.
 */
const onSliceTaken = (
  s: EngineState,
  row: number,
  request: number,
  packets: number,
  taken: number,
  weight: number,
  ends: boolean,
  now: number,
): number => {
  const t = s.peerState as EngineState
  const peerBase = s.peerRow * QP.WORDS
  const base = row * QP.WORDS
  if ((t.rows[peerBase + QP.RESP_FLAGS] & RespFlag.NAK_DUE) !== 0) {
    t.rows[peerBase + QP.RESP_FLAGS] &= ~RespFlag.NAK_DUE
    countInbound(s, 1, ACK_BYTES)
    onSliceNak(s, row, packets, t.rows[peerBase + QP.RESP_NAK_SYNDROME], t.rows[peerBase + QP.RESP_NAK_PSN], now)
    return WAITS
  }
  advance(s, row, request, packets, weight, ends)
  // A process that has ended does not respond: the ACK timer will expire.
  if (taken < packets) return SENT_SOME
  if (ends && (s.pool[request + WQE.KIND] & RESPONSE) === 0) countInbound(s, 1, ACK_BYTES)
  const w = s.rows
  w[base + QP.COMP_PSN] = w[base + QP.REQ_PSN]
  w[base + QP.COMP_ACKED_BYTES] = w[base + QP.REQ_SENT_BYTES]
  w[base + QP.REQ_BYTES_SINCE_ACKREQ] = 0
  w[base + QP.REQ_FLAGS] &= ~(ReqFlag.RESENT | ReqFlag.LATE)
  s.localBytes += weight
  w[base + QP.COMP_RETRIES] = w[base + QP.RETRY_CNT]
  w[base + QP.COMP_RNR_RETRIES] = w[base + QP.RNR_RETRY]
  if (!ends) return SENT_SOME
  completeOldest(s, row, SUCCESS)
  if (s.rows[base + QP.REQ_HEAD] === 0 && (s.rows[base + QP.REQ_FLAGS] & ReqFlag.DRAINING) !== 0) onDrained(s, row)
  return SENT_SOME
}

/** Handles a NAK as if the slice's packets were outstanding; afterwards nothing is outstanding. */
const onSliceNak = (s: EngineState, row: number, packets: number, syndrome: number, psn: number, now: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  const ahead = psnDistance(w[base + QP.COMP_PSN], psn)
  const end = psnAdd(w[base + QP.COMP_PSN], ahead < packets ? packets : ahead)
  w[base + QP.REQ_PSN] = end
  w[base + QP.REQ_MAX_PSN] = end
  onAcknowledge(s, row, syndrome, ahead, now)
  w[base + QP.REQ_MAX_PSN] = w[base + QP.REQ_PSN]
}

/** UC: whether the responder accepts the packet. */
const admits = (t: EngineState, other: number, psn: number, kind: number, starts: boolean): boolean =>
  isAdmitted(t, other, (starts ? OP_START : 0) | (kind === SEND ? OP_SEND : 0), psn)

/** UC: counts the packets after the one with which the responder dropped the message as received. */
const dropRest = (t: EngineState, other: number, psn: number, kind: number, taken: number, packets: number): void => {
  const v = t.rows
  const peerBase = other * QP.WORDS
  // The packet that failed is counted already.
  for (let i = taken + 1; i < packets; i++) {
    if (v[peerBase + QP.STATE] === ERR) t.counters.dropped++
    else admits(t, other, psnAdd(psn, i), kind, false)
  }
}
