/*
 * XRC targets (InfiniBand Architecture Specification, volume 1, annex A14). Each request contains the number of an SRQ
 * in the target's XRC domain. The SRQ provides receive WQEs, CQ and protection domain. All packets of a message must
 * have the same SRQ number. Everything else is as for RC.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { type Cause, createCause } from '../../../spec/check/causes.ts'
import { OP_START } from '../../../spec/wire/opcodes.ts'
import { Service } from '../../../spec/wire/services.ts'
import { flushDmaOf } from '../dma.ts'
import { QP } from '../fields.ts'
import { recvBlockLog2 } from '../qp-layout.ts'
import { type EngineState, giveBlock } from '../state.ts'

const SRQ_DESTROYED = -1

/** Selects the SRQ of a packet with the OP_… bits `flags`. False if it does not exist, or changes within a message. */
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
    w[base + QP.RESP_SRQN] = SRQ_DESTROYED
  }
}
