/*
 * SENDs and WRITEs at the responder (InfiniBand Architecture Specification, volume 1, clauses 9.7.4 to 9.7.5.2). Header
 * fields are arguments, because slices of local messages (transport/engine/loopback/slices.ts) have no packets.
 *
 * Each call handles a batch: `packets` consecutive packets of a message. `flags` are OP_… bits of spec/wire/opcodes.ts:
 * OP_START if the batch begins the message, OP_END if it ends the message, OP_IMM or OP_INV if `value` is an immediate
 * or a key. `writesNow`: the data is written immediately, not deferred (dma.ts). `isSolicited`: the message has the
 * solicited event bit.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { createCause } from '../../../spec/check/causes.ts'
import { QpState } from '../../../spec/enums.ts'
import { syndromeKind } from '../../../spec/wire/headers.ts'
import { OP_END, OP_IMM, OP_INV, OP_START } from '../../../spec/wire/opcodes.ts'
import { reliableService } from '../../../spec/wire/services.ts'
import { MAX_MESSAGE_BYTES, SendKind, WcFlags, WcOpcode, WcStatus } from '../../../spec/work.ts'
import { upperWord } from '../address.ts'
import { NO_RECEIVE, noteRefusedKey, takeCause } from '../causes.ts'
import { completeReceive, failReceive } from '../completer/completion.ts'
import { DmaKind, DmaResult, flushDma, scatter, writePayloadNow, writePayloads } from '../dma.ts'
import { QP, RespFlag } from '../fields.ts'
import { PSN_MASK } from '../psn.ts'
import { recvBlockLog2 } from '../qp-layout.ts'
import { type EngineState, giveBlock } from '../state.ts'
import { Access, Receive } from '../types.ts'
import { dropMessage, NakSyndrome, nakFatal, scheduleNak } from './nak.ts'
import { takeReceive } from './receive-request.ts'

const { ERR } = QpState.values
const { NONE, SEND, WRITE } = SendKind
const { SUCCESS, LOC_LEN_ERR, LOC_PROT_ERR, LOC_ACCESS_ERR, REM_INV_REQ_ERR } = WcStatus.values
const { RECV, RECV_RDMA_WITH_IMM } = WcOpcode.values
const { WITH_IMM, WITH_INV } = WcFlags.values
const { INVALID_REQUEST, REMOTE_ACCESS, REMOTE_OPERATION } = NakSyndrome
const { REMOTE_WRITE } = Access

/** Takes a receive WQE for a message. If there is none, sends an RNR NAK (UC: drops the message) and returns false. */
const requireReceive = (s: EngineState, row: number): boolean => {
  if (takeReceive(s, row)) return true
  const base = row * QP.WORDS
  if (reliableService[s.rows[base + QP.SERVICE]] === 0) {
    s.env.causes?.dropped(row, NO_RECEIVE)
    dropMessage(s, row)
    return false
  }
  s.counters.sentRnr++
  const code = s.rows[base + QP.MIN_RNR_TIMER]
  scheduleNak(s, row, syndromeKind.RNR_NAK | (s.env.choices?.rnrTimer(row, code, s.rows[base + QP.RESP_MSN]) ?? code))
  return false
}

/** After packets were accepted: advances the expected PSN, and the MSN if they end the message (`isEnd`). */
const countAccepted = (s: EngineState, row: number, packets: number, isEnd: boolean): void => {
  const w = s.rows
  const base = row * QP.WORDS
  w[base + QP.RESP_EPSN] = (w[base + QP.RESP_EPSN] + packets) & PSN_MASK
  if (isEnd) {
    w[base + QP.RESP_MESSAGE] = NONE
    w[base + QP.RESP_MSN] = (w[base + QP.RESP_MSN] + 1) & PSN_MASK
  }
}

/** Whether a failed DMA has moved the QP to ERR or dropped the current message. */
const isTerminated = (w: Int32Array, base: number): boolean =>
  w[base + QP.STATE] === ERR || (w[base + QP.RESP_FLAGS] & RespFlag.DROPPING) !== 0

/** Completes the current receive WQE at the end of a message. `opcode`: ibv_wc_opcode. */
const completeMessage = (
  s: EngineState,
  row: number,
  flags: number,
  value: number,
  isSolicited: boolean,
  opcode: number,
): void => {
  const base = row * QP.WORDS
  const receive = s.rows[base + QP.RESP_RECEIVE]
  const wcFlags = (flags & OP_IMM) !== 0 ? WITH_IMM : (flags & OP_INV) !== 0 ? WITH_INV : 0
  s.rows[base + QP.RESP_RECEIVE] = 0
  completeReceive(s, row, receive, opcode, s.rows[base + QP.RESP_BYTES], value, wcFlags, isSolicited)
  giveBlock(s, recvBlockLog2(s.rows, base), receive)
}

/**
 * Handles a batch of a SEND; `s.payloads` is its contiguous data. Returns the number of accepted packets. If not all
 * are accepted, the message was refused or dropped, an RNR NAK was sent, or the QP went to ERR without a NAK.
 */
export const receiveSend = (
  s: EngineState,
  row: number,
  flags: number,
  packets: number,
  value: number,
  isSolicited: boolean,
  writesNow: boolean,
): number => {
  const { bytes } = s.payloads
  const w = s.rows
  const base = row * QP.WORDS
  if ((flags & OP_START) !== 0) {
    if (!requireReceive(s, row)) return 0
    w[base + QP.RESP_BYTES] = 0
    w[base + QP.RESP_MESSAGE] = SEND
  }
  const receive = w[base + QP.RESP_RECEIVE]
  const done = w[base + QP.RESP_BYTES] >>> 0
  const bufferBytes = s.pool[receive + Receive.LENGTH]
  // No message has more bytes, however large the buffer is.
  const freeBytes = (bufferBytes < MAX_MESSAGE_BYTES ? bufferBytes : MAX_MESSAGE_BYTES) - done
  const fits = bytes <= freeBytes
  // Packets that fit into the buffer are accepted even if a later one does not.
  const count = fits ? packets : Math.floor(freeBytes / w[base + QP.MTU])
  const length = fits ? bytes : count * w[base + QP.MTU]
  if (length > 0) {
    const sges = s.pool[receive + Receive.SGES]
    const sge = receive + Receive.SGE
    s.payloads.bytes = length
    const result = scatter(s, row, DmaKind.RECEIVE, sge, sges, done, writesNow)
    if (isTerminated(w, base)) return 0
    if (result !== DmaResult.OK) {
      nakFatal(s, row, REMOTE_OPERATION, LOC_PROT_ERR, takeCause(s))
      return 0
    }
    w[base + QP.RESP_BYTES] = done + length
  }
  if (!fits) {
    countAccepted(s, row, count, false)
    const cause =
      bufferBytes < MAX_MESSAGE_BYTES
        ? createCause('RECEIVE_TOO_SHORT', { bufferBytes, length: done + bytes })
        : createCause('MESSAGE_TOO_LONG', {})
    nakFatal(s, row, INVALID_REQUEST, LOC_LEN_ERR, cause)
    return count
  }
  const isEnd = (flags & OP_END) !== 0
  if (isEnd) {
    flushDma(s)
    if (isTerminated(w, base)) return 0
    if ((flags & OP_INV) !== 0 && s.env.memory.invalidate(w[base + QP.PD], w[base + QP.QPN], value) !== SUCCESS) {
      // Class J (9.9.6.3): neither an ACK nor a NAK is sent, so the requester completes with RETRY_EXC_ERR.
      failReceive(s, row, REM_INV_REQ_ERR, createCause('NOT_INVALIDATED', { key: value }))
      return 0
    }
    completeMessage(s, row, flags, value, isSolicited, RECV)
  }
  countAccepted(s, row, packets, isEnd)
  return packets
}

/**
 * Begins a WRITE: checks rights, length and, if `checksRange`, the range. The range of a WRITE of one packet is checked
 * when the payload is written. Returns 0, or the syndrome of a NAK with its cause in `s.result.cause`.
 */
export const beginWrite = (
  s: EngineState,
  row: number,
  hi: number,
  lo: number,
  key: number,
  length: number,
  checksRange: boolean,
): number => {
  const w = s.rows
  const base = row * QP.WORDS
  if ((w[base + QP.ACCESS] & REMOTE_WRITE) === 0) {
    s.result.cause = createCause('QP_NO_RIGHT', { right: REMOTE_WRITE })
    return INVALID_REQUEST
  }
  if (length > MAX_MESSAGE_BYTES) {
    s.result.cause = createCause('REMOTE_TOO_LONG', { length })
    return INVALID_REQUEST
  }
  if (checksRange && s.env.memory.resolve(w[base + QP.PD], key, hi, lo, length, REMOTE_WRITE, w[base + QP.QPN]) < 0) {
    noteRefusedKey(s, w[base + QP.PD], key, hi, lo, length, REMOTE_WRITE, w[base + QP.QPN])
    return REMOTE_ACCESS
  }
  w[base + QP.RESP_WRITE_HI] = hi
  w[base + QP.RESP_WRITE_LO] = lo
  w[base + QP.RESP_WRITE_KEY] = key
  w[base + QP.RESP_WRITE_LEFT] = length
  return 0
}

/** Handles a batch of the current WRITE; `s.payloads` is its data. Returns as `receiveSend`. */
export const receiveWrite = (
  s: EngineState,
  row: number,
  flags: number,
  packets: number,
  value: number,
  isSolicited: boolean,
  writesNow: boolean,
): number => {
  const w = s.rows
  const base = row * QP.WORDS
  if ((flags & OP_START) !== 0) w[base + QP.RESP_BYTES] = 0
  if ((flags & OP_IMM) !== 0 && !requireReceive(s, row)) return 0
  const bytes = s.payloads.bytes * s.payloads.count
  if (bytes > 0) {
    const hi = w[base + QP.RESP_WRITE_HI] >>> 0
    const lo = w[base + QP.RESP_WRITE_LO] >>> 0
    const key = w[base + QP.RESP_WRITE_KEY] >>> 0
    const result = writesNow
      ? writePayloadNow(s, row, DmaKind.WRITE, key, hi, lo)
      : writePayloads(s, row, DmaKind.WRITE, key, hi, lo)
    if (!advanceWrite(s, row, result, bytes)) return 0
  }
  w[base + QP.RESP_BYTES] += bytes
  const isEnd = (flags & OP_END) !== 0
  if (!isEnd) w[base + QP.RESP_MESSAGE] = WRITE
  else if ((flags & OP_IMM) !== 0) {
    flushDma(s)
    if (isTerminated(w, base)) return 0
    completeMessage(s, row, flags, value, isSolicited, RECV_RDMA_WITH_IMM)
  }
  countAccepted(s, row, packets, isEnd)
  return packets
}

/**
 * Advances the address of the current WRITE by `length` after a DMA with this DmaResult. False if the WRITE failed: the
 * QP has gone to ERR, or the message was dropped.
 */
const advanceWrite = (s: EngineState, row: number, result: number, length: number): boolean => {
  const w = s.rows
  const base = row * QP.WORDS
  if (isTerminated(w, base)) return false
  if (result !== DmaResult.OK) {
    nakFatal(s, row, result === DmaResult.NO_REGION ? REMOTE_ACCESS : REMOTE_OPERATION, LOC_ACCESS_ERR, takeCause(s))
    return false
  }
  const lo = w[base + QP.RESP_WRITE_LO] >>> 0
  const next = lo + length
  w[base + QP.RESP_WRITE_HI] = upperWord(w[base + QP.RESP_WRITE_HI], next)
  w[base + QP.RESP_WRITE_LO] = next | 0
  w[base + QP.RESP_WRITE_LEFT] = ((w[base + QP.RESP_WRITE_LEFT] >>> 0) - length) | 0
  return true
}
