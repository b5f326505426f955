/*
 * Messages without packets, between queue pairs whose engines run in this process (docs/decisions/loopback.md). The
 * peer's responder gets slices of at most 64 KiB, and its response takes effect immediately. Programs observe the same
 * as with packets: PSNs and MSNs advance, the responder applies its checks and refusals (transport/engine/responder/),
 * RNR timers and retries run, counters count packets and bytes.
 *
 * A queue pair is eligible if none of its PSNs is outstanding and its peer would accept its packets (`isLoopback`).
 * All other messages are sent as packets; so are all messages while a port needs packets, for example for a capture
 * (`LocalPeerDevice.receiverOf`). After each slice both ends are in the same state as after packets, so the rest of the
 * message may be sent either way.
 *
 * `peer` is the state of the peer's engine, and `peerRow` the peer's row in it.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { QpState } from '../../../spec/enums.ts'
import { ICRC_BYTES } from '../../../spec/wire/headers.ts'
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
} from '../../../spec/wire/opcodes.ts'
import { reliableService, Service, serviceBits } from '../../../spec/wire/services.ts'
import { KindFlags, SendFlags, SendKind, WcStatus } from '../../../spec/work.ts'
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
import { checkRead, consumeResponse } from '../responder/rd-atomic.ts'
import { onExpectedPsn, onRequest } from '../responder/responder.ts'
import { beginWrite, receiveSend, receiveWrite } from '../responder/send-write.ts'
import { noSrqCause, selectSrq } from '../responder/xrc.ts'
import { advance, failLocalAccess, isScattered, Step } from '../scheduling.ts'
import { type EngineState, PACKET_WEIGHT, pkeyOf, readPartPackets } from '../state.ts'
import { Access, type LocalPeerDevice, Send, Sge } from '../types.ts'
import { admitPacket } from '../unreliable/unreliable.ts'
import { ACK_BYTES, AETH_BYTES, BTH_BYTES, countInbound, countMessage, countOutbound } from './local-peer.ts'

const { ERR } = QpState.values
const { SEND, READ, ATOMIC } = SendKind
const { RESPONSE } = KindFlags
const { SUCCESS, REM_INV_REQ_ERR } = WcStatus.values
const { SOLICITED, INLINE } = SendFlags.values
const { XRC_INI } = Service
const { SENT_SOME, WAITS } = Step
const ATOMIC_ACK_BYTES = opcodeHeaderBytes[operationCode.ATOMIC_ACK] + ICRC_BYTES

/** Data is written immediately, not deferred (dma.ts). */
const WRITES_NOW = true

/** Maximum bytes of one slice: the size of the staging buffer of a `LocalPeerDevice`. */
const SLICE_BYTES = 0x1_0000

// ---- slices ----

/** Sends a slice of `request`. Returns a `Step`. */
export const sendSlice = (s: EngineState, row: number, request: number, now: number): number => {
  const kind = s.pool[request + WQE.KIND]
  if ((kind & RESPONSE) === 0) return sendMessageSlice(s, row, request, now)
  return kind === READ ? sendReadSlice(s, row, request, now) : sendAtomicOrFlush(s, row, request, now)
}

/**
 * Number of packets in the next slice of a message of `psns` packets after `done` packets were sent. If its memory may
 * be scattered, a slice is one packet, and the last one of this poll.
 */
const slicePackets = (s: EngineState, row: number, mtu: number, psns: number, done: number): number => {
  if (isScattered(s, row) || isScattered(s.peerState as EngineState, s.peerRow)) {
    s.isPaused = true
    return 1
  }
  const maxPackets = SLICE_BYTES / mtu
  return psns - done < maxPackets ? psns - done : maxPackets
}

/**
 * Locates `total` bytes of a WQE's data, from byte `offset` on. Data that cannot be accessed in place is copied to the
 * staging buffer. Sets `s.result.dataArena` and `s.result.dataAt`; returns a DmaResult.
 */
const locateLocal = (s: EngineState, row: number, request: number, offset: number, total: number): number => {
  const { arena, staging } = s.env.localDevice as LocalPeerDevice
  const p = s.pool
  const wr = request + WQE.WR
  s.result.dataArena = arena
  s.result.dataAt = staging
  if (total === 0) return DmaResult.OK
  if (p[wr + Send.SGES] === 1 && (p[wr + Send.FLAGS] & INLINE) === 0) {
    const sum = p[wr + Send.SGE + Sge.LO] + offset
    const hi = upperWord(p[wr + Send.SGE + Sge.HI], sum)
    const key = p[wr + Send.SGE + Sge.LKEY]
    const result = locateInPlace(s, s, row, key, hi, sum >>> 0, total, Access.LOCAL_READ)
    if (result !== UNLOCATED) return result
  }
  return gather(s, row, request, offset, total, arena, staging, total, total) // one chunk
}

/** Not a DmaResult: the memory cannot be accessed in place. */
const UNLOCATED = -1

/**
 * Locates memory of the queue pair `row` of `owner`: of this end (`s`) or of its peer. Sets `s.result.dataArena` and
 * `s.result.dataAt`; returns a DmaResult or UNLOCATED.
 */
const locateInPlace = (
  s: EngineState,
  owner: EngineState,
  row: number,
  key: number,
  hi: number,
  lo: number,
  total: number,
  access: number,
): number => {
  const { memory } = owner.env
  // If the staging arena is native memory (its address is not 0), native code copies, only to and from this arena.
  if (memory.locate === undefined || (s.env.localDevice as LocalPeerDevice).arena.address !== 0) return UNLOCATED
  const qpn = owner.rows[row * QP.WORDS + QP.QPN]
  const pd = owner.rows[row * QP.WORDS + QP.PD]
  const region = memory.resolve(pd, key, hi, lo, total, access, qpn)
  if (region < 0) {
    noteRefusedKey(owner, pd, key, hi, lo, total, access, qpn)
    return DmaResult.NO_REGION
  }
  const arena = memory.locate(region, hi, lo, total, s.result.offset)
  if (arena === undefined) return UNLOCATED
  s.result.dataArena = arena
  s.result.dataAt = s.result.offset[0]
  return DmaResult.OK
}

const sendMessageSlice = (s: EngineState, row: number, request: number, now: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  const mtu = w[base + QP.MTU]
  const psns = p[request + WQE.PSNS]
  const done = psnDistance(p[request + WQE.FIRST_PSN], w[base + QP.REQ_PSN])
  const packets = slicePackets(s, row, mtu, psns, done)
  const ends = done + packets === psns
  const bytes = ends ? p[wr + Send.LENGTH] - done * mtu : packets * mtu
  if (locateLocal(s, row, request, done * mtu, bytes) !== DmaResult.OK) return failLocalAccess(s, row, request)
  const peer = s.peerState as EngineState
  const isReliable = reliableService[w[base + QP.SERVICE]] !== 0
  const isAdmitted =
    isReliable || admitSlicePacket(peer, s.peerRow, w[base + QP.REQ_PSN], p[request + WQE.KIND], done === 0)
  if (isAdmitted) onExpectedPsn(peer, s.peerRow)
  const accepted = isAdmitted ? receiveMessageSlice(s, peer, row, request, done, bytes, packets, ends) : 0
  countMessage(s, row, request, done === 0, ends, packets, bytes)
  if (isReliable) return onSliceReceived(s, row, request, packets, accepted, packets * PACKET_WEIGHT + bytes, ends, now)
  dropRest(peer, s.peerRow, w[base + QP.REQ_PSN], p[request + WQE.KIND], accepted, packets)
  s.localBytes += bytes + packets * PACKET_WEIGHT
  advance(s, row, request, packets, bytes + packets * PACKET_WEIGHT, ends)
  return SENT_SOME
}

/** Passes a slice of a SEND or WRITE to the responder. Returns the number of accepted packets. */
const receiveMessageSlice = (
  s: EngineState,
  peer: EngineState,
  row: number,
  request: number,
  done: number,
  bytes: number,
  packets: number,
  ends: boolean,
): number => {
  const p = s.pool
  const wr = request + WQE.WR
  const peerRow = s.peerRow
  const arena = s.result.dataArena
  const at = s.result.dataAt
  const service = s.rows[row * QP.WORDS + QP.SERVICE]
  const operation = operationOf(service, p[wr + Send.OPCODE])
  const starts = done === 0
  if (service === XRC_INI && !selectSrq(peer, peerRow, srqnOf(s, row * QP.WORDS, request), starts ? OP_START : 0)) {
    nakInvalidRequest(peer, peerRow, noSrqCause(srqnOf(s, row * QP.WORDS, request)))
    return 0
  }
  const position = starts && ends ? OP_ONLY : starts ? OP_FIRST : ends ? OP_LAST : OP_MIDDLE
  const lastFlags = ends ? opcodeFlags[serviceBits[service] | lastOf[operation]] & (OP_IMM | OP_INV) : 0
  const flags = position | lastFlags
  // The immediate, or the key that the peer invalidates.
  const value = lastFlags === 0 ? 0 : p[wr + Send.IMM]
  const isSolicited = (p[wr + Send.FLAGS] & SOLICITED) !== 0
  setPayload(peer, arena, at, bytes)
  if (p[request + WQE.KIND] === SEND) return receiveSend(peer, peerRow, flags, packets, value, isSolicited, WRITES_NOW)
  if (starts) {
    const isMultiPacket = p[request + WQE.PSNS] > 1
    const refusal = beginWrite(
      peer,
      peerRow,
      p[wr + Send.REMOTE_HI],
      p[wr + Send.REMOTE_LO],
      p[wr + Send.RKEY],
      p[wr + Send.LENGTH],
      isMultiPacket,
    )
    if (refusal !== 0) {
      nakFatal(peer, peerRow, refusal, REM_INV_REQ_ERR, takeCause(peer))
      return 0
    }
  }
  // As with packets, earlier data is written before the last packet takes the receive WQE.
  if ((flags & OP_IMM) === 0 || packets === 1)
    return receiveWrite(peer, peerRow, flags, packets, value, isSolicited, WRITES_NOW)
  const bytesBefore = (packets - 1) * s.rows[row * QP.WORDS + QP.MTU]
  setPayload(peer, arena, at, bytesBefore)
  if (receiveWrite(peer, peerRow, starts ? OP_FIRST : OP_MIDDLE, packets - 1, 0, false, WRITES_NOW) === 0) return 0
  setPayload(peer, arena, at + bytesBefore, bytes - bytesBefore)
  return packets - 1 + receiveWrite(peer, peerRow, OP_LAST | lastFlags, 1, value, isSolicited, WRITES_NOW)
}

/** Sends a slice of a READ. As with packets, the READ is requested in parts. */
const sendReadSlice = (s: EngineState, row: number, request: number, now: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  const mtu = w[base + QP.MTU]
  const psns = p[request + WQE.PSNS]
  const done = psnDistance(p[request + WQE.FIRST_PSN], w[base + QP.REQ_PSN])
  const part = readPartPackets(s, mtu)
  const doneInPart = done % part
  const partEnd = Math.min(done - doneInPart + part, psns)
  const packets = slicePackets(s, row, mtu, partEnd, done)
  const ends = done + packets === psns
  const bytes = ends ? p[wr + Send.LENGTH] - done * mtu : packets * mtu
  const peer = s.peerState as EngineState
  const peerBase = s.peerRow * QP.WORDS
  if (doneInPart === 0 && !beginReadPart(s, peer, row, request, done, partEnd))
    return onSliceReceived(s, row, request, packets, 0, 0, ends, now)
  const result = bytes === 0 ? DmaResult.OK : locateRemote(s, peer, request, done * mtu, bytes)
  if (result !== DmaResult.OK) {
    const syndrome = result === DmaResult.NO_REGION ? NakSyndrome.REMOTE_ACCESS : NakSyndrome.REMOTE_OPERATION
    const psn = peer.rows[peerBase + QP.RESP_EPSN]
    nakAt(peer, s.peerRow, psn, peer.rows[peerBase + QP.RESP_MSN], syndrome, takeCause(peer))
    return onSliceReceived(s, row, request, packets, 0, 0, ends, now)
  }
  const peerRows = peer.rows
  const endsPart = done + packets === partEnd
  peerRows[peerBase + QP.RESP_EPSN] = (peerRows[peerBase + QP.RESP_EPSN] + packets) & PSN_MASK
  if (endsPart) peerRows[peerBase + QP.RESP_MSN] = (peerRows[peerBase + QP.RESP_MSN] + 1) & PSN_MASK
  // The first and the last response of a part have an AETH.
  const aethBytes = (doneInPart === 0 ? AETH_BYTES : 0) + (endsPart && doneInPart + packets > 1 ? AETH_BYTES : 0)
  // Only the last packet can have padding, because the MTU is a multiple of 4.
  const padBytes = -bytes & 3
  countInbound(s, packets, packets * (BTH_BYTES + ICRC_BYTES) + aethBytes + bytes + padBytes)
  if (bytes > 0) {
    setPayload(s, s.result.dataArena, s.result.dataAt, bytes)
    const written = scatter(s, row, DmaKind.READ_RESPONSE, wr + Send.SGE, p[wr + Send.SGES], done * mtu, WRITES_NOW)
    if (written !== DmaResult.OK) return failLocalAccess(s, row, request)
  }
  return onSliceReceived(s, row, request, packets, packets, bytes + packets * PACKET_WEIGHT, ends, now)
}

/** Begins a part of a READ: the responses [done, end). False if the responder refuses it. */
const beginReadPart = (
  s: EngineState,
  peer: EngineState,
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
  const peerRow = s.peerRow
  countOutbound(s, 1, opcodeHeaderBytes[serviceBits[service] | operationCode.READ_REQUEST] + ICRC_BYTES)
  onExpectedPsn(peer, peerRow)
  if (service === XRC_INI && !selectSrq(peer, peerRow, srqnOf(s, base, request), OP_START)) {
    nakInvalidRequest(peer, peerRow, noSrqCause(srqnOf(s, base, request)))
    return false
  }
  const sum = p[wr + Send.REMOTE_LO] + done * mtu
  const hi = upperWord(p[wr + Send.REMOTE_HI], sum)
  const length = (end === p[request + WQE.PSNS] ? p[wr + Send.LENGTH] : end * mtu) - done * mtu
  return checkRead(peer, peerRow, hi, sum >>> 0, p[wr + Send.RKEY], length)
}

/** As `locateLocal`, for the peer's memory range of a READ. */
const locateRemote = (s: EngineState, peer: EngineState, request: number, offset: number, total: number): number => {
  const p = s.pool
  const wr = request + WQE.WR
  const peerRow = s.peerRow
  const sum = p[wr + Send.REMOTE_LO] + offset
  const hi = upperWord(p[wr + Send.REMOTE_HI], sum)
  const lo = sum >>> 0
  const key = p[wr + Send.RKEY]
  const pd = peer.rows[peerRow * QP.WORDS + QP.PD]
  const { REMOTE_READ } = Access
  const result = locateInPlace(s, peer, peerRow, key, hi, lo, total, REMOTE_READ)
  if (result !== UNLOCATED) return result
  const { arena, staging } = s.env.localDevice as LocalPeerDevice
  const { memory } = peer.env
  const qpn = peer.rows[peerRow * QP.WORDS + QP.QPN]
  const region = memory.resolve(pd, key, hi, lo, total, REMOTE_READ, qpn)
  if (region < 0) {
    noteRefusedKey(peer, pd, key, hi, lo, total, REMOTE_READ, qpn)
    return DmaResult.NO_REGION
  }
  s.result.dataArena = arena
  s.result.dataAt = staging
  if (memory.read(region, hi, lo, arena, staging, total, total, total) === 0) return DmaResult.OK
  noteMemoryFault(peer, key, hi, lo, total, REMOTE_READ)
  return DmaResult.FAULT
}

/**
 * Sends an atomic, FLUSH or ATOMIC WRITE. The responder gets a request packet. The response is read from the
 * responder's resource.
 */
const sendAtomicOrFlush = (s: EngineState, row: number, request: number, now: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  const { arena, staging } = s.env.localDevice as LocalPeerDevice
  const { view } = arena
  const service = w[base + QP.SERVICE]
  const opcode = serviceBits[service] | onlyOf[operationOf(service, p[wr + Send.OPCODE])]
  const header = opcodeHeaderBytes[opcode]
  const size = header + requestPayloadBytes(p[request + WQE.KIND]) + ICRC_BYTES
  const qpn = w[base + QP.DEST_QPN]
  putRequestHeader(view, staging, opcode, 0, pkeyOf(s, base), qpn, w[base + QP.REQ_PSN], srqnOf(s, base, request))
  if (putReadAtomicRequest(s, row, request, arena, staging, opcode, header, 0, 0) !== DmaResult.OK)
    return failLocalAccess(s, row, request)
  const peer = s.peerState as EngineState
  const peerRow = s.peerRow
  countOutbound(s, 1, size)
  onRequest(peer, peerRow, arena, staging, size)
  // Without a response the request was refused.
  if (peer.rows[peerRow * QP.WORDS + QP.RESP_PENDING] === 0) return onSliceReceived(s, row, request, 1, 0, 0, true, now)
  const resource = consumeResponse(peer, peerRow)
  const isAtomic = p[request + WQE.KIND] === ATOMIC
  countInbound(s, 1, isAtomic ? ATOMIC_ACK_BYTES : ACK_BYTES)
  if (isAtomic) {
    view.setUint32(staging, peer.pool[resource + RES.DATA_LO], true)
    view.setUint32(staging + 4, peer.pool[resource + RES.DATA_HI], true)
    setPayload(s, arena, staging, 8)
    const result = scatter(s, row, DmaKind.READ_RESPONSE, wr + Send.SGE, s.pool[wr + Send.SGES], 0, WRITES_NOW)
    if (result !== DmaResult.OK) return failLocalAccess(s, row, request)
  }
  return onSliceReceived(s, row, request, 1, 1, PACKET_WEIGHT, true, now)
}

// ---- acknowledgement ----

/**
 * Handles the response of a reliable responder that has accepted `accepted` of the slice's `packets`. `weight`: window
 * bytes (payload plus PACKET_WEIGHT per packet) of the slice; `ends`: it is the WQE's last slice. Returns a `Step`.
 */
const onSliceReceived = (
  s: EngineState,
  row: number,
  request: number,
  packets: number,
  accepted: number,
  weight: number,
  ends: boolean,
  now: number,
): number => {
  const peer = s.peerState as EngineState
  const peerBase = s.peerRow * QP.WORDS
  const base = row * QP.WORDS
  if ((peer.rows[peerBase + QP.RESP_FLAGS] & RespFlag.NAK_DUE) !== 0) {
    peer.rows[peerBase + QP.RESP_FLAGS] &= ~RespFlag.NAK_DUE
    countInbound(s, 1, ACK_BYTES)
    onSliceNak(s, row, packets, peer.rows[peerBase + QP.RESP_NAK_SYNDROME], peer.rows[peerBase + QP.RESP_NAK_PSN], now)
    return WAITS
  }
  advance(s, row, request, packets, weight, ends)
  // Neither accepted nor refused: the peer's process has ended, or the key of a SEND with invalidate is wrong. The ACK
  // timer will expire.
  if (accepted < packets) return SENT_SOME
  if (ends && (s.pool[request + WQE.KIND] & RESPONSE) === 0) countInbound(s, 1, ACK_BYTES)
  const w = s.rows
  w[base + QP.COMP_PSN] = w[base + QP.REQ_PSN]
  w[base + QP.COMP_ACKED_BYTES] = w[base + QP.REQ_SENT_BYTES]
  w[base + QP.REQ_BYTES_SINCE_ACKREQ] = 0
  // RNR NAKs set RESENT for slices too. The flags of other losses are set only while packets are sent, and cleared by
  // the ACKs of these packets (onAcknowledge).
  w[base + QP.REQ_FLAGS] &= ~ReqFlag.RESENT
  s.localBytes += weight
  w[base + QP.COMP_RNR_RETRIES] = w[base + QP.RNR_RETRY]
  if (!ends) return SENT_SOME
  completeOldest(s, row, SUCCESS)
  if (s.rows[base + QP.REQ_HEAD] === 0 && (s.rows[base + QP.REQ_FLAGS] & ReqFlag.DRAINING) !== 0) onDrained(s, row)
  return SENT_SOME
}

/**
 * Handles a NAK for a slice. `onAcknowledge` accepts only PSNs of sent packets, so the packets of the slice count as
 * sent during the call; afterwards nothing is outstanding.
 */
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

/** UC: whether the responder accepts the packet with `psn`. If not, the responder drops the message. */
const admitSlicePacket = (peer: EngineState, peerRow: number, psn: number, kind: number, starts: boolean): boolean =>
  admitPacket(peer, peerRow, (starts ? OP_START : 0) | (kind === SEND ? OP_SEND : 0), psn)

/**
 * UC: drops and counts the packets of a slice after the first dropped packet. `accepted`: number of accepted packets;
 * `psn`: of the slice's first packet.
 */
const dropRest = (
  peer: EngineState,
  peerRow: number,
  psn: number,
  kind: number,
  accepted: number,
  packets: number,
): void => {
  const peerRows = peer.rows
  const peerBase = peerRow * QP.WORDS
  // The first dropped packet is counted already.
  for (let i = accepted + 1; i < packets; i++) {
    if (peerRows[peerBase + QP.STATE] === ERR) peer.counters.dropped++
    else admitSlicePacket(peer, peerRow, psnAdd(psn, i), kind, false) // which counts the packet
  }
}
