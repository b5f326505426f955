/*
 * Receive WQEs at the responder: a SEND takes one with its first packet, a WRITE with immediate with its last packet
 * (InfiniBand Architecture Specification, volume 1, clause 10.8.3).
 * state.ts explains short names such as `row`, `base` and `request`.
 */

import { QP } from '../fields.ts'
import { maxRecvSge, recvBlockLog2 } from '../qp-layout.ts'
import { type EngineState, giveBlock, takeBlock, tapsOf } from '../state.ts'
import { Receive } from '../types.ts'

/**
 * Takes the oldest receive WQE into QP.RESP_RECEIVE. A WQE left there by a dropped message, or by the fast path, is
 * used again. False if there is no receive WQE.
 */
export const takeReceive = (s: EngineState, row: number): boolean => {
  const base = row * QP.WORDS
  if (s.rows[base + QP.RESP_RECEIVE] !== 0) return true
  const log2 = recvBlockLog2(s.rows, base)
  const block = takeBlock(s, log2)
  if (!s.env.work.takeReceive(row, s.pool, block)) {
    giveBlock(s, log2, block)
    tapsOf(s)?.notReady(row)
    return false
  }
  tapsOf(s)?.taken(row, s.pool, block)
  s.rows[base + QP.RESP_RECEIVE] = block
  // A WorkSource may return more elements than the block has. With LENGTH 0 none of them is used.
  if (s.pool[block + Receive.SGES] > maxRecvSge(s.rows, base)) s.pool[block + Receive.LENGTH] = 0
  return true
}
