/*
 * How a send request begins (InfiniBand Architecture Specification, volume 1, clauses 10.7.2.2 and 11.4.1.1): it is
 * copied from the program's queue, summed up, looked through for mistakes of the program's own, given its PSNs, and put
 * at the end of the requests under way. When and how it is sent is requester.ts' business.
 */
import { MAX_MESSAGE_BYTES, SendFlags, SendKind, WcStatus } from '../spec/work.ts'
import { ATOMIC_WRITE_BYTES, isFlushKnown } from './asking.ts'
import { checkElements, Moved } from './moves.ts'
import { kindOf, operationOf } from './operations.ts'
import { maxSendSge, sendBlock } from './shape.ts'
import { type EngineState, giveBlock, Q, Request, Row, takeBlock } from './state.ts'
import { Access, Flush, Send, Sge } from './types.ts'

const { WORDS, SERVICE, MTU, MAX_RD, REQUESTER, NEXT_INDEX } = Row
const { HEAD, TAIL, CURRENT, SEND_PSN, SENT } = Row
const { NEXT, FIRST_PSN, PSNS, START, KIND, COUNTED, STATUS, DONE, WR } = Request
const { OPCODE, FLAGS, SGES, LENGTH, REFUSED } = Send
const { MORE } = Q
const { NONE, LOCAL, READ, ATOMIC, FLUSH, ATOMIC_WRITE } = SendKind
const { LOC_LEN_ERR, LOC_QP_OP_ERR, LOC_PROT_ERR } = WcStatus.values
const { INLINE } = SendFlags.values

/** Loads the next posted request, checks it, and puts it at the end of the list; 0 if there is none. */
export const start = (s: EngineState, row: number): number => {
  const base = row * WORDS
  const size = sendBlock(s.rows, base)
  const request = takeBlock(s, size)
  const p = s.pool
  const w = s.rows
  if (!s.env.work.loadSend(row, w[base + NEXT_INDEX] >>> 0, p, request + WR)) {
    giveBlock(s, size, request)
    w[base + REQUESTER] &= ~MORE
    return 0
  }
  w[base + NEXT_INDEX]++
  p[request + STATUS] = check(s, row, request)
  const length = p[request + WR + LENGTH]
  const kind = p[request + KIND]
  p[request + NEXT] = 0
  p[request + FIRST_PSN] = w[base + SEND_PSN]
  p[request + PSNS] = kind === LOCAL ? 0 : kind >= ATOMIC || length === 0 ? 1 : Math.ceil(length / w[base + MTU])
  p[request + DONE] = 0
  p[request + START] = w[base + SENT]
  p[request + COUNTED] = 0
  if (w[base + HEAD] === 0) w[base + HEAD] = request
  else p[w[base + TAIL] + NEXT] = request
  w[base + TAIL] = request
  w[base + CURRENT] = request
  return request
}

/** Whether a request of this kind has inline data that it cannot have. */
const isForeign = (kind: number, inline: boolean): boolean => inline && kind >= READ && kind !== ATOMIC_WRITE

/** Sums a request up and looks for local mistakes: 0, or the status with which it must end. */
const check = (s: EngineState, row: number, request: number): number => {
  const p = s.pool
  const base = row * WORDS
  const wr = request + WR
  const kind = kindOf[operationOf(s.rows[base + SERVICE], p[wr + OPCODE])]
  p[request + KIND] = kind
  const refused = p[wr + REFUSED]
  const count = p[wr + SGES]
  const inline = (p[wr + FLAGS] & INLINE) !== 0
  if (refused !== 0 || kind === NONE || (!inline && count > maxSendSge(s.rows, base)) || isForeign(kind, inline)) {
    p[wr + LENGTH] = 0
    return refused !== 0 ? refused : LOC_QP_OP_ERR
  }
  if (kind >= READ && s.rows[base + MAX_RD] === 0) {
    p[wr + LENGTH] = 0
    return LOC_QP_OP_ERR
  }
  if (kind === LOCAL || kind === FLUSH) {
    p[wr + LENGTH] = kind === FLUSH ? p[wr + Flush.LENGTH] : 0 // for the completion, as Linux has it
    return kind === FLUSH && !isFlushKnown(s, request) ? LOC_QP_OP_ERR : 0
  }
  if (!inline) {
    let sum = 0
    for (let i = 0, at = wr + Send.SGE; i < count; i++, at += Sge.WORDS) sum += p[at + Sge.LENGTH]
    if (sum > MAX_MESSAGE_BYTES) {
      p[wr + LENGTH] = 0
      return LOC_LEN_ERR
    }
    p[wr + LENGTH] = sum
  } else if (p[wr + LENGTH] > MAX_MESSAGE_BYTES) {
    p[wr + LENGTH] = 0
    return LOC_LEN_ERR
  }
  if (kind >= ATOMIC && p[wr + LENGTH] !== ATOMIC_WRITE_BYTES) return LOC_LEN_ERR
  // a request of one packet and one element is checked when its payload is read; others must not be found wrong half
  // way
  if (inline || (kind < READ && count <= 1 && p[wr + LENGTH] <= s.rows[base + MTU])) return 0
  const access = kind >= READ && kind !== ATOMIC_WRITE ? Access.LOCAL_WRITE : Access.LOCAL_READ
  return checkElements(s, row, wr + Send.SGE, count, access) === Moved.OK ? 0 : LOC_PROT_ERR
}
