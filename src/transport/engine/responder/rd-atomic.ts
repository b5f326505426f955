/*
 * READs and atomics at the responder (InfiniBand Architecture Specification, volume 1, clauses 9.4.4, 9.4.5 and
 * 9.7.5.1.1). Each uses one of max_dest_rd_atomic resources. For duplicates the resource stores the range of a READ or
 * the result of an atomic. An atomic is executed here, once. The data of a READ is read when its responses are sent
 * (responses.ts). FLUSH and ATOMIC WRITE (flush-atomic-write.ts) use the same resources.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { createCause } from '../../../spec/check/causes.ts'
import { QpState } from '../../../spec/enums.ts'
import { joinWords, TWO_32 } from '../../../spec/memory.ts'
import { OPERATION_MASK, operationCode } from '../../../spec/wire/opcodes.ts'
import { ATOMIC_BYTES, MAX_MESSAGE_BYTES, SendKind, WcStatus } from '../../../spec/work.ts'
import type { Arena } from '../../wire/arena.ts'
import * as ext from '../../wire/extensions.ts'
import { noteMemoryFault, noteRefusedKey, takeCause } from '../causes.ts'
import { flushDma } from '../dma.ts'
import { QP, RES, RespFlag } from '../fields.ts'
import { PSN_MASK, psnAdd, psnDistance } from '../psn.ts'
import { setResourcesBlockLog2 } from '../qp-layout.ts'
import { type EngineState, log2OfResources, takeBlock } from '../state.ts'
import { schedule } from '../transmit-queue.ts'
import { Access } from '../types.ts'
import { NakSyndrome, nakFatal, nakInvalidRequest } from './nak.ts'

const { ERR } = QpState.values
const { NONE, READ, ATOMIC } = SendKind
const { LOC_QP_OP_ERR } = WcStatus.values
const { REMOTE_ACCESS, REMOTE_OPERATION } = NakSyndrome
const COMPARE_SWAP = operationCode.COMPARE_SWAP

/**
 * The resource of this kind whose request contains `psn`; 0: none, or reused. Youngest first: the PSNs of an old one
 * may have been used again.
 */
const findResource = (s: EngineState, row: number, kind: number, psn: number): number => {
  const w = s.rows
  const base = row * QP.WORDS
  const p = s.pool
  const count = w[base + QP.RESP_RESOURCE_COUNT]
  if (w[base + QP.RESP_RESOURCES] === 0) return 0
  let index = w[base + QP.RESP_RESOURCE_NEXT]
  for (let left = count; left > 0; left--) {
    index = index === 0 ? count - 1 : index - 1
    const resource = w[base + QP.RESP_RESOURCES] + index * RES.WORDS
    if (p[resource + RES.KIND] !== kind) continue
    if (psnDistance(p[resource + RES.FIRST_PSN], psn) < p[resource + RES.PSNS]) return resource
  }
  return 0
}

/** Answers a duplicate atomic, FLUSH or ATOMIC WRITE from its resource. Ignores it if the resource was reused. */
export const replayResponse = (s: EngineState, row: number, kind: number, psn: number): void => {
  const resource = findResource(s, row, kind, psn)
  if (resource !== 0) replay(s, row, resource, 0, 1)
}

/** Queues responses of a resource to be sent again: numbers `from` to `end` - 1. */
const replay = (s: EngineState, row: number, resource: number, from: number, end: number): void => {
  const p = s.pool
  if (p[resource + RES.NEXT] >= p[resource + RES.END]) s.rows[row * QP.WORDS + QP.RESP_PENDING]++
  p[resource + RES.NEXT] = from
  p[resource + RES.END] = end
  p[resource + RES.REPLAY] = 1
}

/**
 * Answers a duplicate READ if its range is inside that of the original READ. It may request a part of the original.
 * `at`: offset of the RETH.
 */
export const replayRead = (s: EngineState, row: number, arena: Arena, at: number, psn: number): void => {
  const resource = findResource(s, row, READ, psn)
  if (resource === 0) return
  const p = s.pool
  const view = arena.view
  const hi = ext.rethVaHi(view, at)
  const lo = ext.rethVaLo(view, at)
  const length = ext.rethDmaLen(view, at)
  const first = psnDistance(p[resource + RES.FIRST_PSN], psn)
  const mtu = s.rows[row * QP.WORDS + QP.MTU]
  const offset = lo - p[resource + RES.LO] + (hi - p[resource + RES.HI]) * TWO_32
  const totalLength = p[resource + RES.LENGTH]
  const packets = length === 0 ? 1 : Math.ceil(length / mtu)
  // Each PSN stands for MTU bytes, so the duplicate must begin at the bytes of its PSN.
  if (offset !== first * mtu || offset + length > totalLength) return
  if (ext.rethRkey(view, at) !== p[resource + RES.KEY]) return
  // These responses are queued already.
  if (p[resource + RES.NEXT] <= first && p[resource + RES.END] === first + packets) return
  replay(s, row, resource, first, first + packets)
  p[resource + RES.BASE] = first
  p[resource + RES.DATA_HI] = hi
  p[resource + RES.DATA_LO] = lo
  p[resource + RES.READ_LENGTH] = length
}

const allocateResources = (s: EngineState, base: number, count: number): void => {
  const log2 = log2OfResources(count)
  const block = takeBlock(s, log2)
  s.pool.fill(0, block, block + count * RES.WORDS)
  s.rows[base + QP.RESP_RESOURCES] = block
  setResourcesBlockLog2(s.rows, base, log2)
}

/** Takes a resource for a new READ or atomic; 0 if the peer has more than max_dest_rd_atomic outstanding. */
const takeResource = (s: EngineState, row: number): number => {
  const w = s.rows
  const base = row * QP.WORDS
  const count = w[base + QP.RESP_RESOURCE_COUNT]
  if (count === 0) return 0
  if (w[base + QP.RESP_RESOURCES] === 0) allocateResources(s, base, count)
  const p = s.pool
  const resource = w[base + QP.RESP_RESOURCES] + w[base + QP.RESP_RESOURCE_NEXT] * RES.WORDS
  if (p[resource + RES.KIND] !== NONE && p[resource + RES.NEXT] < p[resource + RES.END]) {
    if (p[resource + RES.REPLAY] === 0) return 0
    w[base + QP.RESP_PENDING]-- // a repeated response, which the peer no longer needs: it has sent a new request
  }
  w[base + QP.RESP_RESOURCE_NEXT] = (w[base + QP.RESP_RESOURCE_NEXT] + 1) % count
  return resource
}

/** As `takeResource`, but refuses the request with a NAK if there is no resource. */
export const takeResourceOrNak = (s: EngineState, row: number): number => {
  const resource = takeResource(s, row)
  if (resource === 0)
    nakInvalidRequest(s, row, createCause('TOO_MANY_READS', { max: s.rows[row * QP.WORDS + QP.RESP_RESOURCE_COUNT] }))
  return resource
}

/** For a local peer: marks the single pending response as sent, and returns its resource. */
export const consumeResponse = (s: EngineState, row: number): number => {
  const w = s.rows
  const base = row * QP.WORDS
  const count = w[base + QP.RESP_RESOURCE_COUNT]
  const resource = w[base + QP.RESP_RESOURCES] + ((w[base + QP.RESP_RESOURCE_NEXT] + count - 1) % count) * RES.WORDS
  s.pool[resource + RES.NEXT] = s.pool[resource + RES.END]
  w[base + QP.RESP_PENDING]--
  return resource
}

/** Accepts a new READ, atomic, FLUSH or ATOMIC WRITE. Its response also acknowledges all earlier requests. */
export const queueResponse = (s: EngineState, row: number, resource: number, kind: number, psns: number): void => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  w[base + QP.RESP_MSN] = (w[base + QP.RESP_MSN] + 1) & PSN_MASK
  p[resource + RES.KIND] = kind
  p[resource + RES.FIRST_PSN] = w[base + QP.RESP_EPSN]
  p[resource + RES.PSNS] = psns
  p[resource + RES.MSN] = w[base + QP.RESP_MSN]
  p[resource + RES.NEXT] = 0
  p[resource + RES.END] = psns
  p[resource + RES.BASE] = 0
  p[resource + RES.REPLAY] = 0
  w[base + QP.RESP_PENDING]++
  w[base + QP.RESP_EPSN] = psnAdd(w[base + QP.RESP_EPSN], psns)
  w[base + QP.RESP_FLAGS] &= ~RespFlag.ACK_DUE
  schedule(s, row)
}

/** Checks rights, length and range of a READ. If they are wrong, refuses the READ and returns false. */
export const checkRead = (
  s: EngineState,
  row: number,
  hi: number,
  lo: number,
  key: number,
  length: number,
): boolean => {
  const w = s.rows
  const base = row * QP.WORDS
  const { REMOTE_READ } = Access
  if ((w[base + QP.ACCESS] & REMOTE_READ) === 0) {
    nakInvalidRequest(s, row, createCause('QP_NO_RIGHT', { right: REMOTE_READ }))
    return false
  }
  if (length > MAX_MESSAGE_BYTES) {
    nakInvalidRequest(s, row, createCause('REMOTE_TOO_LONG', { length }))
    return false
  }
  if (length > 0 && s.env.memory.resolve(w[base + QP.PD], key, hi, lo, length, REMOTE_READ, w[base + QP.QPN]) < 0) {
    noteRefusedKey(s, w[base + QP.PD], key, hi, lo, length, REMOTE_READ, w[base + QP.QPN])
    nakFatal(s, row, REMOTE_ACCESS, LOC_QP_OP_ERR, takeCause(s))
    return false
  }
  return true
}

/** Handles a READ. `at`: offset of the RETH. */
export const onRead = (s: EngineState, row: number, arena: Arena, at: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  const view = arena.view
  const length = ext.rethDmaLen(view, at)
  const hi = ext.rethVaHi(view, at)
  const lo = ext.rethVaLo(view, at)
  const key = ext.rethRkey(view, at)
  if (!checkRead(s, row, hi, lo, key, length)) return
  const resource = takeResourceOrNak(s, row)
  if (resource === 0) return
  const p = s.pool
  p[resource + RES.HI] = hi
  p[resource + RES.LO] = lo
  p[resource + RES.KEY] = key
  p[resource + RES.PD] = w[base + QP.PD]
  p[resource + RES.LENGTH] = length
  p[resource + RES.DATA_HI] = hi
  p[resource + RES.DATA_LO] = lo
  p[resource + RES.READ_LENGTH] = length
  queueResponse(s, row, resource, READ, length === 0 ? 1 : Math.ceil(length / w[base + QP.MTU]))
}

/** Handles an atomic. `at`: offset of the AtomicETH. */
export const onAtomic = (s: EngineState, row: number, arena: Arena, at: number, opcode: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  const view = arena.view
  const memory = s.env.memory
  const hi = ext.atomicVaHi(view, at)
  const lo = ext.atomicVaLo(view, at)
  if ((w[base + QP.ACCESS] & Access.REMOTE_ATOMIC) === 0) {
    nakInvalidRequest(s, row, createCause('QP_NO_RIGHT', { right: Access.REMOTE_ATOMIC }))
    return
  }
  if ((lo & (ATOMIC_BYTES - 1)) !== 0) {
    nakInvalidRequest(s, row, createCause('ATOMIC_ADDRESS', { address: joinWords(hi, lo) }))
    return
  }
  flushDma(s) // the atomic must see earlier WRITEs
  if (w[base + QP.STATE] === ERR) return
  const key = ext.atomicRkey(view, at)
  const region = memory.resolve(w[base + QP.PD], key, hi, lo, ATOMIC_BYTES, Access.REMOTE_ATOMIC, w[base + QP.QPN])
  if (region < 0) {
    noteRefusedKey(s, w[base + QP.PD], key, hi, lo, ATOMIC_BYTES, Access.REMOTE_ATOMIC, w[base + QP.QPN])
    nakFatal(s, row, REMOTE_ACCESS, LOC_QP_OP_ERR, takeCause(s))
    return
  }
  const resource = takeResourceOrNak(s, row)
  if (resource === 0) return
  const swapOrAddHi = ext.atomicSwapHi(view, at)
  const swapOrAddLo = ext.atomicSwapLo(view, at)
  const original = s.result.original
  const errno =
    (opcode & OPERATION_MASK) === COMPARE_SWAP
      ? memory.compareSwap(
          region,
          hi,
          lo,
          ext.atomicCompareHi(view, at),
          ext.atomicCompareLo(view, at),
          swapOrAddHi,
          swapOrAddLo,
          original,
        )
      : memory.fetchAdd(region, hi, lo, swapOrAddHi, swapOrAddLo, original)
  if (errno !== 0) {
    s.pool[resource + RES.KIND] = NONE
    noteMemoryFault(s, key, hi, lo, ATOMIC_BYTES, Access.REMOTE_ATOMIC)
    nakFatal(s, row, REMOTE_OPERATION, LOC_QP_OP_ERR, takeCause(s))
    return
  }
  s.pool[resource + RES.DATA_LO] = original[0]
  s.pool[resource + RES.DATA_HI] = original[1]
  queueResponse(s, row, resource, ATOMIC, 1)
}
