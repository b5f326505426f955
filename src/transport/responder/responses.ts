/*
 * The sending half of the responder: READ responses and atomic ACKs, then the scheduled NAK or ACK, in PSN order
 * (InfiniBand Architecture Specification, volume 1, clauses 9.7.5.1 and 9.7.7). The data of a READ is read from memory
 * run by run as the port accepts runs, so a READ of 2 GiB neither fills the port nor delays other queue pairs. One
 * cumulative ACK acknowledges a whole burst of packets.
 */

import { CREDITS_NONE, DEFAULT_PKEY, ICRC_BYTES, nakCode, syndromeKind } from '../../spec/wire/headers.ts'
import { opcodeHeaderBytes, operationCode } from '../../spec/wire/opcodes.ts'
import { serviceBits } from '../../spec/wire/services.ts'
import { SendKind } from '../../spec/work.ts'
import { BTH_PAD_SHIFT, putBth } from '../../wire/bth.ts'
import { putAeth, putAtomicAck } from '../../wire/extensions.ts'
import { upperWord } from '../address.ts'
import { noteMemoryFault, noteRefusedKey, takeCause } from '../causes.ts'
import { QP, RES, RespFlag } from '../fields.ts'
import { PSN_MASK, psnAdd } from '../psn.ts'
import { acceptRun, continueRun, openRun, openRunWithFirst } from '../run.ts'
import { Turn } from '../scheduling.ts'
import type { EngineState } from '../state.ts'
import { Access } from '../types.ts'
import { nakAt } from './nak.ts'

const { NONE, ATOMIC } = SendKind
const ACK = operationCode.ACKNOWLEDGE
const ATOMIC_ACK = operationCode.ATOMIC_ACK
const READ_FIRST = operationCode.READ_RESP_FIRST
const READ_MIDDLE = operationCode.READ_RESP_MIDDLE
const READ_LAST = operationCode.READ_RESP_LAST
const READ_ONLY = operationCode.READ_RESP_ONLY
const HEADER_BYTES = opcodeHeaderBytes
const POSITIVE = syndromeKind.ACK | CREDITS_NONE
const BTH = 12
const AETH_END = 16
/** Bytes of responses that a QP sends per poll. */
const QUANTUM = 0x1_0000

/** Sends the pending responses of a QP. Returns as `transmitRequests`. */
export const transmitResponses = (s: EngineState, row: number): number => {
  const base = row * QP.WORDS
  let budget = QUANTUM
  while (s.rows[base + QP.RESP_PENDING] > 0) {
    if (budget <= 0) return Turn.MORE
    const resource = oldestPending(s, base)
    const sent =
      s.pool[resource + RES.KIND] === ATOMIC ? sendAtomicAck(s, base, resource) : sendReadPart(s, row, resource)
    if (sent === 0) return Turn.FULL
    budget -= sent
  }
  const due = s.rows[base + QP.RESP_FLAGS] & (RespFlag.NAK_DUE | RespFlag.ACK_DUE)
  if (due === 0) return Turn.DONE
  if (s.env.choices?.holdsAcknowledge(row, (due & RespFlag.NAK_DUE) !== 0)) return Turn.DONE
  return sendAcknowledge(s, base, due) ? Turn.DONE : Turn.FULL
}

/** The oldest resource with responses to send. */
const oldestPending = (s: EngineState, base: number): number => {
  const w = s.rows
  const p = s.pool
  const count = w[base + QP.RESP_RESOURCE_COUNT]
  let index = w[base + QP.RESP_RESOURCE_NEXT]
  for (let left = count; left > 0; left--) {
    const resource = w[base + QP.RESP_RESOURCES] + index * RES.WORDS
    if (p[resource + RES.KIND] !== NONE && p[resource + RES.NEXT] < p[resource + RES.END]) return resource
    index = index + 1 === count ? 0 : index + 1
  }
  throw new Error(`RESP_PENDING of a QP row is ${w[base + QP.RESP_PENDING]}, but no resource has responses to send`)
}

/** Records that responses up to `next` were sent. */
const markSent = (s: EngineState, base: number, resource: number, next: number): void => {
  s.pool[resource + RES.NEXT] = next
  if (next === s.pool[resource + RES.END]) s.rows[base + QP.RESP_PENDING]--
}

const sendAtomicAck = (s: EngineState, base: number, resource: number): number => {
  const w = s.rows
  const p = s.pool
  const opcode = serviceBits[w[base + QP.SERVICE]] | ATOMIC_ACK
  const size = HEADER_BYTES[opcode] + ICRC_BYTES
  if (openRun(s, size, w[base + QP.FLOW], 1) === 0) return 0
  const at = s.result.runAt
  const view = s.sink!.arena.view
  putBth(view, at, opcode, 0, DEFAULT_PKEY, w[base + QP.DEST_QPN], p[resource + RES.FIRST_PSN])
  putAeth(view, at + BTH, POSITIVE, p[resource + RES.MSN])
  putAtomicAck(view, at + AETH_END, p[resource + RES.DATA_HI], p[resource + RES.DATA_LO])
  acceptRun(s, 1, size, size)
  markSent(s, base, resource, 1)
  return size
}

/** Sends READ responses of one size, as many as fit in one run. Returns their bytes, 0 if the port is full. */
const sendReadPart = (s: EngineState, row: number, resource: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const mtu = w[base + QP.MTU]
  const next = p[resource + RES.NEXT]
  const end = p[resource + RES.END]
  const offset = (next - p[resource + RES.BASE]) * mtu
  const rest = p[resource + RES.READ_LENGTH] - offset
  const ends = next + 1 === end
  // The opcode tells the position in the original response, also when a part is repeated.
  const begins = next === 0
  if (!ends) return begins ? sendReadFirst(s, row, resource, end) : sendReadMiddle(s, row, resource, next, end, offset)
  const opcode = serviceBits[w[base + QP.SERVICE]] | (begins ? READ_ONLY : READ_LAST)
  const payload = rest
  const pad = -payload & 3
  const size = AETH_END + payload + pad + ICRC_BYTES
  if (openRun(s, size, w[base + QP.FLOW], 1) === 0) return 0
  const at = s.result.runAt
  const arena = s.sink!.arena
  if (payload > 0 && !fillReadResponses(s, row, resource, next, offset, at + AETH_END, payload, payload, payload))
    return 1
  for (let i = 0; i < pad; i++) arena.bytes[at + AETH_END + payload + i] = 0
  const psn = psnAdd(p[resource + RES.FIRST_PSN], next)
  putBth(arena.view, at, opcode, pad << BTH_PAD_SHIFT, DEFAULT_PKEY, w[base + QP.DEST_QPN], psn)
  putAeth(arena.view, at + BTH, POSITIVE, p[resource + RES.MSN])
  acceptRun(s, 1, size, size)
  markSent(s, base, resource, next + 1)
  return size
}

/** Sends a READ response FIRST, which has an AETH, and the MIDDLEs after it, all filled by one read. */
const sendReadFirst = (s: EngineState, row: number, resource: number, end: number): number => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  const mtu = w[base + QP.MTU]
  const lead = AETH_END + mtu + ICRC_BYTES
  const size = BTH + mtu + ICRC_BYTES
  const more = openRunWithFirst(s, lead, size, w[base + QP.FLOW], end - 2)
  if (more < 0) return 0
  const at = s.result.runAt
  const view = s.sink!.arena.view
  if (!fillReadResponses(s, row, resource, 0, 0, at + AETH_END, mtu, size, (1 + more) * mtu)) return 1
  const opcode = serviceBits[w[base + QP.SERVICE]] | READ_FIRST
  putBth(view, at, opcode, 0, DEFAULT_PKEY, w[base + QP.DEST_QPN], p[resource + RES.FIRST_PSN])
  putAeth(view, at + BTH, POSITIVE, p[resource + RES.MSN])
  acceptRun(s, 1, lead, lead)
  if (more > 0) {
    continueRun(s, size)
    putMiddles(s, base, resource, 1, more)
  }
  markSent(s, base, resource, 1 + more)
  return lead + more * size
}

const sendReadMiddle = (
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
  const size = BTH + mtu + ICRC_BYTES
  const count = openRun(s, size, w[base + QP.FLOW], end - 1 - next)
  if (count === 0) return 0
  if (!fillReadResponses(s, row, resource, next, offset, s.result.runAt + BTH, mtu, size, count * mtu)) return 1
  putMiddles(s, base, resource, next, count)
  markSent(s, base, resource, next + count)
  return count * size
}

/** Writes the headers of `count` MIDDLEs in the run, starting with response number `next`. */
const putMiddles = (s: EngineState, base: number, resource: number, next: number, count: number): void => {
  const w = s.rows
  const size = BTH + w[base + QP.MTU] + ICRC_BYTES
  const view = s.sink!.arena.view
  const opcode = serviceBits[w[base + QP.SERVICE]] | READ_MIDDLE
  const qpn = w[base + QP.DEST_QPN]
  let psn = psnAdd(s.pool[resource + RES.FIRST_PSN], next)
  for (let i = 0, to = s.result.runAt; i < count; i++, to += size) {
    putBth(view, to, opcode, 0, DEFAULT_PKEY, qpn, psn)
    psn = (psn + 1) & PSN_MASK
  }
  acceptRun(s, count, size, size)
}

/**
 * Reads memory for responses from number `next` on. If that fails, the QP goes to ERR, and a NAK is sent instead of the
 * responses.
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
  const end = p[resource + RES.DATA_LO] + offset
  const hi = upperWord(p[resource + RES.DATA_HI], end)
  const lo = end >>> 0
  const pd = p[resource + RES.PD]
  const qp = s.rows[row * QP.WORDS + QP.QPN]
  const region = memory.resolve(pd, p[resource + RES.KEY], hi, lo, total, Access.REMOTE_READ, qp)
  if (region >= 0 && memory.read(region, hi, lo, s.sink!.arena, at, chunk, stride, total) === 0) return true
  if (region < 0) noteRefusedKey(s, pd, p[resource + RES.KEY], hi, lo, total, Access.REMOTE_READ, qp)
  else noteMemoryFault(s, p[resource + RES.KEY], hi, lo, total, Access.REMOTE_READ)
  const psn = psnAdd(p[resource + RES.FIRST_PSN], next)
  dropPending(s, row * QP.WORDS)
  const code = region < 0 ? nakCode.REMOTE_ACCESS : nakCode.REMOTE_OPERATION
  nakAt(s, row, psn, syndromeKind.NAK | code, takeCause(s))
  return false
}

/** Drops all responses that were not sent yet. */
const dropPending = (s: EngineState, base: number): void => {
  const w = s.rows
  let resource = w[base + QP.RESP_RESOURCES]
  for (let left = resource === 0 ? 0 : w[base + QP.RESP_RESOURCE_COUNT]; left > 0; left--, resource += RES.WORDS)
    s.pool[resource + RES.KIND] = NONE
  w[base + QP.RESP_PENDING] = 0
}

/** Sends one ACK for everything received, or the NAK; false if the port is full. */
const sendAcknowledge = (s: EngineState, base: number, due: number): boolean => {
  const w = s.rows
  const opcode = serviceBits[w[base + QP.SERVICE]] | ACK
  const size = HEADER_BYTES[opcode] + ICRC_BYTES
  if (openRun(s, size, w[base + QP.FLOW], 1) === 0) return false
  const at = s.result.runAt
  const view = s.sink!.arena.view
  if ((due & RespFlag.NAK_DUE) !== 0) {
    putBth(view, at, opcode, 0, DEFAULT_PKEY, w[base + QP.DEST_QPN], w[base + QP.RESP_NAK_PSN])
    putAeth(view, at + BTH, w[base + QP.RESP_NAK_SYNDROME], w[base + QP.RESP_NAK_MSN])
  } else {
    putBth(view, at, opcode, 0, DEFAULT_PKEY, w[base + QP.DEST_QPN], (w[base + QP.RESP_EPSN] - 1) & PSN_MASK)
    putAeth(view, at + BTH, POSITIVE, w[base + QP.RESP_MSN])
  }
  acceptRun(s, 1, size, size)
  w[base + QP.RESP_FLAGS] &= ~(RespFlag.NAK_DUE | RespFlag.ACK_DUE)
  return true
}
