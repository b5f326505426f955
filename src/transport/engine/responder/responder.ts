/*
 * The receiving half of the responder: it checks and executes request packets (InfiniBand Architecture Specification,
 * volume 1, clauses 9.7.4 to 9.7.5.2 and 9.9.3). The steps: PSN (expected, duplicate, ahead), position in the message,
 * length, SRQ (XRC), rights, resources, execution, ACK. After a failed check, nak.ts sends a NAK or drops the message
 * (UC). responses.ts sends responses and ACKs.
 * state.ts explains short names such as `row`, `base` and `request`.
 */

import { createCause } from '../../../spec/check/causes.ts'
import { AsyncEventType, QpState } from '../../../spec/enums.ts'
import { ICRC_BYTES } from '../../../spec/wire/headers.ts'
import {
  headerAt,
  OP_ATOMIC,
  OP_ATOMIC_WRITE,
  OP_FIRST,
  OP_FLUSH,
  OP_IMM,
  OP_INV,
  OP_LAST,
  OP_ONLY,
  OP_READ,
  OP_SEND,
  OP_START,
  OP_WRITE,
  opcodeFlags,
  opcodeHeaderBytes,
} from '../../../spec/wire/opcodes.ts'
import { reliableService, Service } from '../../../spec/wire/services.ts'
import { SendKind, WcStatus } from '../../../spec/work.ts'
import type { Arena } from '../../wire/arena.ts'
import { bthAckReq, bthOpcode, bthPadCount, bthPsn, bthSolicited } from '../../wire/bth.ts'
import * as ext from '../../wire/extensions.ts'
import { takeCause } from '../causes.ts'
import { setPayload } from '../dma.ts'
import { QP, RespFlag } from '../fields.ts'
import { psnDifference } from '../psn.ts'
import type { EngineState } from '../state.ts'
import { schedule } from '../transmit-queue.ts'
import { admitPacket } from '../unreliable/unreliable.ts'
import { onAtomicWrite, onFlush } from './flush-atomic-write.ts'
import { NakSyndrome, nakFatal, nakInvalidRequest, onGap } from './nak.ts'
import { onAtomic, onRead, replayRead, replayResponse } from './rd-atomic.ts'
import { beginWrite, receiveSend, receiveWrite } from './send-write.ts'
import { noSrqCause, selectSrq } from './xrc.ts'

const { RTR } = QpState.values
const { NONE, SEND, WRITE, ATOMIC, FLUSH, ATOMIC_WRITE } = SendKind
const { REM_INV_REQ_ERR } = WcStatus.values
const { COMM_EST } = AsyncEventType.values
const { INVALID_REQUEST } = NakSyndrome
const FLAGS_OF = opcodeFlags
const HEADER_BYTES = opcodeHeaderBytes
const RETH_AT = headerAt.RETH
const IMM_AT = headerAt.ImmDt
const IETH_AT = headerAt.IETH
const ATOMIC_AT = headerAt.AtomicETH
const FETH_AT = headerAt.FETH
const XRCETH_AT = headerAt.XRCETH
const { XRC_TGT } = Service

/** Handles a request packet, checked by `checkPacket`, of a QP in RTR, RTS, SQD or SQE. */
export const onRequest = (s: EngineState, row: number, arena: Arena, at: number, length: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  const opcode = bthOpcode(arena.view, at)
  const flags = FLAGS_OF[opcode]
  const psn = bthPsn(arena.view, at)
  if (reliableService[w[base + QP.SERVICE]] === 0) {
    if (!admitPacket(s, row, flags, psn)) return
  } else if (!acceptPsn(s, row, arena, at, opcode, flags, psn)) return
  onExpectedPsn(s, row)
  const payload = length - HEADER_BYTES[opcode] - bthPadCount(arena.view, at) - ICRC_BYTES
  if (isOutOfPlace(w[base + QP.RESP_MESSAGE], flags))
    nakInvalidRequest(
      s,
      row,
      // If the first packets have lower PSNs than expected, they are duplicates, and the next continues no message.
      s.env.causes?.psnsDiffer(row, false) ?? createCause('OUT_OF_PLACE', { bthOpcode: opcode }),
    )
  else if (!isLengthValid(w[base + QP.MTU], flags, payload))
    nakInvalidRequest(s, row, createCause('PACKET_LENGTH', { payload, mtu: w[base + QP.MTU] }))
  else if (
    w[base + QP.SERVICE] === XRC_TGT &&
    !selectSrq(s, row, ext.xrcethSrq(arena.view, at + XRCETH_AT[opcode]), flags)
  )
    nakInvalidRequest(s, row, noSrqCause(ext.xrcethSrq(arena.view, at + XRCETH_AT[opcode])))
  else if ((flags & OP_SEND) !== 0) onSend(s, row, arena, at, opcode, flags, payload)
  else if ((flags & OP_WRITE) !== 0) onWrite(s, row, arena, at, opcode, flags, payload)
  else if ((flags & OP_READ) !== 0) onRead(s, row, arena, at + RETH_AT[opcode])
  else if ((flags & OP_ATOMIC) !== 0) onAtomic(s, row, arena, at + ATOMIC_AT[opcode], opcode)
  else if ((flags & OP_FLUSH) !== 0) onFlush(s, row, arena, at + FETH_AT[opcode], at + RETH_AT[opcode])
  else onAtomicWrite(s, row, arena, at + RETH_AT[opcode], at + HEADER_BYTES[opcode], payload)
}

/**
 * Whether a packet is at a wrong position. A MIDDLE or LAST must continue a message of its own kind. A FIRST or ONLY
 * (READs and atomics are ONLY) requires that no message is in progress.
 */
const isOutOfPlace = (message: number, flags: number): boolean =>
  (flags & OP_START) !== 0 ? message !== NONE : message !== ((flags & OP_SEND) !== 0 ? SEND : WRITE)

/** FIRST and MIDDLE have the path MTU; LAST has 1 byte or more, ONLY 0 bytes or more, up to the path MTU. */
const isLengthValid = (mtu: number, flags: number, payload: number): boolean => {
  if (payload > mtu) return false
  if ((flags & OP_ONLY) !== 0) return true
  return (flags & OP_LAST) !== 0 ? payload > 0 : payload === mtu
}

/**
 * Call when a packet with the expected PSN has arrived: an unsent NAK is obsolete, and the next gap gets a NAK of its
 * own. In RTR the first such packet raises the event COMM_EST.
 */
export const onExpectedPsn = (s: EngineState, row: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  w[base + QP.RESP_FLAGS] &= ~(RespFlag.NAK_SENT | RespFlag.NAK_DUE)
  if (w[base + QP.STATE] !== RTR || (w[base + QP.RESP_FLAGS] & RespFlag.ESTABLISHED) !== 0) return
  w[base + QP.RESP_FLAGS] |= RespFlag.ESTABLISHED
  s.env.events.raise(row, COMM_EST, createCause('ESTABLISHED', {}))
}

// ---- packets out of order ----

/** Whether the PSN is the expected one. If not, handles the duplicate or the gap. */
const acceptPsn = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  opcode: number,
  flags: number,
  psn: number,
): boolean => {
  const w = s.rows
  const base = row * QP.WORDS
  const ahead = psnDifference(psn, w[base + QP.RESP_EPSN])
  if (ahead < 0) onDuplicate(s, row, arena, at, opcode, flags, psn)
  else if (ahead > 0) onGap(s, row)
  return ahead === 0
}

/**
 * Handles a duplicate. A SEND or WRITE is acknowledged again. A READ, atomic, FLUSH or ATOMIC WRITE is answered again
 * from its resource, unless the resource was reused.
 */
const onDuplicate = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  opcode: number,
  flags: number,
  psn: number,
): void => {
  s.counters.duplicateRequests++
  s.env.causes?.duplicate(row, psn)
  const base = row * QP.WORDS
  if ((flags & OP_READ) !== 0) replayRead(s, row, arena, at + RETH_AT[opcode], psn)
  else if ((flags & OP_ATOMIC) !== 0) replayResponse(s, row, ATOMIC, psn)
  else if ((flags & OP_FLUSH) !== 0) replayResponse(s, row, FLUSH, psn)
  else if ((flags & OP_ATOMIC_WRITE) !== 0) replayResponse(s, row, ATOMIC_WRITE, psn)
  else s.rows[base + QP.RESP_FLAGS] |= RespFlag.ACK_DUE
  schedule(s, row)
}

// ---- operations ----

/** Schedules an ACK for accepted packets if one is requested. */
export const scheduleAck = (s: EngineState, row: number, isRequested: boolean): void => {
  const base = row * QP.WORDS
  if (!isRequested || reliableService[s.rows[base + QP.SERVICE]] === 0) return
  s.rows[base + QP.RESP_FLAGS] |= RespFlag.ACK_DUE
  schedule(s, row)
}

/** The immediate of a packet, or the key that it invalidates; 0 if it has neither. */
const immediateOf = (view: DataView, at: number, opcode: number, flags: number): number =>
  (flags & OP_INV) !== 0
    ? ext.iethRkey(view, at + IETH_AT[opcode])
    : (flags & OP_IMM) !== 0
      ? ext.immediate(view, at + IMM_AT[opcode])
      : 0

const onSend = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  opcode: number,
  flags: number,
  payload: number,
): void => {
  const { view } = arena
  const value = immediateOf(view, at, opcode, flags)
  const writesNow = (flags & OP_ONLY) !== 0
  const payloadAt = at + HEADER_BYTES[opcode]
  setPayload(s, arena, payloadAt, payload)
  if (receiveSend(s, row, flags, 1, value, bthSolicited(view, at), writesNow) > 0)
    scheduleAck(s, row, bthAckReq(view, at))
}

const onWrite = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  opcode: number,
  flags: number,
  payload: number,
): void => {
  const { view } = arena
  const left = s.rows[row * QP.WORDS + QP.RESP_WRITE_LEFT] >>> 0
  const isLast = (flags & OP_LAST) !== 0
  let refusal = 0
  if ((flags & OP_START) !== 0) refusal = onWriteStart(s, row, view, at + RETH_AT[opcode], flags, payload)
  else if (isLast ? payload !== left : payload >= left) refusal = refuseLength(s, left)
  if (refusal !== 0) {
    // The message has not taken a receive WQE, so nothing completes with this status.
    nakFatal(s, row, refusal, REM_INV_REQ_ERR, takeCause(s))
    return
  }
  const value = immediateOf(view, at, opcode, flags)
  const writesNow = (flags & OP_ONLY) !== 0
  const payloadAt = at + HEADER_BYTES[opcode]
  setPayload(s, arena, payloadAt, payload)
  if (receiveWrite(s, row, flags, 1, value, bthSolicited(view, at), writesNow) > 0)
    scheduleAck(s, row, bthAckReq(view, at))
}

/** Sets the cause for a payload that does not match a WRITE's `remaining` bytes; returns the syndrome of the NAK. */
const refuseLength = (s: EngineState, remaining: number): number => {
  s.result.cause = createCause('DMA_LENGTH', { length: remaining })
  return INVALID_REQUEST
}

/** Checks the first packet of a WRITE. `at`: offset of the RETH. Returns 0, or the syndrome of a NAK. */
const onWriteStart = (
  s: EngineState,
  row: number,
  view: DataView,
  at: number,
  flags: number,
  payload: number,
): number => {
  const length = ext.rethDmaLen(view, at)
  const isFirst = (flags & OP_FIRST) !== 0
  if (isFirst ? length <= payload : length !== payload) return refuseLength(s, length)
  return beginWrite(s, row, ext.rethVaHi(view, at), ext.rethVaLo(view, at), ext.rethRkey(view, at), length, isFirst)
}
