/*
 * The completer: it turns response packets into completions of send WQEs (InfiniBand Architecture Specification, volume
 * 1, clauses 9.7.5 to 9.7.7). Steps: check that the PSN is outstanding, complete the WQEs before it, then handle the
 * response, NAK or RNR NAK for the PSN itself. A READ or atomic is acknowledged only by its own response, so an ACK for
 * a later PSN means that the response was lost. Losses are repaired by go-back-N.
 * state.ts explains short names such as `row`, `base` and `request`.
 */

import { type Cause, createCause } from '../../../spec/check/causes.ts'
import { QpState } from '../../../spec/enums.ts'
import { refusalOf, Verdict, verdictOf } from '../../../spec/naks.ts'
import { ICRC_BYTES, SYNDROME_VALUE_MASK } from '../../../spec/wire/headers.ts'
import {
  headerAt,
  OP_ATOMIC,
  OP_END,
  OP_ONLY,
  OP_READ,
  opcodeFlags,
  opcodeHeaderBytes,
} from '../../../spec/wire/opcodes.ts'
import { ATOMIC_BYTES, ackTimeouts, KindFlags, rnrMicroseconds, SendKind, WcStatus } from '../../../spec/work.ts'
import type { Arena } from '../../wire/arena.ts'
import { bthOpcode, bthPadCount, bthPsn } from '../../wire/bth.ts'
import { aethSyndrome, atomicAckHi, atomicAckLo } from '../../wire/extensions.ts'
import { countRnrNak, peerCause, takeCause, takeStoredCause } from '../causes.ts'
import { DmaKind, DmaResult, flushDma, scatter, scatterPayloads, setPayload } from '../dma.ts'
import { QP, ReqFlag, WQE } from '../fields.ts'
import { growWindow, shrinkWindow } from '../flow-control/peer-window.ts'
import { psnAdd, psnDistance } from '../psn.ts'
import { goBack } from '../scheduling.ts'
import { type EngineState, PACKET_WEIGHT, readPartPackets } from '../state.ts'
import { clearTimer, setTimer, takenDeadline } from '../timers.ts'
import { schedule } from '../transmit-queue.ts'
import { Send } from '../types.ts'
import { completeOldest, failOldest, onDrained } from './completion.ts'

const { RTS, SQD } = QpState.values
const { READ, ATOMIC } = SendKind
const { RESPONSE, EMPTY_RESPONSE } = KindFlags
const { SUCCESS, LOC_PROT_ERR, BAD_RESP_ERR, RETRY_EXC_ERR, RNR_RETRY_EXC_ERR } = WcStatus.values
const AETH_AT = headerAt.AETH
const ATOMIC_ACK_AT = headerAt.AtomicAckETH
const FLAGS_OF = opcodeFlags
const HEADER_BYTES = opcodeHeaderBytes
/** The rnr_retry that means unlimited; a retry_cnt of 7 means seven. */
const RNR_RETRY_UNLIMITED = 7
/** Microseconds; longer timer codes are waited for as they are. */
const LONGEST_RNR_WAIT = 10_000

/** By NAK code. */
const nakCauses: readonly (Cause | undefined)[] = refusalOf.map(row => row && createCause(row.cause, {}))

const failResponse = (s: EngineState, row: number): void => {
  const opcode = s.pool[s.rows[row * QP.WORDS + QP.REQ_HEAD] + WQE.WR + Send.OPCODE]
  failOldest(s, row, BAD_RESP_ERR, createCause('BAD_RESPONSE', { opcode }))
}

/** Fails the oldest request because the data of the response cannot be written. */
const failPlacement = (s: EngineState, row: number): void => failOldest(s, row, LOC_PROT_ERR, takeCause(s))

/**
 * Handles a response packet of a QP in RTS or SQD: `length` bytes at `at` of `arena`, BTH to ICRC, checked by
 * `checkPacket`.
 */
export const onResponse = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  length: number,
  now: number,
): void => {
  const w = s.rows
  const base = row * QP.WORDS
  const view = arena.view
  const psn = bthPsn(view, at)
  const ahead = psnDistance(w[base + QP.COMP_PSN], psn)
  if (ahead >= psnDistance(w[base + QP.COMP_PSN], w[base + QP.REQ_MAX_PSN])) {
    s.counters.dropped++ // acknowledged already, or not sent yet
    return
  }
  const opcode = bthOpcode(view, at)
  const flags = FLAGS_OF[opcode]
  if ((flags & (OP_READ | OP_ATOMIC)) === 0) onAcknowledge(s, row, aethSyndrome(view, at + AETH_AT[opcode]), ahead, now)
  else if ((flags & OP_READ) !== 0)
    onReadResponse(s, row, arena, at, length, opcode, (flags & OP_END) !== 0, ahead, now)
  else onAtomicResponse(s, row, arena, at + ATOMIC_ACK_AT[opcode], ahead, now)
}

/**
 * Handles an ACK, RNR NAK or NAK. `syndrome`: of the AETH; `ahead`: distance of the packet's PSN from the oldest
 * unacknowledged PSN.
 */
export const onAcknowledge = (s: EngineState, row: number, syndrome: number, ahead: number, now: number): void => {
  const base = row * QP.WORDS
  const verdict = verdictOf[syndrome]
  const value = syndrome & SYNDROME_VALUE_MASK
  if (verdict === Verdict.ACK) {
    if (!acknowledge(s, row, ahead + 1, now)) onReportedLoss(s, row)
    return
  }
  if (verdict === Verdict.RESERVED) {
    s.counters.dropped++
    return
  }
  // A NAK acknowledges everything before its PSN.
  if (!acknowledge(s, row, ahead, now)) {
    onReportedLoss(s, row)
    return
  }
  if (s.rows[base + QP.REQ_HEAD] === 0) return
  if (verdict === Verdict.REFUSAL) {
    failOldest(s, row, refusalOf[value]!.status, peerCause(s, row, nakCauses[value]!))
    return
  }
  // If nothing was sent since the last go-back, this NAK is for the same loss.
  if (s.rows[base + QP.REQ_PSN] === s.rows[base + QP.COMP_PSN]) return
  if (verdict === Verdict.RNR) onRnrNak(s, row, value, now)
  else {
    s.counters.receivedSequenceErrors++
    onReportedLoss(s, row)
  }
}

/**
 * Acknowledges `count` PSNs from the oldest unacknowledged one on. Returns false if it stops early, at a WQE that waits
 * for its own response (READ, atomic).
 */
const acknowledge = (s: EngineState, row: number, count: number, now: number): boolean => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  let remaining = count
  while (remaining > 0) {
    const request = w[base + QP.REQ_HEAD]
    if (request === 0 || (p[request + WQE.KIND] & RESPONSE) !== 0) break
    const unacked = p[request + WQE.PSNS] - psnDistance(p[request + WQE.FIRST_PSN], w[base + QP.COMP_PSN])
    if (remaining < unacked) {
      advanceUnacked(s, base, remaining)
      remaining = 0
    } else {
      advanceUnacked(s, base, unacked)
      remaining -= unacked
      completeOldest(s, row, SUCCESS)
    }
  }
  if (remaining < count) onProgress(s, row, now)
  return remaining === 0
}

/**
 * Advances the oldest unacknowledged PSN by `count`. After a go-back, ACKs for the first transmission may pass the PSN
 * to send next, which is then advanced too. Call this before the WQE completes.
 */
const advanceUnacked = (s: EngineState, base: number, count: number): void => {
  const w = s.rows
  const isPassed = psnDistance(w[base + QP.COMP_PSN], w[base + QP.REQ_PSN]) < count
  w[base + QP.COMP_PSN] = psnAdd(w[base + QP.COMP_PSN], count)
  if (isPassed) {
    w[base + QP.REQ_PSN] = w[base + QP.COMP_PSN]
    w[base + QP.REQ_FLAGS] |= ReqFlag.SKIPPED_AHEAD
  }
}

/**
 * After PSNs were acknowledged: resets the retry counters, grows the windows, restarts the timer, schedules the row.
 * Fails the oldest WQE if it has a local error. Raises SQ_DRAINED if a draining QP has no WQE left.
 */
const onProgress = (s: EngineState, row: number, now: number): void => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const request = w[base + QP.REQ_HEAD]
  const hasSkipped = (w[base + QP.REQ_FLAGS] & ReqFlag.SKIPPED_AHEAD) !== 0
  const ackedBefore = w[base + QP.COMP_ACKED_BYTES]
  w[base + QP.COMP_RETRIES] = w[base + QP.RETRY_CNT]
  w[base + QP.COMP_RNR_RETRIES] = w[base + QP.RNR_RETRY]
  w[base + QP.REQ_FLAGS] &= ~(ReqFlag.RESENT | ReqFlag.RNR_WAIT | ReqFlag.SKIPPED_AHEAD | ReqFlag.LATE)
  if (request === 0) {
    // Nothing is outstanding: everything that was sent is acknowledged.
    w[base + QP.COMP_ACKED_BYTES] = w[base + QP.REQ_SENT_BYTES]
  } else {
    const done = psnDistance(p[request + WQE.FIRST_PSN], w[base + QP.COMP_PSN])
    const kind = p[request + WQE.KIND]
    // READ responses count in the window only if READs are requested in parts.
    const isCounted = (kind & RESPONSE) === 0 || (kind === READ && s.readPartBytes !== 0)
    w[base + QP.COMP_ACKED_BYTES] = p[request + WQE.START] + (isCounted ? done * (w[base + QP.MTU] + PACKET_WEIGHT) : 0)
    if (hasSkipped) w[base + QP.REQ_SENT_BYTES] = w[base + QP.COMP_ACKED_BYTES]
  }
  const newlyAcked = (w[base + QP.COMP_ACKED_BYTES] - ackedBefore) | 0
  if (s.windows.maxBytes !== 0) growWindow(s, row, newlyAcked)
  if (w[base + QP.REQ_CWND] < s.maxCwnd) {
    const window = w[base + QP.REQ_CWND] + newlyAcked
    w[base + QP.REQ_CWND] = window < s.maxCwnd ? window : s.maxCwnd
  }
  const timeout = ackTimeouts[w[base + QP.TIMEOUT]]
  if (w[base + QP.REQ_PSN] === w[base + QP.COMP_PSN] || timeout === Number.POSITIVE_INFINITY) clearTimer(s.timers, row)
  else setTimer(s.timers, row, now + timeout)
  schedule(s, row)
  if (request === 0 && (w[base + QP.REQ_FLAGS] & ReqFlag.DRAINING) !== 0) onDrained(s, row)
  else if (request !== 0 && p[request + WQE.STATUS] !== 0)
    failOldest(s, row, p[request + WQE.STATUS], takeStoredCause(s, row))
}

/**
 * Handles a READ response packet: checks position and length, and writes the data. The last packet completes the WQE.
 * `isEnd`: the packet is a LAST or ONLY.
 */
const onReadResponse = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  length: number,
  opcode: number,
  isEnd: boolean,
  ahead: number,
  now: number,
): void => {
  const base = row * QP.WORDS
  if (!acknowledgeBefore(s, row, ahead, now)) return
  const w = s.rows
  const p = s.pool
  const request = w[base + QP.REQ_HEAD]
  if ((p[request + WQE.KIND] & EMPTY_RESPONSE) !== 0) {
    const isEmptyOnly = length === HEADER_BYTES[opcode] + ICRC_BYTES && (FLAGS_OF[opcode] & OP_ONLY) !== 0
    onFlushAtomicWriteResponse(s, row, request, isEmptyOnly, now)
    return
  }
  const mtu = w[base + QP.MTU]
  const header = HEADER_BYTES[opcode]
  const payload = length - header - bthPadCount(arena.view, at) - ICRC_BYTES
  const index = psnDistance(p[request + WQE.FIRST_PSN], w[base + QP.COMP_PSN])
  const remaining = p[request + WQE.WR + Send.LENGTH] - index * mtu
  const isLast = remaining <= mtu
  // Each requested part of a READ ends with a LAST or ONLY packet.
  const endsPart = isLast || (index + 1) % readPartPackets(s, mtu) === 0
  if (p[request + WQE.KIND] !== READ || isEnd !== endsPart || payload !== (isLast ? remaining : mtu)) {
    failResponse(s, row)
    return
  }
  if (payload > 0) {
    const sge = request + WQE.WR + Send.SGE
    const count = p[request + WQE.WR + Send.SGES]
    const isOnly = isLast && index === 0
    setPayload(s, arena, at + header, payload)
    const result = scatter(s, row, DmaKind.READ_RESPONSE, sge, count, index * mtu, isOnly)
    if (!isConnected(s, base)) return
    if (result !== DmaResult.OK) {
      failPlacement(s, row)
      return
    }
  }
  if (isLast) {
    flushDma(s)
    if (!isConnected(s, base)) return
  }
  advanceUnacked(s, base, 1)
  if (endsPart) countAnsweredRead(s, base, request)
  if (isLast) completeOldest(s, row, SUCCESS)
  onProgress(s, row, now)
}

/**
 * Handles the next MIDDLEs of the response to the oldest WQE, which is a READ; `s.payloads` is their data. `done`:
 * number of earlier response packets. Returns how many were handled: those that fit into the current scatter/gather
 * element, which may be none.
 */
export const receiveReadMiddles = (s: EngineState, row: number, done: number, now: number): number => {
  const base = row * QP.WORDS
  const p = s.pool
  const request = s.rows[base + QP.REQ_HEAD]
  const mtu = s.rows[base + QP.MTU]
  const sge = request + WQE.WR + Send.SGE
  const sges = p[request + WQE.WR + Send.SGES]
  const kind = DmaKind.READ_RESPONSE
  const result = scatterPayloads(s, row, kind, sge, sges, done * mtu)
  const written = s.result.written
  if (written === 0 || !isConnected(s, base)) return written
  if (result !== DmaResult.OK) failPlacement(s, row)
  else {
    advanceUnacked(s, base, written)
    onProgress(s, row, now)
  }
  return written
}

/** Handles the response to a FLUSH or ATOMIC WRITE: a READ response ONLY without payload (annex A19). */
const onFlushAtomicWriteResponse = (
  s: EngineState,
  row: number,
  request: number,
  isValid: boolean,
  now: number,
): void => {
  if (!isValid) {
    failResponse(s, row)
    return
  }
  const base = row * QP.WORDS
  advanceUnacked(s, base, 1)
  countAnsweredRead(s, base, request)
  completeOldest(s, row, SUCCESS)
  onProgress(s, row, now)
}

/**
 * Counts a READ, a part of a READ, or an atomic as no longer outstanding. A go-back has already done so if the response
 * is to the first transmission.
 */
const countAnsweredRead = (s: EngineState, base: number, request: number): void => {
  if (s.pool[request + WQE.COUNTED] === 0) return
  s.pool[request + WQE.COUNTED]--
  s.rows[base + QP.REQ_RD_ATOMIC]--
}

/**
 * Handles the response to an atomic. Its word is big-endian on the wire, and is written in host byte order. `at`:
 * offset of the AtomicAckETH.
 */
const onAtomicResponse = (s: EngineState, row: number, arena: Arena, at: number, ahead: number, now: number): void => {
  const base = row * QP.WORDS
  if (!acknowledgeBefore(s, row, ahead, now)) return
  const p = s.pool
  const request = s.rows[base + QP.REQ_HEAD]
  if (p[request + WQE.KIND] !== ATOMIC) {
    failResponse(s, row)
    return
  }
  // The word is swapped in the packet for the copy, then restored: native code can copy only from the packet's arena.
  const view = arena.view
  const hi = atomicAckHi(view, at)
  const lo = atomicAckLo(view, at)
  view.setUint32(at, lo, true)
  view.setUint32(at + 4, hi, true)
  const sge = request + WQE.WR + Send.SGE
  const count = p[request + WQE.WR + Send.SGES]
  setPayload(s, arena, at, ATOMIC_BYTES)
  const result = scatter(s, row, DmaKind.READ_RESPONSE, sge, count, 0, true)
  view.setUint32(at, hi)
  view.setUint32(at + 4, lo)
  if (!isConnected(s, base)) return
  if (result !== DmaResult.OK) {
    failPlacement(s, row)
    return
  }
  advanceUnacked(s, base, 1)
  countAnsweredRead(s, base, request)
  completeOldest(s, row, SUCCESS)
  onProgress(s, row, now)
}

/**
 * Whether the QP is in RTS or SQD. Check this after each call that may execute the pending DMA of earlier packets: if
 * that DMA fails, the QP is in ERR.
 */
const isConnected = (s: EngineState, base: number): boolean => {
  const state = s.rows[base + QP.STATE]
  return state === RTS || state === SQD
}

/**
 * Acknowledges everything before a response. False if the response must not be handled: an earlier response was lost,
 * or the QP went to ERR.
 */
const acknowledgeBefore = (s: EngineState, row: number, ahead: number, now: number): boolean => {
  if (ahead > 0 && !acknowledge(s, row, ahead, now)) {
    onReportedLoss(s, row)
    return false
  }
  return s.rows[row * QP.WORDS + QP.REQ_HEAD] !== 0
}

/**
 * A packet of the peer has shown a loss: a sequence NAK, or an ACK or response after the lost response to a READ or
 * atomic. Goes back, unless that was done for this loss already.
 */
const onReportedLoss = (s: EngineState, row: number): void => {
  const base = row * QP.WORDS
  if (!isConnected(s, base)) return
  if (s.rows[base + QP.REQ_PSN] === s.rows[base + QP.COMP_PSN]) return
  if ((s.rows[base + QP.REQ_FLAGS] & (ReqFlag.RNR_WAIT | ReqFlag.RESENT)) === 0) retry(s, row, true)
}

/**
 * Goes back and counts a retry. If no retries are left, the oldest WQE fails. `isReported`: a packet of the peer, not a
 * timeout, has shown the loss. Further packets about the same loss are ignored.
 */
const retry = (s: EngineState, row: number, isReported: boolean): void => {
  const w = s.rows
  const base = row * QP.WORDS
  if (w[base + QP.COMP_RETRIES] === 0) {
    s.counters.retryExceeded++
    const retryCnt = w[base + QP.RETRY_CNT]
    failOldest(
      s,
      row,
      RETRY_EXC_ERR,
      s.env.causes?.psnsDiffer(row, true) ??
        createCause(isReported ? 'PACKETS_LOST' : 'NO_ANSWER', { tries: retryCnt + 1, retryCnt }),
    )
    return
  }
  w[base + QP.COMP_RETRIES]--
  s.counters.retries++
  w[base + QP.COMP_LOSSES]++
  halveCwnd(s, base)
  if (s.windows.maxBytes !== 0) shrinkWindow(s, row)
  if (isReported) w[base + QP.REQ_FLAGS] |= ReqFlag.RESENT
  else w[base + QP.REQ_FLAGS] &= ~ReqFlag.RESENT
  goBack(s, row)
  schedule(s, row)
}

const MIN_CWND_PACKETS = 8

const halveCwnd = (s: EngineState, base: number): void => {
  if (s.hasFixedWindow) return
  const w = s.rows
  const min = MIN_CWND_PACKETS * (w[base + QP.MTU] + PACKET_WEIGHT)
  const half = w[base + QP.REQ_CWND] >> 1
  if (w[base + QP.REQ_CWND] > min) w[base + QP.REQ_CWND] = half > min ? half : min
}

/**
 * Microseconds to wait after an RNR NAK: at least the time of its code (IBA 9.7.5.2.8). Without a limit of retries the
 * wait grows from the 17th on, by a 16th of that time, up to LONGEST_RNR_WAIT: a peer that never posts a receive costs
 * little (docs/decisions/rnr-waits.md).
 */
const rnrWait = (code: number, rnrRetry: number, rnrNaks: number): number => {
  const least = rnrMicroseconds(code)
  if (rnrRetry !== RNR_RETRY_UNLIMITED || least >= LONGEST_RNR_WAIT) return least
  const longer = rnrNaks <= 16 ? least : Math.floor((least * rnrNaks) / 16)
  return Math.min(longer, LONGEST_RNR_WAIT)
}

/** Handles an RNR NAK: goes back, and waits for the time of its timer code or longer before sending again. */
const onRnrNak = (s: EngineState, row: number, code: number, now: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  if ((w[base + QP.REQ_FLAGS] & ReqFlag.RNR_WAIT) !== 0) return
  s.counters.receivedRnr++
  const rnrNaks = countRnrNak(s, row, now)
  if (w[base + QP.RNR_RETRY] !== RNR_RETRY_UNLIMITED) {
    if (w[base + QP.COMP_RNR_RETRIES] === 0) {
      s.counters.rnrRetryExceeded++
      failOldest(s, row, RNR_RETRY_EXC_ERR, createCause('RNR_EXCEEDED', { rnrNaks, rnrRetry: w[base + QP.RNR_RETRY] }))
      return
    }
    w[base + QP.COMP_RNR_RETRIES]--
  }
  goBack(s, row)
  // RESENT: Linux also sends a sequence NAK for the packets after the refused one, which must not cost a retry.
  w[base + QP.REQ_FLAGS] |= ReqFlag.RNR_WAIT | ReqFlag.RESENT
  setTimer(s.timers, row, now + rnrWait(code, w[base + QP.RNR_RETRY], rnrNaks))
  // The row's next poll sends no requests, but releases its part of the peer's window.
  schedule(s, row)
}

/**
 * The row's timer has expired: the RNR wait is over, or no response came within the ACK timeout. The timer is set only
 * in RTS and SQD, and while PSNs are outstanding.
 *
 * If this process was not scheduled for a while, timers expire before it has read the ACKs that arrived meanwhile, or
 * before a peer in this process could send them. A timeout that is noticed late is therefore extended once, by as much
 * as it was late, but at most by its own length. The specification allows one to four times the timeout (9.7.6.1.3).
 */
export const onTimer = (s: EngineState, row: number, now: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  if ((w[base + QP.REQ_FLAGS] & ReqFlag.RNR_WAIT) !== 0) {
    w[base + QP.REQ_FLAGS] &= ~ReqFlag.RNR_WAIT
    schedule(s, row)
    return
  }
  const lateness = now - takenDeadline(s.timers)
  if (lateness > 0 && (w[base + QP.REQ_FLAGS] & ReqFlag.LATE) === 0) {
    w[base + QP.REQ_FLAGS] |= ReqFlag.LATE
    setTimer(s.timers, row, now + Math.min(lateness, ackTimeouts[w[base + QP.TIMEOUT]]))
  } else retry(s, row, false)
}

/** The pending DMA of a READ response has failed: the oldest WQE, the READ, fails. */
export const onReadDmaFailed = (s: EngineState, row: number): void => {
  if (isConnected(s, row * QP.WORDS)) failPlacement(s, row)
}
