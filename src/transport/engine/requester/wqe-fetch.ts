/*
 * WQE fetch (InfiniBand Architecture Specification, volume 1, clauses 10.7.2.2 and 11.4.1.1): a send WQE is copied from
 * the program's queue, checked for local errors, assigned its PSNs, and appended to the list of fetched WQEs.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { type Cause, causeOfCode, createCause } from '../../../spec/check/causes.ts'
import { joinWords } from '../../../spec/memory.ts'
import { Service } from '../../../spec/wire/services.ts'
import {
  ATOMIC_BYTES,
  KindFlags,
  MAX_COPY_BYTES,
  MAX_MESSAGE_BYTES,
  SendFlags,
  SendKind,
  WcStatus,
  WrOpcode,
} from '../../../spec/work.ts'
import { storeCause, takeCause } from '../causes.ts'
import { checkElements, DmaResult } from '../dma.ts'
import { QP, ReqFlag, WQE } from '../fields.ts'
import { operationOf, sendKindOf } from '../operations.ts'
import { maxSendSge, sendBlockLog2 } from '../qp-layout.ts'
import { type EngineState, giveBlock, takeBlock, tapsOf } from '../state.ts'
import { Access, AccessKey, Copy, Flush, Send, Sge } from '../types.ts'
import { isFlushKnown } from './read-atomic-request.ts'

const { ATOMIC, NONE, LOCAL, FLUSH } = SendKind
const { RESPONSE, EMPTY_RESPONSE, ONE_PACKET, EIGHT_BYTES, NOT_INLINE } = KindFlags
const { LOC_LEN_ERR, LOC_QP_OP_ERR, LOC_PROT_ERR } = WcStatus.values
const { INLINE } = SendFlags.values
const { MEMCPY } = WrOpcode.values
/** Bits of `Send.REFUSED` with the ibv_wc_status; the higher bits are the number of the cause. */
const STATUS_BITS = 0xff

/** Fetches, checks and appends the next posted WQE; returns its block; 0: none is posted. */
export const fetchWqe = (s: EngineState, row: number): number => {
  const base = row * QP.WORDS
  const log2 = sendBlockLog2(s.rows, base)
  const request = takeBlock(s, log2)
  const p = s.pool
  const w = s.rows
  if (!s.env.work.loadSend(row, w[base + QP.REQ_WQE_INDEX] >>> 0, p, request + WQE.WR)) {
    giveBlock(s, log2, request)
    w[base + QP.REQ_FLAGS] &= ~ReqFlag.MORE
    return 0
  }
  w[base + QP.REQ_WQE_INDEX]++
  tapsOf(s)?.loaded(row, p, request + WQE.WR)
  p[request + WQE.STATUS] = checkWqe(s, row, request)
  const length = p[request + WQE.WR + Send.LENGTH]
  const kind = p[request + WQE.KIND]
  p[request + WQE.NEXT] = 0
  p[request + WQE.FIRST_PSN] = w[base + QP.REQ_PSN]
  const isOnePacket = (kind & ONE_PACKET) !== 0 || length === 0
  p[request + WQE.PSNS] = isOnePacket ? 1 : Math.ceil(length / w[base + QP.MTU])
  p[request + WQE.DONE] = 0
  p[request + WQE.START] = w[base + QP.REQ_SENT_BYTES]
  p[request + WQE.COUNTED] = 0
  if (w[base + QP.REQ_HEAD] === 0) w[base + QP.REQ_HEAD] = request
  else p[w[base + QP.REQ_TAIL] + WQE.NEXT] = request
  w[base + QP.REQ_TAIL] = request
  w[base + QP.REQ_CURRENT] = request
  return request
}

/** The cause for a WQE that the WorkSource has refused. */
const refusalCause = (s: EngineState, row: number, wr: number): Cause => {
  const opcode = s.pool[wr + Send.OPCODE]
  switch (causeOfCode(s.pool[wr + Send.REFUSED] >>> 8)) {
    case 'BAD_OPCODE':
      return createCause('BAD_OPCODE', { opcode })
    case 'TOO_MANY_SGE':
      return createCause('TOO_MANY_SGE', { max: maxSendSge(s.rows, row * QP.WORDS) })
    case 'INLINE_TOO_LONG':
      return createCause('INLINE_TOO_LONG', {})
    case 'MESSAGE_TOO_LONG':
      return createCause('MESSAGE_TOO_LONG', {})
    case 'NO_ADDRESS_HANDLE':
      return createCause('NO_ADDRESS_HANDLE', {})
    case 'KEY_CONFIGURATION':
      return createCause('KEY_CONFIGURATION', {})
    case 'DC_NO_ANSWER':
      return createCause('DC_NO_ANSWER', {})
    case 'DC_BUSY':
      return createCause('DC_BUSY', {})
    case 'DC_ACCESS_KEY':
      return createCause('DC_ACCESS_KEY', {
        accessKey: joinWords(s.pool[wr + AccessKey.HI], s.pool[wr + AccessKey.LO]),
      })
    default:
      return createCause('REFUSED', {})
  }
}

/** As `checkWqe`. Both ranges are checked as a whole: nothing is copied if one of them is refused. */
const checkCopy = (s: EngineState, row: number, wr: number): number => {
  const p = s.pool
  const source = wr + Send.SGE
  const target = source + Sge.WORDS
  const length = p[source + Sge.LENGTH]
  const isInline = (p[wr + Send.FLAGS] & INLINE) !== 0
  const isPair = p[wr + Send.SGES] === 2 && !isInline && p[target + Sge.LENGTH] === length
  if (!isPair || length === 0 || length > MAX_COPY_BYTES)
    return storeCause(s, row, LOC_LEN_ERR, createCause('COPY_LENGTH', { max: MAX_COPY_BYTES }))
  p[wr + Send.LENGTH] = length
  p[wr + Copy.DONE] = 0
  const mayCopy =
    checkElements(s, row, source, 1, Access.LOCAL_READ) === DmaResult.OK &&
    checkElements(s, row, target, 1, Access.LOCAL_WRITE) === DmaResult.OK
  return mayCopy ? 0 : storeCause(s, row, LOC_PROT_ERR, takeCause(s))
}

/** Sets kind and length, and checks for local errors. Returns 0, or the status with which the WQE completes. */
const checkWqe = (s: EngineState, row: number, request: number): number => {
  const p = s.pool
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  const kind = sendKindOf[operationOf(s.rows[base + QP.SERVICE], p[wr + Send.OPCODE])]
  p[request + WQE.KIND] = kind
  const refused = p[wr + Send.REFUSED]
  const count = p[wr + Send.SGES]
  const isInline = (p[wr + Send.FLAGS] & INLINE) !== 0
  const opcode = p[wr + Send.OPCODE]
  // Checked before REFUSED: a READ on UD is refused for its missing address handle, but the mistake is its opcode.
  if (kind === NONE) return storeCause(s, row, LOC_QP_OP_ERR, createCause('BAD_OPCODE', { opcode }))
  if (refused !== 0) return storeCause(s, row, refused & STATUS_BITS, refusalCause(s, row, wr))
  if (!isInline && count > maxSendSge(s.rows, base))
    return storeCause(s, row, LOC_QP_OP_ERR, createCause('TOO_MANY_SGE', { max: maxSendSge(s.rows, base) }))
  if (isInline && (kind & NOT_INLINE) !== 0)
    return storeCause(s, row, LOC_QP_OP_ERR, createCause('NOT_INLINE', { opcode }))
  if ((kind & RESPONSE) !== 0 && s.rows[base + QP.MAX_RD_ATOMIC] === 0)
    return storeCause(s, row, LOC_QP_OP_ERR, createCause('NO_READS', {}))
  if (opcode === MEMCPY) return checkCopy(s, row, wr)
  if (kind === LOCAL || kind === FLUSH) {
    p[wr + Send.LENGTH] = kind === FLUSH ? p[wr + Flush.LENGTH] : 0 // for the completion, as on Linux
    if (kind === LOCAL || isFlushKnown(s, request)) return 0
    const placement = p[wr + Flush.PLACEMENT]
    const selectivity = p[wr + Flush.SELECTIVITY]
    return storeCause(s, row, LOC_QP_OP_ERR, createCause('BAD_FLUSH', { placement, selectivity }))
  }
  if (!isInline) {
    let sum = 0
    for (let i = 0, at = wr + Send.SGE; i < count; i++, at += Sge.WORDS) sum += p[at + Sge.LENGTH]
    if (sum > MAX_MESSAGE_BYTES) return storeCause(s, row, LOC_LEN_ERR, createCause('MESSAGE_TOO_LONG', {}))
    p[wr + Send.LENGTH] = sum
  } else if (p[wr + Send.LENGTH] > MAX_MESSAGE_BYTES)
    return storeCause(s, row, LOC_LEN_ERR, createCause('MESSAGE_TOO_LONG', {}))
  if (s.env.refusesLongDatagrams === true && s.rows[base + QP.SERVICE] === Service.UD) {
    const length = p[wr + Send.LENGTH]
    const mtu = s.rows[base + QP.MTU]
    if (length > mtu) return storeCause(s, row, LOC_LEN_ERR, createCause('DATAGRAM_TOO_LONG', { length, mtu }))
  }
  if ((kind & EIGHT_BYTES) !== 0) {
    const length = p[wr + Send.LENGTH]
    // The elements for an atomic's result may be longer than the result (docs/decisions/departures-from-rxe.md).
    const isLengthValid = kind === ATOMIC ? length >= ATOMIC_BYTES : length === ATOMIC_BYTES
    if (!isLengthValid) return storeCause(s, row, LOC_LEN_ERR, createCause('ATOMIC_LENGTH', { length }))
    p[wr + Send.LENGTH] = ATOMIC_BYTES
  }
  // As on adapters, the elements of READs and atomics are checked when the response is written.
  if (isInline || (kind & (RESPONSE | EMPTY_RESPONSE)) === RESPONSE) return 0
  // The only element of a one-packet SEND or WRITE is checked when its payload is read. All others are checked here, so
  // that a message does not fail after some of its packets were sent.
  if ((kind & RESPONSE) === 0 && count <= 1 && p[wr + Send.LENGTH] <= s.rows[base + QP.MTU]) return 0
  if (checkElements(s, row, wr + Send.SGE, count, Access.LOCAL_READ) === DmaResult.OK) return 0
  return storeCause(s, row, LOC_PROT_ERR, takeCause(s))
}
