/*
 * The sending half of the responder: READ responses and atomic ACKs, then the scheduled NAK or ACK, in PSN order
 * (InfiniBand Architecture Specification, volume 1, clauses 9.7.5.1 and 9.7.7). The data of a READ is read from memory
 * run by run, so a long READ does not delay other queue pairs. One cumulative ACK acknowledges a burst of packets.
 * state.ts explains short names such as `row`, `base` and `request`.
 */

import { CREDITS_UNLIMITED, ICRC_BYTES, nakCode, syndromeKind } from '../../../spec/wire/headers.ts'
import { opcodeHeaderBytes, operationCode } from '../../../spec/wire/opcodes.ts'
import { serviceBits } from '../../../spec/wire/services.ts'
import { SendKind } from '../../../spec/work.ts'
import { BTH_PAD_SHIFT, putBth } from '../../wire/bth.ts'
import { putAeth, putAtomicAck } from '../../wire/extensions.ts'
import { upperWord } from '../address.ts'
import { noteMemoryFault, noteRefusedKey, takeCause } from '../causes.ts'
import { sendCnp, withinRate } from '../congestion/congestion.ts'
import { QP, RES, RespFlag } from '../fields.ts'
import { PSN_MASK, psnAdd } from '../psn.ts'
import { acceptRun, continueRun, openRun, openRunWithFirst } from '../run.ts'
import { PollResult } from '../scheduling.ts'
import { type EngineState, pkeyOf } from '../state.ts'
import { Access } from '../types.ts'
import { nakAt, nakDuplicate } from './nak.ts'

const { NONE, ATOMIC } = SendKind
const ACK = operationCode.ACKNOWLEDGE
const ATOMIC_ACK = operationCode.ATOMIC_ACK
const READ_FIRST = operationCode.READ_RESP_FIRST
const READ_MIDDLE = operationCode.READ_RESP_MIDDLE
const READ_LAST = operationCode.READ_RESP_LAST
const READ_ONLY = operationCode.READ_RESP_ONLY
const HEADER_BYTES = opcodeHeaderBytes
/** AETH syndrome of ACKs and responses: no end-to-end flow control credits. */
const ACK_SYNDROME = syndromeKind.ACK | CREDITS_UNLIMITED
/** Header bytes of a READ response MIDDLE, and of all other READ responses. */
const BTH_BYTES = 12
const BTH_AETH_BYTES = 16
/** A poll of a QP ends after so many bytes of responses. */
const QUANTUM = 0x1_0000

/** Sends the CNP that is due, pending responses of a QP, then the ACK or NAK that is due. Returns a PollResult. */
export const transmitResponses = (s: EngineState, row: number): number => {
  const base = row * QP.WORDS
  let budget = QUANTUM
  if ((s.rows[base + QP.RESP_FLAGS] & RespFlag.CNP_DUE) !== 0 && !sendCnp(s, base)) return PollResult.FULL
  while (s.rows[base + QP.RESP_PENDING] > 0) {
    if (s.paceLeft <= 0) return PollResult.DONE
    if (budget <= 0 || s.isPaused) return PollResult.MORE
    const resource = oldestPending(s, base)
    if (s.env.memory.isScattered?.(s.pool[resource + RES.PD]) === true) s.isPaused = true
    const sent =
      s.pool[resource + RES.KIND] === ATOMIC ? sendAtomicAck(s, base, resource) : sendReadResponses(s, row, resource)
    if (sent === 0) return PollResult.FULL
    budget -= sent
  }
  const due = s.rows[base + QP.RESP_FLAGS] & (RespFlag.NAK_DUE | RespFlag.ACK_DUE)
  if (due === 0) return PollResult.DONE
  const isNak = (due & RespFlag.NAK_DUE) !== 0
  if (s.env.choices?.holdsAcknowledge(row, isNak, s.rows[base + QP.RESP_MSN])) return PollResult.DONE
  return sendAcknowledge(s, base, due) ? PollResult.DONE : PollResult.FULL
}

/** The oldest resource with responses to send. */
const oldestPending = (s: EngineState, base: number): number => {
  const w = s.rows
  const p = s.pool
  const count = w[base + QP.RESP_RESOURCE_COUNT]
  let index = w[base + QP.RESP_RESOURCE_NEXT]
  for (let remaining = count; remaining > 0; remaining--) {
    const resource = w[base + QP.RESP_RESOURCES] + index * RES.WORDS
    if (p[resource + RES.KIND] !== NONE && p[resource + RES.NEXT] < p[resource + RES.END]) return resource
    index = index + 1 === count ? 0 : index + 1
  }
  throw new Error(`RESP_PENDING of a QP row is ${w[base + QP.RESP_PENDING]}, but no resource has responses to send`)
}

/** Records that the responses before number `next` were sent. */
const markSent = (s: EngineState, base: number, resource: number, next: number): void => {
  s.pool[resource + RES.NEXT] = next
  if (next === s.pool[resource + RES.END]) s.rows[base + QP.RESP_PENDING]--
}

/** Sends the response to an atomic. Returns its bytes; 0: the port is full. */
const sendAtomicAck = (s: EngineState, base: number, resource: number): number => {
  const w = s.rows
  const p = s.pool
  const opcode = serviceBits[w[base + QP.SERVICE]] | ATOMIC_ACK
  const size = HEADER_BYTES[opcode] + ICRC_BYTES
  if (openRun(s, size, w[base + QP.FLOW], 1) === 0) return 0
  const at = s.result.runAt
  const view = s.sink!.arena.view
  putBth(view, at, opcode, 0, pkeyOf(s, base), w[base + QP.DEST_QPN], p[resource + RES.FIRST_PSN])
  putAeth(view, at + BTH_BYTES, ACK_SYNDROME, p[resource + RES.MSN])
  putAtomicAck(view, at + BTH_AETH_BYTES, p[resource + RES.DATA_HI], p[resource + RES.DATA_LO])
  acceptRun(s, 1, size, size)
  markSent(s, base, resource, 1)
  return size
}

/** Returned instead of a number of bytes if memory could not be read, and a NAK is scheduled. */
const NAK_SCHEDULED = 1

/** Sends READ responses, as many as fit in one run. Returns their bytes or NAK_SCHEDULED; 0: the port is full. */
const sendReadResponses = (s: EngineState, row: number, resource: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const mtu = w[base + QP.MTU]
  const next = p[resource + RES.NEXT]
  const end = p[resource + RES.END]
  const offset = (next - p[resource + RES.BASE]) * mtu
  const payload = p[resource + RES.READ_LENGTH] - offset
  const isLast = next + 1 === end
  // The repetition of a later part of a READ has no FIRST.
  const isFirst = next === 0
  if (!isLast)
    return isFirst ? sendReadFirst(s, row, resource, end) : sendReadMiddles(s, row, resource, next, end, offset)
  const opcode = serviceBits[w[base + QP.SERVICE]] | (isFirst ? READ_ONLY : READ_LAST)
  const pad = -payload & 3
  const size = BTH_AETH_BYTES + payload + pad + ICRC_BYTES
  if (openRun(s, size, w[base + QP.FLOW], 1) === 0) return 0
  const at = s.result.runAt
  const arena = s.sink!.arena
  // a response acknowledges earlier WRITEs too; reading memory completes them, but here nothing is read
  if (payload === 0) s.env.memory.completeWrites?.(w[base + QP.QPN])
  else if (!fillReadResponses(s, row, resource, next, offset, at + BTH_AETH_BYTES, payload, payload, payload))
    return NAK_SCHEDULED
  for (let i = 0; i < pad; i++) arena.bytes[at + BTH_AETH_BYTES + payload + i] = 0
  const psn = psnAdd(p[resource + RES.FIRST_PSN], next)
  putBth(arena.view, at, opcode, pad << BTH_PAD_SHIFT, pkeyOf(s, base), w[base + QP.DEST_QPN], psn)
  putAeth(arena.view, at + BTH_BYTES, ACK_SYNDROME, p[resource + RES.MSN])
  acceptRun(s, 1, size, size)
  markSent(s, base, resource, next + 1)
  return size
}

/** Of `wanted` packets of `size` bytes those that may be sent now: one from scattered memory. */
const responsesAllowed = (s: EngineState, wanted: number, size: number): number =>
  s.isPaused ? 1 : withinRate(s, wanted, size)

/**
 * Sends a READ response FIRST and the MIDDLEs after it, all filled by one read of memory. `end`: RES.END. Returns as
 * `sendReadResponses`.
 */
const sendReadFirst = (s: EngineState, row: number, resource: number, end: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const mtu = w[base + QP.MTU]
  const firstSize = BTH_AETH_BYTES + mtu + ICRC_BYTES
  const size = BTH_BYTES + mtu + ICRC_BYTES
  const middles = openRunWithFirst(s, firstSize, size, w[base + QP.FLOW], responsesAllowed(s, end - 1, size) - 1)
  if (middles < 0) return 0
  const at = s.result.runAt
  const view = s.sink!.arena.view
  if (!fillReadResponses(s, row, resource, 0, 0, at + BTH_AETH_BYTES, mtu, size, (1 + middles) * mtu))
    return NAK_SCHEDULED
  const opcode = serviceBits[w[base + QP.SERVICE]] | READ_FIRST
  putBth(view, at, opcode, 0, pkeyOf(s, base), w[base + QP.DEST_QPN], p[resource + RES.FIRST_PSN])
  putAeth(view, at + BTH_BYTES, ACK_SYNDROME, p[resource + RES.MSN])
  acceptRun(s, 1, firstSize, firstSize)
  if (middles > 0) {
    continueRun(s, size)
    putMiddles(s, base, resource, 1, middles)
  }
  markSent(s, base, resource, 1 + middles)
  return firstSize + middles * size
}

/**
 * Sends READ response MIDDLEs from number `next` on. `end`: RES.END. `offset`: bytes from RES.DATA to the data of the
 * first MIDDLE. Returns as `sendReadResponses`.
 */
const sendReadMiddles = (
  s: EngineState,
  row: number,
  resource: number,
  next: number,
  end: number,
  offset: number,
): number => {
  const w = s.rows
  const base = row * QP.WORDS
  const mtu = w[base + QP.MTU]
  const size = BTH_BYTES + mtu + ICRC_BYTES
  const count = openRun(s, size, w[base + QP.FLOW], responsesAllowed(s, end - 1 - next, size))
  if (count === 0) return 0
  if (!fillReadResponses(s, row, resource, next, offset, s.result.runAt + BTH_BYTES, mtu, size, count * mtu))
    return NAK_SCHEDULED
  putMiddles(s, base, resource, next, count)
  markSent(s, base, resource, next + count)
  return count * size
}

/** Writes the headers of `count` MIDDLEs, from response number `next` on, and adds the packets to the run. */
const putMiddles = (s: EngineState, base: number, resource: number, next: number, count: number): void => {
  const w = s.rows
  const size = BTH_BYTES + w[base + QP.MTU] + ICRC_BYTES
  const view = s.sink!.arena.view
  const opcode = serviceBits[w[base + QP.SERVICE]] | READ_MIDDLE
  const pkey = pkeyOf(s, base)
  const qpn = w[base + QP.DEST_QPN]
  let psn = psnAdd(s.pool[resource + RES.FIRST_PSN], next)
  for (let i = 0, at = s.result.runAt; i < count; i++, at += size) {
    putBth(view, at, opcode, 0, pkey, qpn, psn)
    psn = (psn + 1) & PSN_MASK
  }
  acceptRun(s, count, size, size)
}

/**
 * Reads memory into the payloads of responses, from response number `next` on: `total` bytes from `offset` bytes after
 * the address RES.DATA on. They go to the sink's arena from `at` on, in chunks of `chunk` bytes, one every `stride`
 * bytes. False if reading fails: the QP goes to ERR, and a NAK is sent instead of the responses.
 */
const fillReadResponses = (
  s: EngineState,
  row: number,
  resource: number,
  next: number,
  offset: number,
  at: number,
  chunk: number,
  stride: number,
  total: number,
): boolean => {
  const p = s.pool
  const memory = s.env.memory
  const sum = p[resource + RES.DATA_LO] + offset
  const hi = upperWord(p[resource + RES.DATA_HI], sum)
  const lo = sum >>> 0
  const pd = p[resource + RES.PD]
  const qpn = s.rows[row * QP.WORDS + QP.QPN]
  const region = memory.resolve(pd, p[resource + RES.KEY], hi, lo, total, Access.REMOTE_READ, qpn)
  if (region >= 0 && memory.read(region, hi, lo, s.sink!.arena, at, chunk, stride, total) === 0) return true
  if (region < 0) noteRefusedKey(s, pd, p[resource + RES.KEY], hi, lo, total, Access.REMOTE_READ, qpn)
  else noteMemoryFault(s, p[resource + RES.KEY], hi, lo, total, Access.REMOTE_READ)
  const cause = takeCause(s)
  const psn = psnAdd(p[resource + RES.FIRST_PSN], next)
  const syndrome = syndromeKind.NAK | (region < 0 ? nakCode.REMOTE_ACCESS : nakCode.REMOTE_OPERATION)
  if (p[resource + RES.REPLAY] !== 0) {
    markSent(s, row * QP.WORDS, resource, p[resource + RES.END])
    nakDuplicate(s, row, psn, p[resource + RES.MSN], syndrome)
    return false
  }
  s.rows[row * QP.WORDS + QP.RESP_PENDING] = 0
  nakAt(s, row, psn, p[resource + RES.MSN], syndrome, cause)
  return false
}

/** Sends the ACK or NAK that is due; false if the port is full. */
const sendAcknowledge = (s: EngineState, base: number, due: number): boolean => {
  const w = s.rows
  const opcode = serviceBits[w[base + QP.SERVICE]] | ACK
  const size = HEADER_BYTES[opcode] + ICRC_BYTES
  if (openRun(s, size, w[base + QP.FLOW], 1) === 0) return false
  const at = s.result.runAt
  const view = s.sink!.arena.view
  if ((due & RespFlag.NAK_DUE) !== 0) {
    putBth(view, at, opcode, 0, pkeyOf(s, base), w[base + QP.DEST_QPN], w[base + QP.RESP_NAK_PSN])
    putAeth(view, at + BTH_BYTES, w[base + QP.RESP_NAK_SYNDROME], w[base + QP.RESP_NAK_MSN])
  } else {
    putBth(view, at, opcode, 0, pkeyOf(s, base), w[base + QP.DEST_QPN], (w[base + QP.RESP_EPSN] - 1) & PSN_MASK)
    putAeth(view, at + BTH_BYTES, ACK_SYNDROME, w[base + QP.RESP_MSN])
  }
  acceptRun(s, 1, size, size)
  w[base + QP.RESP_FLAGS] &= ~(RespFlag.NAK_DUE | RespFlag.ACK_DUE)
  return true
}
