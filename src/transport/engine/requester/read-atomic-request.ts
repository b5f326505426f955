/*
 * Request packets of READ, atomics, FLUSH and ATOMIC WRITE (InfiniBand Architecture Specification, volume 1, clauses
 * 9.4.4 and 9.4.5, annex A19). Each request, or part of a READ, is one packet without payload, except that of an ATOMIC
 * WRITE, which has 8 bytes.
 * state.ts explains short names such as `row`, `base` and `request`.
 */

import { flushPlacement, flushSelectivity } from '../../../spec/wire/headers.ts'
import { headerAt, OPERATION_MASK, operationCode } from '../../../spec/wire/opcodes.ts'
import { ATOMIC_BYTES, SendKind } from '../../../spec/work.ts'
import type { Arena } from '../../wire/arena.ts'
import { putAtomicEth, putFeth, putReth } from '../../wire/extensions.ts'
import { upperWord } from '../address.ts'
import { DmaResult, gather } from '../dma.ts'
import { WQE } from '../fields.ts'
import type { EngineState } from '../state.ts'
import { Flush, Send } from '../types.ts'

const { READ, FLUSH, ATOMIC_WRITE } = SendKind
const { COMPARE_SWAP } = operationCode
const RETH_AT = headerAt.RETH
const FETH_AT = headerAt.FETH
const ATOMIC_AT = headerAt.AtomicETH

/** `kind`: SendKind. */
export const requestPayloadBytes = (kind: number): number => (kind === ATOMIC_WRITE ? ATOMIC_BYTES : 0)

/** Whether the specification defines the placement and selectivity of a FLUSH. */
export const isFlushKnown = (s: EngineState, request: number): boolean => {
  const placement = s.pool[request + WQE.WR + Flush.PLACEMENT]
  return (
    placement !== 0 &&
    (placement & ~(flushPlacement.GLOBAL | flushPlacement.PERSISTENT)) === 0 &&
    s.pool[request + WQE.WR + Flush.SELECTIVITY] <= flushSelectivity.REGION
  )
}

/**
 * Writes the request packet at `at` of `arena`, without BTH and XRCETH. A READ requests `length` bytes from byte
 * `offset` of the message on. `headerBytes`: offset of the payload in the packet. Returns a DmaResult.
 */
export const putReadAtomicRequest = (
  s: EngineState,
  row: number,
  request: number,
  arena: Arena,
  at: number,
  opcode: number,
  headerBytes: number,
  offset: number,
  length: number,
): number => {
  const p = s.pool
  const wr = request + WQE.WR
  const kind = p[request + WQE.KIND]
  const view = arena.view
  if (kind === READ) {
    const sum = p[wr + Send.REMOTE_LO] + offset
    const hi = upperWord(p[wr + Send.REMOTE_HI], sum)
    putReth(view, at + RETH_AT[opcode], hi, sum >>> 0, p[wr + Send.RKEY], length)
    return DmaResult.OK
  }
  if (kind === FLUSH) {
    putFeth(view, at + FETH_AT[opcode], p[wr + Flush.SELECTIVITY], p[wr + Flush.PLACEMENT])
    putReth(
      view,
      at + RETH_AT[opcode],
      p[wr + Send.REMOTE_HI],
      p[wr + Send.REMOTE_LO],
      p[wr + Send.RKEY],
      p[wr + Flush.LENGTH],
    )
    return DmaResult.OK
  }
  if (kind === ATOMIC_WRITE) {
    putReth(view, at + RETH_AT[opcode], p[wr + Send.REMOTE_HI], p[wr + Send.REMOTE_LO], p[wr + Send.RKEY], ATOMIC_BYTES)
    const bytes = ATOMIC_BYTES
    // One chunk: total, chunk and stride are the length.
    return gather(s, row, request, 0, bytes, arena, at + headerBytes, bytes, bytes)
  }
  const isSwap = (opcode & OPERATION_MASK) === COMPARE_SWAP
  // The value to compare with, or to add.
  const operandHi = p[wr + Send.COMPARE_HI]
  const operandLo = p[wr + Send.COMPARE_LO]
  putAtomicEth(
    view,
    at + ATOMIC_AT[opcode],
    p[wr + Send.REMOTE_HI],
    p[wr + Send.REMOTE_LO],
    p[wr + Send.RKEY],
    isSwap ? p[wr + Send.SWAP_HI] : operandHi,
    isSwap ? p[wr + Send.SWAP_LO] : operandLo,
    isSwap ? operandHi : 0,
    isSwap ? operandLo : 0,
  )
  return DmaResult.OK
}
