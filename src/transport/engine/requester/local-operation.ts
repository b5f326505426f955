/*
 * BIND_MW and LOCAL_INV, which send no packets (InfiniBand Architecture Specification, volume 1, clauses 10.6.7 and
 * 10.8.3.3), MEMCPY (memory-copy.ts), and DRIVER1, which does nothing. They are executed in the order of the send
 * queue, before any later request is sent: the window is bound before a later SEND gives its key to the peer. They
 * complete after all earlier WQEs, and are not executed again when requests are sent again after a loss. state.ts
 * explains short names such as `row`, `base` and `request`.
 */
import { createCause } from '../../../spec/check/causes.ts'
import { SendFlags, WcStatus, WrOpcode } from '../../../spec/work.ts'
import { storeCause } from '../causes.ts'
import { QP, WQE } from '../fields.ts'
import type { EngineState } from '../state.ts'
import { BindMw, Send } from '../types.ts'

const { LOCAL_INV, DRIVER1, MEMCPY } = WrOpcode.values
const { FENCE } = SendFlags.values
const { SUCCESS, MW_BIND_ERR } = WcStatus.values

/**
 * Whether a fence delays a local operation. A bind waits, as other requests do, for the responses to earlier READs,
 * atomics, FLUSHes and ATOMIC WRITEs. An invalidation waits for all earlier WQEs (local invalidate fence).
 */
export const isFenced = (s: EngineState, row: number, request: number): boolean => {
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  if ((s.pool[wr + Send.FLAGS] & FENCE) === 0 || s.pool[request + WQE.DONE] !== 0) return false
  return s.pool[wr + Send.OPCODE] === LOCAL_INV
    ? s.rows[base + QP.REQ_HEAD] !== request
    : s.rows[base + QP.REQ_RD_ATOMIC] > 0
}

/** Executes a local operation, unless it was executed before. If it is refused, sets WQE.STATUS and returns false. */
export const executeLocal = (s: EngineState, row: number, request: number): boolean => {
  const p = s.pool
  if (p[request + WQE.DONE] !== 0) return true
  const { memory } = s.env
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  const pd = s.rows[base + QP.PD]
  const qpn = s.rows[base + QP.QPN]
  const opcode = p[wr + Send.OPCODE]
  const isInvalidate = opcode === LOCAL_INV
  let status: number = SUCCESS
  if (isInvalidate) status = memory.invalidate(pd, qpn, p[wr + Send.IMM])
  else if (opcode !== DRIVER1 && opcode !== MEMCPY && !memory.bindWindow(pd, qpn, p, wr)) status = MW_BIND_ERR
  if (status === SUCCESS) {
    p[request + WQE.DONE] = 1
    return true
  }
  const cause = isInvalidate
    ? createCause('LOCAL_INVALIDATE', { key: p[wr + Send.IMM] })
    : (memory.explainBind?.(pd, p, wr) ?? createCause('BIND_REFUSED', { key: p[wr + BindMw.WINDOW] }))
  p[request + WQE.STATUS] = storeCause(s, row, status, cause)
  return false
}
