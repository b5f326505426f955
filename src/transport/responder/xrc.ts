/*
 * XRC targets (InfiniBand Architecture Specification, volume 1, annex A14): each request contains the number of an SRQ
 * in the target's domain. The SRQ provides the receive WQEs, the CQ in which they complete, and the protection domain
 * of the memory that the request reads and writes. All packets of a message must have the same SRQ. Everything else is
 * as for RC.
 */
import { type Cause, createCause } from '../../spec/check/causes.ts'
import { OP_START } from '../../spec/wire/opcodes.ts'
import { Service } from '../../spec/wire/services.ts'
import { flushDmaOf } from '../dma.ts'
import { QP } from '../fields.ts'
import { recvBlockLog2 } from '../qp-layout.ts'
import { type EngineState, giveBlock } from '../state.ts'

/** QP.RESP_SRQN after the SRQ was destroyed. */
const DESTROYED = -1

/**
 * Selects SRQ `srqn` for a request with the OP_… bits `flags`. False if there is no such SRQ, or if it changes within a
 * message.
 */
export const selectSrq = (s: EngineState, row: number, srqn: number, flags: number): boolean => {
  const w = s.rows
  const base = row * QP.WORDS
  if ((flags & OP_START) === 0) return w[base + QP.RESP_SRQN] === srqn
  if (!s.env.work.selectShared?.(row, srqn, s.result.shared)) return false
  w[base + QP.RESP_SRQN] = srqn
  w[base + QP.PD] = s.result.shared[0]
  w[base + QP.RECV_PD] = s.result.shared[0]
  w[base + QP.RECV_CQ] = s.result.shared[1]
  return true
}

/** The cause when `selectSrq` has refused. */
export const noSrqCause = (srqn: number): Cause => createCause('NO_SRQ', { srqn })

/** The SRQ `srqn` was destroyed: a message for it is not continued, and its receive WQE is dropped. */
export const dropSrq = (s: EngineState, srqn: number): void => {
  const w = s.rows
  for (let row = 0; row < s.rowCount; row++) {
    const base = row * QP.WORDS
    if (w[base + QP.ALIVE] === 0 || w[base + QP.SERVICE] !== Service.XRC_TGT || w[base + QP.RESP_SRQN] !== srqn)
      continue
    flushDmaOf(s, row)
    if (w[base + QP.RESP_RECEIVE] !== 0) giveBlock(s, recvBlockLog2(w, base), w[base + QP.RESP_RECEIVE])
    w[base + QP.RESP_RECEIVE] = 0
    w[base + QP.RESP_SRQN] = DESTROYED
  }
}
