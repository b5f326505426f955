/*
 * FLUSH and ATOMIC WRITE at the responder (InfiniBand Architecture Specification, volume 1, annex A19). The response
 * to either is a READ response without payload, which confirms that all earlier data is placed. Like READs and atomics
 * they use a resource, from which a duplicate is answered without executing it again.
 *
 * Written memory is globally visible but never persistent. Therefore a FLUSH only executes the pending DMA (dma.ts) and
 * completes the QP's writes (`Memory.completeWrites`). A FLUSH for persistence needs a right that no region or window
 * grants.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { createCause } from '../../../spec/check/causes.ts'
import { QpState } from '../../../spec/enums.ts'
import { joinWords } from '../../../spec/memory.ts'
import { flushPlacement, flushSelectivity } from '../../../spec/wire/headers.ts'
import { ATOMIC_BYTES, MAX_MESSAGE_BYTES, SendKind, WcStatus } from '../../../spec/work.ts'
import type { Arena } from '../../wire/arena.ts'
import * as ext from '../../wire/extensions.ts'
import { noteRefusedKey, takeCause } from '../causes.ts'
import { DmaKind, DmaResult, flushDma, setPayload, writePayloadNow } from '../dma.ts'
import { QP, RES } from '../fields.ts'
import type { EngineState } from '../state.ts'
import { Access } from '../types.ts'
import { NakSyndrome, nakFatal, nakInvalidRequest } from './nak.ts'
import { queueResponse, takeResourceOrNak } from './rd-atomic.ts'

const { ERR } = QpState.values
const { NONE, FLUSH, ATOMIC_WRITE } = SendKind
const { LOC_QP_OP_ERR, LOC_ACCESS_ERR } = WcStatus.values
const { REMOTE_ACCESS, REMOTE_OPERATION } = NakSyndrome
const { RANGE, REGION } = flushSelectivity

const queueEmptyResponse = (s: EngineState, row: number, resource: number, kind: number): void => {
  s.pool[resource + RES.READ_LENGTH] = 0
  queueResponse(s, row, resource, kind, 1)
}

/** The access rights that a FLUSH with this placement needs; 0 for an invalid placement. */
const rightsFor = (placement: number): number => {
  if ((placement & ~(flushPlacement.GLOBAL | flushPlacement.PERSISTENT)) !== 0) return 0
  return (
    ((placement & flushPlacement.GLOBAL) !== 0 ? Access.FLUSH_GLOBAL : 0) |
    ((placement & flushPlacement.PERSISTENT) !== 0 ? Access.FLUSH_PERSISTENT : 0)
  )
}

/** Handles a FLUSH. `feth` and `reth`: offsets of these headers. */
export const onFlush = (s: EngineState, row: number, arena: Arena, feth: number, reth: number): void => {
  const base = row * QP.WORDS
  const view = arena.view
  const selectivity = ext.fethSelectivity(view, feth)
  const length = ext.rethDmaLen(view, reth)
  const placement = ext.fethPlacement(view, feth)
  const right = rightsFor(placement)
  if (right === 0 || (selectivity !== RANGE && selectivity !== REGION)) {
    nakInvalidRequest(s, row, createCause('FLUSH_KIND', { placement, selectivity }))
    return
  }
  if ((right & ~s.rows[base + QP.ACCESS]) !== 0) {
    nakInvalidRequest(s, row, createCause('QP_NO_RIGHT', { right }))
    return
  }
  if (selectivity === RANGE && length > MAX_MESSAGE_BYTES) {
    nakInvalidRequest(s, row, createCause('REMOTE_TOO_LONG', { length }))
    return
  }
  flushDma(s)
  s.env.memory.completeWrites?.(s.rows[base + QP.QPN])
  if (s.rows[base + QP.STATE] === ERR) return
  if (!checkFlush(s, row, arena, reth, right, selectivity === REGION, length)) {
    nakFatal(s, row, REMOTE_ACCESS, LOC_QP_OP_ERR, takeCause(s))
    return
  }
  const resource = takeResourceOrNak(s, row)
  if (resource !== 0) queueEmptyResponse(s, row, resource, FLUSH)
}

/**
 * Checks range and rights; sets the cause if they are wrong. With selectivity REGION (`isRegion`) the range is not
 * checked. With RANGE, zero bytes are allowed with any key.
 */
const checkFlush = (
  s: EngineState,
  row: number,
  arena: Arena,
  reth: number,
  right: number,
  isRegion: boolean,
  length: number,
): boolean => {
  const { memory } = s.env
  const pd = s.rows[row * QP.WORDS + QP.PD]
  const qpn = s.rows[row * QP.WORDS + QP.QPN]
  const key = ext.rethRkey(arena.view, reth)
  const hi = ext.rethVaHi(arena.view, reth)
  const lo = ext.rethVaLo(arena.view, reth)
  const isAllowed = isRegion
    ? memory.grants(pd, key, right, qpn)
    : length === 0 || memory.resolve(pd, key, hi, lo, length, right, qpn) >= 0
  if (!isAllowed) noteRefusedKey(s, pd, key, hi, lo, length, right, qpn)
  return isAllowed
}

/** Handles an ATOMIC WRITE. `reth`: offset of the RETH; `payloadAt`, `length`: offset and bytes of the payload. */
export const onAtomicWrite = (
  s: EngineState,
  row: number,
  arena: Arena,
  reth: number,
  payloadAt: number,
  length: number,
): void => {
  const view = arena.view
  const lo = ext.rethVaLo(view, reth)
  if ((s.rows[row * QP.WORDS + QP.ACCESS] & Access.REMOTE_WRITE) === 0) {
    nakInvalidRequest(s, row, createCause('QP_NO_RIGHT', { right: Access.REMOTE_WRITE }))
    return
  }
  const actualLength = length !== ATOMIC_BYTES ? length : ext.rethDmaLen(view, reth)
  if (actualLength !== ATOMIC_BYTES) {
    nakInvalidRequest(s, row, createCause('ATOMIC_WRITE_LENGTH', { length: actualLength }))
    return
  }
  if ((lo & (ATOMIC_BYTES - 1)) !== 0) {
    nakInvalidRequest(s, row, createCause('ATOMIC_ADDRESS', { address: joinWords(ext.rethVaHi(view, reth), lo) }))
    return
  }
  flushDma(s) // earlier data must be in memory first
  const qpn = s.rows[row * QP.WORDS + QP.QPN]
  s.env.memory.completeWrites?.(qpn)
  if (s.rows[row * QP.WORDS + QP.STATE] === ERR) return
  const resource = takeResourceOrNak(s, row)
  if (resource === 0) return
  const hi = ext.rethVaHi(view, reth)
  const key = ext.rethRkey(view, reth)
  setPayload(s, arena, payloadAt, length)
  const result = writePayloadNow(s, row, DmaKind.WRITE, key, hi, lo)
  s.env.memory.completeWrites?.(qpn)
  if (result !== DmaResult.OK) {
    s.pool[resource + RES.KIND] = NONE
    nakFatal(s, row, result === DmaResult.NO_REGION ? REMOTE_ACCESS : REMOTE_OPERATION, LOC_ACCESS_ERR, takeCause(s))
    return
  }
  queueEmptyResponse(s, row, resource, ATOMIC_WRITE)
}
