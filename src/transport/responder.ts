/*
 * The responder's receiving half: from request packets to effects (InfiniBand Architecture Specification, volume 1,
 * clauses 9.7.4 to 9.7.5.2 and 9.9.3). One pipeline of small steps: PSN (expected, duplicate, ahead), place in the
 * message, operation, length, rights, resources, execution, acknowledgement due. A step that refuses answers with a NAK
 * and ends the QP, or lets the requester wait (RNR). What goes out, responses and acknowledgements in PSN order, is
 * responses.ts' business.
 */
import { AsyncEventType, QpState } from '../spec/enums.ts'
import { DEFAULT_PKEY, ICRC_BYTES, syndromeKind } from '../spec/headers.ts'
import {
  headerAt,
  OP_ATOMIC,
  OP_ATOMIC_WRITE,
  OP_END,
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
  operationCode,
} from '../spec/opcodes.ts'
import { reliableService, Service, serviceBits } from '../spec/services.ts'
import { MAX_MESSAGE_BYTES, SendKind, WcFlags, WcOpcode, WcStatus } from '../spec/work.ts'
import type { Arena } from '../wire/arena.ts'
import { BTH_ACKREQ, bthAckReq, bthDestQp, bthOpcode, bthPadCount, bthPsn, bthSolicited } from '../wire/bth.ts'
import * as ext from '../wire/extensions.ts'
import { completeReceive, failReceive } from './completing.ts'
import { flushMoves, Moved, MoveKind, putNow, putPieces, scatter } from './moves.ts'
import { onAtomicWrite, onFlush } from './placement.ts'
import { PSN_MASK, psnDifference } from './psn.ts'
import { takeReceive } from './receives.ts'
import { dropMessage, nak, onGap, Refusal, refuse } from './refusals.ts'
import { onAtomic, onRead, replayAnswer, replayRead } from './resources.ts'
import { type EngineState, giveBlock, R, Row, schedule } from './state.ts'
import { Access, Receive } from './types.ts'
import { admit } from './unreliable.ts'
import { nameQueue } from './xrc.ts'

const {
  WORDS,
  SERVICE,
  SRQN,
  STATE,
  QPN,
  PD,
  MTU,
  ACCESS,
  MIN_RNR,
  RECV_BLOCK,
  RESPONDER,
  EXPECTED,
  MSN,
  MESSAGE,
  RECEIVE,
  DONE,
} = Row
const { WRITE_HI, WRITE_LO, WRITE_KEY, WRITE_LEFT } = Row
const { ACK_DUE, NAK_DUE, NAK_SENT, DROPPING } = R
const { RTR, ERR } = QpState.values
const { NONE, SEND, WRITE, ATOMIC, FLUSH, ATOMIC_WRITE } = SendKind
const { SUCCESS, LOC_LEN_ERR, LOC_PROT_ERR, LOC_ACCESS_ERR, REM_INV_REQ_ERR } = WcStatus.values
const { RECV, RECV_RDMA_WITH_IMM } = WcOpcode.values
const { WITH_IMM, WITH_INV } = WcFlags.values
const { COMM_EST } = AsyncEventType.values
const { INVALID_REQUEST, REMOTE_ACCESS, REMOTE_OPERATION } = Refusal
const FLAGS_OF = opcodeFlags
const HEADER_BYTES = opcodeHeaderBytes
const RETH_AT = headerAt.RETH
const IMM_AT = headerAt.ImmDt
const IETH_AT = headerAt.IETH
const ATOMIC_AT = headerAt.AtomicETH
const FETH_AT = headerAt.FETH
const XRCETH_AT = headerAt.XRCETH
const { XRC_TGT } = Service

/** A request packet (checked by `checkPacket`) for a QP in RTR or beyond, not in error. */
export const onRequest = (s: EngineState, row: number, arena: Arena, at: number, length: number): void => {
  const w = s.rows
  const base = row * WORDS
  const opcode = bthOpcode(arena.view, at)
  const flags = FLAGS_OF[opcode]
  const psn = bthPsn(arena.view, at)
  if (reliableService[w[base + SERVICE]] === 0) {
    if (!admit(s, row, flags, psn)) return
  } else if (!isExpected(s, row, arena, at, opcode, flags, psn)) return
  if (w[base + STATE] === RTR) communicationEstablished(s, row)
  const payload = length - HEADER_BYTES[opcode] - bthPadCount(arena.view, at) - ICRC_BYTES
  const refusal = isOutOfPlace(w[base + MESSAGE], flags) ? INVALID_REQUEST : checkLength(w[base + MTU], flags, payload)
  if (refusal !== 0) refuse(s, row, refusal, REM_INV_REQ_ERR)
  else if (w[base + SERVICE] === XRC_TGT && !nameQueue(s, row, arena.view, at, opcode, flags))
    refuse(s, row, INVALID_REQUEST, REM_INV_REQ_ERR)
  else if ((flags & OP_SEND) !== 0) onSend(s, row, arena, at, opcode, flags, payload)
  else if ((flags & OP_WRITE) !== 0) onWrite(s, row, arena, at, opcode, flags, payload)
  else if ((flags & OP_READ) !== 0) onRead(s, row, arena, at + RETH_AT[opcode])
  else if ((flags & OP_ATOMIC) !== 0) onAtomic(s, row, arena, at + ATOMIC_AT[opcode], opcode)
  else if ((flags & OP_FLUSH) !== 0) onFlush(s, row, arena, at + FETH_AT[opcode], at + RETH_AT[opcode])
  else onAtomicWrite(s, row, arena, at + RETH_AT[opcode], at + HEADER_BYTES[opcode], payload)
}

/** A MIDDLE or LAST continues a message of its own kind; anything else begins one when none is under way. */
const isOutOfPlace = (message: number, flags: number): boolean =>
  (flags & (OP_START | OP_READ | OP_ATOMIC)) !== 0
    ? message !== NONE
    : message !== ((flags & OP_SEND) !== 0 ? SEND : WRITE)

/** FIRST and MIDDLE are full, LAST is not empty, nothing is longer than the path MTU: 0 or the NAK. */
const checkLength = (mtu: number, flags: number, payload: number): number => {
  if (payload > mtu) return INVALID_REQUEST
  if ((flags & OP_ONLY) !== 0) return 0
  if ((flags & OP_LAST) !== 0) return payload === 0 ? INVALID_REQUEST : 0
  return payload === mtu ? 0 : INVALID_REQUEST
}

/** First packet from the peer: the program may move to RTS. The event is told once. */
const communicationEstablished = (s: EngineState, row: number): void => {
  const base = row * WORDS
  if ((s.rows[base + RESPONDER] & R.ESTABLISHED) !== 0) return
  s.rows[base + RESPONDER] |= R.ESTABLISHED
  s.env.events.qp(row, COMM_EST)
}

// ---- what does not fit ----

/** The PSN that is expected; an old one is answered again, after a gap the requester is told. */
const isExpected = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  opcode: number,
  flags: number,
  psn: number,
): boolean => {
  const w = s.rows
  const base = row * WORDS
  const ahead = psnDifference(psn, w[base + EXPECTED])
  if (ahead < 0) onDuplicate(s, row, arena, at, opcode, flags, psn)
  else if (ahead > 0) onGap(s, row)
  if (ahead !== 0) return false
  // a NAK that has not left yet is overtaken by what it asks for
  w[base + RESPONDER] &= ~(NAK_SENT | NAK_DUE)
  return true
}

/**
 * An old PSN: a SEND or WRITE is acknowledged again, a READ or atomic answered again from its resource, if it is still
 * there.
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
  const base = row * WORDS
  if ((flags & OP_READ) !== 0) replayRead(s, row, arena, at + RETH_AT[opcode], psn)
  else if ((flags & OP_ATOMIC) !== 0) replayAnswer(s, row, ATOMIC, psn)
  else if ((flags & OP_FLUSH) !== 0) replayAnswer(s, row, FLUSH, psn)
  else if ((flags & OP_ATOMIC_WRITE) !== 0) replayAnswer(s, row, ATOMIC_WRITE, psn)
  else s.rows[base + RESPONDER] |= ACK_DUE
  schedule(s, row)
}

/** A receive request for the message that begins; if there is none, the requester is told to wait. */
const needReceive = (s: EngineState, row: number): boolean => {
  if (takeReceive(s, row)) return true
  const base = row * WORDS
  if (reliableService[s.rows[base + SERVICE]] === 0) {
    dropMessage(s, row)
    return false
  }
  s.counters.sentRnr++
  nak(s, row, syndromeKind.RNR_NAK | s.rows[base + MIN_RNR])
  return false
}

// ---- what is to be done ----

/** The packet was taken: the next PSN is expected. */
const taken = (s: EngineState, row: number, arena: Arena, at: number, ends: boolean): void => {
  const w = s.rows
  const base = row * WORDS
  w[base + EXPECTED] = (w[base + EXPECTED] + 1) & PSN_MASK
  if (ends) {
    w[base + MESSAGE] = NONE
    w[base + MSN] = (w[base + MSN] + 1) & PSN_MASK
  }
  if (bthAckReq(arena.view, at) && reliableService[w[base + SERVICE]] !== 0) {
    w[base + RESPONDER] |= ACK_DUE
    schedule(s, row)
  }
}

const onSend = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  opcode: number,
  flags: number,
  payload: number,
): void => {
  const w = s.rows
  const base = row * WORDS
  if ((flags & OP_START) !== 0) {
    if (!needReceive(s, row)) return
    w[base + DONE] = 0
    w[base + MESSAGE] = SEND
  }
  const receive = w[base + RECEIVE]
  const done = w[base + DONE]
  if (done + payload > s.pool[receive + Receive.LENGTH]) {
    refuse(s, row, INVALID_REQUEST, LOC_LEN_ERR)
    return
  }
  if (payload > 0) {
    const count = s.pool[receive + Receive.SGES]
    const only = (flags & OP_ONLY) !== 0
    const from = at + HEADER_BYTES[opcode]
    const psn = w[base + EXPECTED]
    const sge = receive + Receive.SGE
    const why = scatter(s, row, MoveKind.RECEIVE, sge, count, done, arena, from, payload, psn, w[base + MSN], only)
    if (isOver(w, base)) return
    if (why !== Moved.OK) {
      refuse(s, row, REMOTE_OPERATION, LOC_PROT_ERR)
      return
    }
    w[base + DONE] = done + payload
  }
  const ends = (flags & OP_END) !== 0
  if (ends) {
    flushMoves(s)
    if (isOver(w, base)) return
    if (
      (flags & OP_INV) !== 0 &&
      !s.env.memory.invalidate(w[base + PD], w[base + QPN], ext.iethRkey(arena.view, at + IETH_AT[opcode]))
    ) {
      onInvalidateFailed(s, row, arena, at)
      return
    }
    deliver(s, row, arena, at, opcode, flags, RECV)
  }
  taken(s, row, arena, at, ends)
}

/** The data is there but the key could not be revoked: acknowledged, then in error (class J, as Linux does). */
const onInvalidateFailed = (s: EngineState, row: number, arena: Arena, at: number): void => {
  taken(s, row, arena, at, true)
  failReceive(s, row, REM_INV_REQ_ERR)
}

/** Whether what was done last ended the QP, or dropped the message under way. */
const isOver = (w: Int32Array, base: number): boolean =>
  w[base + STATE] === ERR || (w[base + RESPONDER] & DROPPING) !== 0

/** Completes the receive request in use with the message that ends in this packet. */
const deliver = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  opcode: number,
  flags: number,
  completion: number,
): void => {
  const base = row * WORDS
  const receive = s.rows[base + RECEIVE]
  const view = arena.view
  const imm = (flags & OP_IMM) !== 0 ? ext.immediate(view, at + IMM_AT[opcode]) : 0
  const value = (flags & OP_INV) !== 0 ? ext.iethRkey(view, at + IETH_AT[opcode]) : imm
  const wcFlags = (flags & OP_IMM) !== 0 ? WITH_IMM : (flags & OP_INV) !== 0 ? WITH_INV : 0
  s.rows[base + RECEIVE] = 0
  const bytes = s.rows[base + DONE]
  completeReceive(s, row, receive, SUCCESS, completion, bytes, value, wcFlags, bthSolicited(view, at))
  giveBlock(s, s.rows[base + RECV_BLOCK], receive)
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
  const w = s.rows
  const base = row * WORDS
  if ((flags & OP_START) !== 0) {
    const refusal = beginWrite(s, row, arena, at + RETH_AT[opcode], flags, payload)
    if (refusal !== 0) {
      refuse(s, row, refusal, REM_INV_REQ_ERR)
      return
    }
  } else if ((flags & OP_LAST) !== 0 ? payload !== w[base + WRITE_LEFT] >>> 0 : payload >= w[base + WRITE_LEFT] >>> 0) {
    refuse(s, row, INVALID_REQUEST, REM_INV_REQ_ERR)
    return
  }
  if ((flags & OP_IMM) !== 0 && !needReceive(s, row)) return
  if (payload > 0) {
    const from = at + HEADER_BYTES[opcode]
    if ((flags & OP_ONLY) === 0) {
      if (!putWrite(s, row, arena, from, payload, payload, 1)) return
    } else {
      const hi = w[base + WRITE_HI] >>> 0
      const lo = w[base + WRITE_LO] >>> 0
      const key = w[base + WRITE_KEY] >>> 0
      const why = putNow(s, row, key, Access.REMOTE_WRITE, hi, lo, arena, from, payload)
      if (!wroteWrite(s, row, why, payload)) return
    }
  }
  w[base + DONE] = (flags & OP_START) !== 0 ? payload : w[base + DONE] + payload
  const ends = (flags & OP_END) !== 0
  if (!ends) w[base + MESSAGE] = WRITE
  else if ((flags & OP_IMM) !== 0) {
    flushMoves(s)
    if (isOver(w, base)) return
    deliver(s, row, arena, at, opcode, flags, RECV_RDMA_WITH_IMM)
  }
  taken(s, row, arena, at, ends)
}

/** What the first word of a plain packet's BTH may not differ in: opcode, pad, version and the base of the P_Key. */
const PLAIN_MASK = 0xff3f_7fff | 0
const PLAIN_PKEY = DEFAULT_PKEY & 0x7fff

/**
 * The short way for most packets of a long message: takes as many of `count` packets, back to back and `size` bytes
 * each, as are just the MIDDLEs that come next in the WRITE under way. Answers how many; the next one, if any, needs
 * the long way (`onRequest`).
 */
export const onMiddles = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  size: number,
  count: number,
): number => {
  const w = s.rows
  const base = row * WORDS
  const mtu = w[base + MTU]
  const opcode = serviceBits[w[base + SERVICE]] | operationCode.WRITE_MIDDLE
  const head = HEADER_BYTES[opcode]
  if (w[base + MESSAGE] !== WRITE || size !== head + mtu + ICRC_BYTES) return 0
  const left = w[base + WRITE_LEFT] >>> 0
  // the packet that the message ends with is none
  const inside = Math.ceil(left / mtu) - 1
  const most = inside < count ? inside : count
  const view = arena.view
  const qpn = w[base + QPN]
  const first = (opcode << 24) | PLAIN_PKEY
  const shared = XRCETH_AT[opcode]
  let psn = w[base + EXPECTED]
  let third = 0
  let taken = 0
  for (let from = at; taken < most; taken++, from += size) {
    const word = view.getUint32(from + 8)
    if ((view.getUint32(from) & PLAIN_MASK) !== first || bthDestQp(view, from) !== qpn || (word & PSN_MASK) !== psn)
      break
    if (shared !== 0 && ext.xrcethSrq(view, from + shared) !== w[base + SRQN]) break
    third |= word
    psn = (psn + 1) & PSN_MASK
  }
  if (taken === 0) return 0
  w[base + RESPONDER] &= ~(NAK_SENT | NAK_DUE)
  if (!putWrite(s, row, arena, at + head, mtu, size, taken)) return taken
  w[base + DONE] += mtu * taken
  w[base + EXPECTED] = psn
  if ((third & BTH_ACKREQ) !== 0 && reliableService[w[base + SERVICE]] !== 0) {
    w[base + RESPONDER] |= ACK_DUE
    schedule(s, row)
  }
  return taken
}

/** Payloads of the WRITE under way, `pieces` of `chunk` bytes; false if that ended the QP. */
const putWrite = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  chunk: number,
  stride: number,
  pieces: number,
): boolean => {
  const w = s.rows
  const base = row * WORDS
  const hi = w[base + WRITE_HI] >>> 0
  const lo = w[base + WRITE_LO] >>> 0
  const key = w[base + WRITE_KEY] >>> 0
  const psn = w[base + EXPECTED]
  const why = putPieces(
    s,
    row,
    MoveKind.WRITE,
    key,
    Access.REMOTE_WRITE,
    hi,
    lo,
    arena,
    at,
    chunk,
    stride,
    pieces,
    psn,
    w[base + MSN],
  )
  return wroteWrite(s, row, why, chunk * pieces)
}

/**
 * After a move of `length` bytes of the WRITE under way: its cursor moves on, or the QP ends and the answer is false.
 */
const wroteWrite = (s: EngineState, row: number, why: number, length: number): boolean => {
  const w = s.rows
  const base = row * WORDS
  // an earlier move may have failed on the way
  if (isOver(w, base)) return false
  if (why !== Moved.OK) {
    refuse(s, row, why === Moved.NO_REGION ? REMOTE_ACCESS : REMOTE_OPERATION, LOC_ACCESS_ERR)
    return false
  }
  const lo = w[base + WRITE_LO] >>> 0
  const next = lo + length
  w[base + WRITE_LO] = next | 0
  if (next > 0xffff_ffff) w[base + WRITE_HI] = (w[base + WRITE_HI] + 1) | 0
  w[base + WRITE_LEFT] = ((w[base + WRITE_LEFT] >>> 0) - length) | 0
  return true
}

/** A WRITE begins: rights, length and the whole of its range; 0 or the NAK. `at`: its RETH. */
const beginWrite = (s: EngineState, row: number, arena: Arena, at: number, flags: number, payload: number): number => {
  const w = s.rows
  const base = row * WORDS
  const view = arena.view
  const length = ext.rethDmaLen(view, at)
  if ((w[base + ACCESS] & Access.REMOTE_WRITE) === 0 || length > MAX_MESSAGE_BYTES) return INVALID_REQUEST
  if ((flags & OP_FIRST) !== 0 ? length <= payload : length !== payload) return INVALID_REQUEST
  const hi = ext.rethVaHi(view, at)
  const lo = ext.rethVaLo(view, at)
  const key = ext.rethRkey(view, at)
  // one packet is checked when it is written
  if ((flags & OP_FIRST) !== 0) {
    if (s.env.memory.resolve(w[base + PD], key, hi, lo, length, Access.REMOTE_WRITE, w[base + QPN]) < 0)
      return REMOTE_ACCESS
  }
  w[base + WRITE_HI] = hi
  w[base + WRITE_LO] = lo
  w[base + WRITE_KEY] = key
  w[base + WRITE_LEFT] = length
  return 0
}
