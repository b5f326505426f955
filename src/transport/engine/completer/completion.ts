/*
 * Completions of send and receive WQEs, and the error states, in which WQEs are flushed (InfiniBand Architecture
 * Specification, volume 1, clauses 10.3.1 and 11.4.2.1). The slot of a send WQE is released before its completion is
 * visible, so that the program may post again immediately. Flushing is bounded per call, because a hostile program can
 * refill its queue meanwhile.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { type Cause, createCause, vendorErrorOf } from '../../../spec/check/causes.ts'
import { AsyncEventType, QpState } from '../../../spec/enums.ts'
import { reliableService, Service } from '../../../spec/wire/services.ts'
import { SendFlags, sendOperations, WcFlags, WcOpcode, WcStatus } from '../../../spec/work.ts'
import { flushDmaOf } from '../dma.ts'
import { QP, ReqFlag, WQE } from '../fields.ts'
import { leaveWindow } from '../flow-control/peer-window.ts'
import { recvBlockLog2, sendBlockLog2, signalsAll, usesSrq } from '../qp-layout.ts'
import { type EngineState, giveBlock, takeBlock, tapsOf } from '../state.ts'
import { clearTimer } from '../timers.ts'
import { schedule } from '../transmit-queue.ts'
import { Completion, DatagramPath, Receive, Send } from '../types.ts'

const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values
const { SQE, ERR } = QpState.values
const { SQ_DRAINED, QP_LAST_WQE_REACHED } = AsyncEventType.values
const RECV = WcOpcode.values.RECV
const { GRH } = WcFlags.values
const { HAS_GRH } = DatagramPath
const { ID_LO, ID_HI, STATUS, OPCODE, BYTES, IMM, SRC_QPN, FLAGS, SL, VENDOR } = Completion
const { SIGNALED } = SendFlags.values
/** Maximum number of posted WQEs of each queue that one call flushes. */
const MAX_FLUSHED = 1024

/** ibv_wc_opcode by ibv_wr_opcode; 0 (SEND) for an unknown one. */
const completionOpcode = new Uint8Array(256)
/** By ibv_wr_opcode: 1 for SEND, SEND with immediate and SEND with invalidate. */
const isSend = new Uint8Array(256)
for (const [opcode, { completion }] of Object.entries(sendOperations)) {
  completionOpcode[+opcode] = completion
  isSend[+opcode] = +(completion === WcOpcode.values.SEND)
}

/** Adds QPN and P_Key index to `s.completion`, and pushes it. `cq`: QP.SEND_CQ or QP.RECV_CQ. */
const pushCompletion = (s: EngineState, row: number, cq: number, isSolicited: boolean): void => {
  const base = row * QP.WORDS
  s.completion[Completion.QPN] = s.rows[base + QP.QPN]
  s.completion[Completion.PKEY_INDEX] = s.rows[base + QP.PKEY_INDEX]
  s.env.completions.push(s.rows[base + cq], s.completion, isSolicited)
}

/**
 * Pushes the completion of a send WQE if it is signaled or has failed. The WQE's slot is already released. `code`:
 * vendor error of the cause.
 */
export const completeSend = (s: EngineState, row: number, request: number, status: number, code = 0): void => {
  const p = s.pool
  const wr = request + WQE.WR
  if (status === SUCCESS) s.counters.sends += isSend[p[wr + Send.OPCODE]]
  if (status === SUCCESS && (p[wr + Send.FLAGS] & SIGNALED) === 0 && !signalsAll(s.rows, row * QP.WORDS)) return
  const c = s.completion
  c[ID_LO] = p[wr + Send.ID_LO]
  c[ID_HI] = p[wr + Send.ID_HI]
  c[STATUS] = status
  c[OPCODE] = completionOpcode[p[wr + Send.OPCODE]]
  c[BYTES] = status === SUCCESS ? p[wr + Send.LENGTH] : 0
  c[IMM] = 0
  c[SRC_QPN] = 0
  c[SL] = 0
  c[FLAGS] = 0
  c[VENDOR] = code
  pushCompletion(s, row, QP.SEND_CQ, status !== SUCCESS)
}

/**
 * Completes the oldest fetched WQE and releases its slot and block. If it succeeds, executed local operations that
 * follow it complete too.
 */
export const completeOldest = (s: EngineState, row: number, status: number, code = 0): void => {
  completeAndRelease(s, row, status, code)
  if (status !== SUCCESS) return
  const base = row * QP.WORDS
  for (
    let next = s.rows[base + QP.REQ_HEAD];
    next !== 0 && s.pool[next + WQE.DONE] !== 0;
    next = s.rows[base + QP.REQ_HEAD]
  )
    completeAndRelease(s, row, SUCCESS, 0)
}

const completeAndRelease = (s: EngineState, row: number, status: number, code: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  const request = w[base + QP.REQ_HEAD]
  const next = s.pool[request + WQE.NEXT]
  w[base + QP.REQ_HEAD] = next
  if (w[base + QP.REQ_CURRENT] === request) w[base + QP.REQ_CURRENT] = next
  s.env.work.retireSend(row, 1)
  tapsOf(s)?.retired(row, 1, status === WR_FLUSH_ERR)
  completeSend(s, row, request, status, code)
  giveBlock(s, sendBlockLog2(s.rows, base), request)
}

/** Pushes the completion of a receive WQE with a message of `bytes` bytes. `imm`, `flags`: as in Completion. */
export const completeReceive = (
  s: EngineState,
  row: number,
  receive: number,
  opcode: number,
  bytes: number,
  imm: number,
  flags: number,
  isSolicited: boolean,
): void => {
  const c = s.completion
  const base = row * QP.WORDS
  const isDatagram = s.rows[base + QP.SERVICE] === Service.UD
  if (opcode === RECV) s.counters.receives++
  c[ID_LO] = s.pool[receive + Receive.ID_LO]
  c[ID_HI] = s.pool[receive + Receive.ID_HI]
  c[STATUS] = SUCCESS
  c[OPCODE] = opcode
  c[BYTES] = bytes
  c[IMM] = imm
  // For UD, the engine has set DEST_QPN to the source QP of the current packet.
  c[SRC_QPN] = s.rows[base + QP.DEST_QPN]
  const path = s.rows[base + QP.RESP_SL]
  c[SL] = isDatagram ? path & ~HAS_GRH : path
  c[FLAGS] = isDatagram && (path & HAS_GRH) !== 0 ? flags | GRH : flags
  c[VENDOR] = 0
  pushCompletion(s, row, QP.RECV_CQ, isSolicited)
}

/** `code`: vendor error of the cause. */
const completeFailedReceive = (s: EngineState, row: number, receive: number, status: number, code: number): void => {
  const c = s.completion
  c.fill(0)
  c[ID_LO] = s.pool[receive + Receive.ID_LO]
  c[ID_HI] = s.pool[receive + Receive.ID_HI]
  c[STATUS] = status
  c[OPCODE] = RECV
  c[VENDOR] = code
  pushCompletion(s, row, QP.RECV_CQ, true)
}

/** Completes the current receive WQE with an error and releases its block. False if there is none. */
const completeCurrentReceive = (s: EngineState, row: number, status: number, code: number): boolean => {
  const base = row * QP.WORDS
  const receive = s.rows[base + QP.RESP_RECEIVE]
  if (receive === 0) return false
  s.rows[base + QP.RESP_RECEIVE] = 0
  completeFailedReceive(s, row, receive, status, code)
  giveBlock(s, recvBlockLog2(s.rows, base), receive)
  return true
}

/** In ERR or SQE: flushes fetched, then posted send WQEs. */
export const flushSends = (s: EngineState, row: number): void => {
  const base = row * QP.WORDS
  const code = s.rows[base + QP.FLUSH_CAUSE]
  let count = 0
  for (; s.rows[base + QP.REQ_HEAD] !== 0; count++) completeOldest(s, row, WR_FLUSH_ERR, code)
  const log2 = sendBlockLog2(s.rows, base)
  const block = takeBlock(s, log2)
  let left = MAX_FLUSHED
  while (left > 0 && s.env.work.loadSend(row, s.rows[base + QP.REQ_WQE_INDEX] >>> 0, s.pool, block + WQE.WR, true)) {
    s.rows[base + QP.REQ_WQE_INDEX]++
    tapsOf(s)?.loaded(row, s.pool, block + WQE.WR)
    s.env.work.retireSend(row, 1)
    tapsOf(s)?.retired(row, 1, true)
    completeSend(s, row, block, WR_FLUSH_ERR, code)
    left--
    count++
  }
  giveBlock(s, log2, block)
  if (count > 0) s.env.causes?.flushed(row, true, count, code)
  if (left === 0) keepFlushing(s, row)
}

/**
 * Flushes posted receive WQEs, except those of an SRQ, which other QPs use. `flushed`: number of receive WQEs that the
 * caller has flushed, to be reported together.
 */
export const flushReceives = (s: EngineState, row: number, flushed = 0): void => {
  const base = row * QP.WORDS
  const code = s.rows[base + QP.FLUSH_CAUSE]
  const count = flushed + (usesSrq(s.rows, base) ? 0 : flushPosted(s, row, code))
  if (count > 0) s.env.causes?.flushed(row, false, count, code)
}

const flushPosted = (s: EngineState, row: number, code: number): number => {
  const base = row * QP.WORDS
  const log2 = recvBlockLog2(s.rows, base)
  const block = takeBlock(s, log2)
  let left = MAX_FLUSHED
  while (left > 0 && s.env.work.takeReceive(row, s.pool, block)) {
    tapsOf(s)?.taken(row, s.pool, block)
    completeFailedReceive(s, row, block, WR_FLUSH_ERR, code)
    left--
  }
  giveBlock(s, log2, block)
  if (left === 0) keepFlushing(s, row)
  return MAX_FLUSHED - left
}

/** Schedules the row, so that the next poll flushes more. */
const keepFlushing = (s: EngineState, row: number): void => {
  s.rows[row * QP.WORDS + QP.REQ_FLAGS] |= ReqFlag.FLUSHING
  schedule(s, row)
}

/** The vendor error in completions of WQEs that are flushed for this cause. */
const flushCode = ({ id }: Cause): number =>
  vendorErrorOf(id === 'MODIFIED' || id === 'DEVICE_REMOVED' || id === 'COMPLETION_LOST' ? id : 'FLUSHED')

/** Moves a QP to ERR: flushes all WQEs. Pending responses, and the NAK or ACK that is due, are still sent. */
export const enterError = (s: EngineState, row: number, cause: Cause): void => {
  flushDmaOf(s, row)
  const w = s.rows
  const base = row * QP.WORDS
  if (w[base + QP.STATE] === ERR) return
  w[base + QP.STATE] = ERR
  w[base + QP.FLUSH_CAUSE] = flushCode(cause)
  s.env.taps?.inError(w[base + QP.QPN], true)
  // No ACK counts in ERR, so nothing is in flight for the windows.
  w[base + QP.REQ_SENT_BYTES] = w[base + QP.COMP_ACKED_BYTES]
  leaveWindow(s, row)
  w[base + QP.REQ_FLAGS] &= ~(ReqFlag.MORE | ReqFlag.RNR_WAIT | ReqFlag.DRAINING)
  clearTimer(s.timers, row)
  const hadReceive = completeCurrentReceive(s, row, WR_FLUSH_ERR, w[base + QP.FLUSH_CAUSE])
  flushSends(s, row)
  flushReceives(s, row, +hadReceive)
  // WQEs of the SRQ are not flushed: a program that drains the QP waits for this event (IBA 10.3.1).
  if (usesSrq(w, base)) s.env.events.raise(row, QP_LAST_WQE_REACHED, createCause('LAST_WQE', {}))
}

/** Call this in SQD when the last fetched WQE has completed. */
export const onDrained = (s: EngineState, row: number): void => {
  s.rows[row * QP.WORDS + QP.REQ_FLAGS] &= ~ReqFlag.DRAINING
  s.env.events.raise(row, SQ_DRAINED, createCause('DRAINED', {}))
}

/** Moves an unreliable QP to SQE: sends are flushed, receiving continues (IBA 10.3.1). */
export const enterSqe = (s: EngineState, row: number, cause: Cause): void => {
  const w = s.rows
  const base = row * QP.WORDS
  w[base + QP.STATE] = SQE
  w[base + QP.FLUSH_CAUSE] = flushCode(cause)
  w[base + QP.REQ_FLAGS] &= ~(ReqFlag.MORE | ReqFlag.DRAINING)
  flushSends(s, row)
}

/** Fails the oldest send WQE: a reliable QP goes to ERR, an unreliable one to SQE. */
export const failOldest = (s: EngineState, row: number, status: number, cause: Cause): void => {
  flushDmaOf(s, row)
  const base = row * QP.WORDS
  if (s.rows[base + QP.STATE] === ERR) return
  s.env.causes?.send(row, s.pool, s.rows[base + QP.REQ_HEAD] + WQE.WR, status, cause)
  completeOldest(s, row, status, vendorErrorOf(cause.id))
  if (reliableService[s.rows[base + QP.SERVICE]] !== 0) enterError(s, row, cause)
  else enterSqe(s, row, cause)
}

/** Completes the current receive WQE with an error, and moves the QP to ERR. False if there was no receive WQE. */
export const failReceive = (s: EngineState, row: number, status: number, cause: Cause): boolean => {
  flushDmaOf(s, row)
  const receive = s.rows[row * QP.WORDS + QP.RESP_RECEIVE]
  if (receive !== 0)
    s.env.causes?.receive(row, s.pool[receive + Receive.ID_HI], s.pool[receive + Receive.ID_LO], status, cause)
  const hadReceive = completeCurrentReceive(s, row, status, vendorErrorOf(cause.id))
  enterError(s, row, cause)
  return hadReceive
}
