/*
 * Creation parameters of a queue pair and the sizes of its pool blocks (state.ts), packed into one word of its row
 * (QP.LAYOUT), since there may be very many rows (R15).
 */
import { QP } from './fields.ts'
import { log2OfRequest } from './state.ts'

/** Bit positions of numbers of 5 or 6 bits; the last two are masks of one bit. */
const QpLayout = {
  MAX_SEND_SGE: 0,
  MAX_RECV_SGE: 6,
  /** log2 of the words in a block: of a send WQE, of a receive WQE, and of all READ and atomic resources. */
  SEND_BLOCK: 12,
  RECV_BLOCK: 17,
  RESOURCE_BLOCK: 22,
  /** sq_sig_all. */
  SIGNAL_ALL: 1 << 27,
  USES_SRQ: 1 << 28,
} as const

/** Maximum of maxSendSge and of maxRecvSge. */
const MAX_ELEMENTS = 63
const BLOCK_MASK = 31

export const maxSendSge = (w: Int32Array, base: number): number =>
  (w[base + QP.LAYOUT] >> QpLayout.MAX_SEND_SGE) & MAX_ELEMENTS
export const maxRecvSge = (w: Int32Array, base: number): number =>
  (w[base + QP.LAYOUT] >> QpLayout.MAX_RECV_SGE) & MAX_ELEMENTS
export const sendBlockLog2 = (w: Int32Array, base: number): number =>
  (w[base + QP.LAYOUT] >> QpLayout.SEND_BLOCK) & BLOCK_MASK
export const recvBlockLog2 = (w: Int32Array, base: number): number =>
  (w[base + QP.LAYOUT] >> QpLayout.RECV_BLOCK) & BLOCK_MASK
export const resourcesBlockLog2 = (w: Int32Array, base: number): number =>
  (w[base + QP.LAYOUT] >> QpLayout.RESOURCE_BLOCK) & BLOCK_MASK
export const setResourcesBlockLog2 = (w: Int32Array, base: number, log2: number): void => {
  w[base + QP.LAYOUT] =
    (w[base + QP.LAYOUT] & ~(BLOCK_MASK << QpLayout.RESOURCE_BLOCK)) | (log2 << QpLayout.RESOURCE_BLOCK)
}
export const usesSrq = (w: Int32Array, base: number): boolean => (w[base + QP.LAYOUT] & QpLayout.USES_SRQ) !== 0
export const signalsAll = (w: Int32Array, base: number): boolean => (w[base + QP.LAYOUT] & QpLayout.SIGNAL_ALL) !== 0

/** QP.LAYOUT of a new queue pair. `sends`: maxSendSge; `receives`: maxRecvSge. Throws an Error above MAX_ELEMENTS. */
export const qpLayoutOf = (sends: number, receives: number, sqSigAll = false, hasSrq = false): number => {
  if (sends > MAX_ELEMENTS || receives > MAX_ELEMENTS)
    throw new Error(
      `requests of ${Math.max(sends, receives)} scatter/gather elements: an engine supports ${MAX_ELEMENTS}`,
    )
  return (
    (sends << QpLayout.MAX_SEND_SGE) |
    (receives << QpLayout.MAX_RECV_SGE) |
    (log2OfRequest(sends) << QpLayout.SEND_BLOCK) |
    (log2OfRequest(receives) << QpLayout.RECV_BLOCK) |
    (sqSigAll ? QpLayout.SIGNAL_ALL : 0) |
    (hasSrq ? QpLayout.USES_SRQ : 0)
  )
}
