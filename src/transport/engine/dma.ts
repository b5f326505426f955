/*
 * Copies between packets and client memory. `gather` reads message data into packets. `writePayloads` writes payloads
 * to memory, deferred: payloads for consecutive addresses are collected into one strided write, the pending DMA. The
 * pending DMA is executed when a payload does not continue it, before a completion, and in `Engine.endBurst`. No
 * payload is acknowledged before it is written (docs/decisions/client-memory.md).
 *
 * The key of a deferred write is resolved twice: when the pending DMA begins, so that a refused key is reported for the
 * right packet, and when the DMA is executed, because the region may have been deregistered since.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { QpState } from '../../spec/enums.ts'
import { SendFlags } from '../../spec/work.ts'
import type { Arena } from '../wire/arena.ts'
import { upperWord } from './address.ts'
import { noteMemoryFault, noteRefusedKey } from './causes.ts'
import { DMA, QP, WQE } from './fields.ts'
import type { EngineState } from './state.ts'
import { Access, Send, Sge } from './types.ts'

const { LOCAL_READ, LOCAL_WRITE, REMOTE_WRITE } = Access
const INLINE = SendFlags.values.INLINE
const { ERR } = QpState.values

/** NO_REGION: the key does not allow the access; FAULT: the memory could not be accessed. */
export const DmaResult = { OK: 0, NO_REGION: 1, FAULT: 2 } as const
const { OK, NO_REGION, FAULT } = DmaResult

/** What a DMA writes: a WRITE or ATOMIC WRITE; a SEND to its receive WQE; a READ or atomic response. */
export const DmaKind = { WRITE: 1, RECEIVE: 2, READ_RESPONSE: 3 } as const

const protectionDomainOf = (s: EngineState, row: number, kind: number): number =>
  s.rows[row * QP.WORDS + (kind === DmaKind.RECEIVE ? QP.RECV_PD : QP.PD)]

/** Sets the cause after `Memory.resolve` has refused; returns NO_REGION. */
const refuseKey = (
  s: EngineState,
  pd: number,
  key: number,
  hi: number,
  lo: number,
  length: number,
  access: number,
  qpn: number,
): number => {
  noteRefusedKey(s, pd, key, hi, lo, length, access, qpn)
  return NO_REGION
}

/** Sets the cause after an access to memory has failed; returns FAULT. */
const fault = (s: EngineState, key: number, hi: number, lo: number, length: number, access: number): number => {
  noteMemoryFault(s, key, hi, lo, length, access)
  return FAULT
}

/**
 * Reads `total` bytes of a send WQE's data, from byte `offset` of the message on. They are written to the arena from
 * `at` on, in chunks of `chunk` bytes, one every `stride` bytes. Returns a DmaResult.
 */
export const gather = (
  s: EngineState,
  row: number,
  request: number,
  offset: number,
  total: number,
  arena: Arena,
  at: number,
  chunk: number,
  stride: number,
): number => {
  const p = s.pool
  const wr = request + WQE.WR
  const memory = s.env.memory
  if ((p[wr + Send.FLAGS] & INLINE) !== 0) {
    s.env.work.copyInline(row, p[wr + Send.INLINE_AT], offset, arena, at, chunk, stride, total)
    return OK
  }
  const pd = s.rows[row * QP.WORDS + QP.PD]
  const qpn = s.rows[row * QP.WORDS + QP.QPN]
  const count = p[wr + Send.SGES]
  let sge = wr + Send.SGE
  if (count === 1) {
    const sum = p[sge + Sge.LO] + offset
    const lo = sum >>> 0
    const hi = upperWord(p[sge + Sge.HI], sum)
    const region = memory.resolve(pd, p[sge + Sge.LKEY], hi, lo, total, LOCAL_READ, qpn)
    if (region < 0) return refuseKey(s, pd, p[sge + Sge.LKEY], hi, lo, total, LOCAL_READ, qpn)
    if (memory.read(region, hi, lo, arena, at, chunk, stride, total) === 0) return OK
    return fault(s, p[sge + Sge.LKEY], hi, lo, total, LOCAL_READ)
  }
  let skip = offset
  let left = total
  let chunkAt = at
  let chunkFilled = 0
  for (let i = 0; i < count && left > 0; i++, sge += Sge.WORDS) {
    const length = p[sge + Sge.LENGTH]
    if (skip >= length) {
      skip -= length
      continue
    }
    const sum = p[sge + Sge.LO] + skip
    const hi = upperWord(p[sge + Sge.HI], sum)
    const lo = sum >>> 0
    let bytes = length - skip < left ? length - skip : left
    skip = 0
    left -= bytes
    const region = memory.resolve(pd, p[sge + Sge.LKEY], hi, lo, bytes, LOCAL_READ, qpn)
    if (region < 0) return refuseKey(s, pd, p[sge + Sge.LKEY], hi, lo, bytes, LOCAL_READ, qpn)
    let done = 0
    if (chunkFilled > 0) {
      // this element continues the chunk in which the previous one ended
      const added = chunk - chunkFilled < bytes ? chunk - chunkFilled : bytes
      if (memory.read(region, hi, lo, arena, chunkAt + chunkFilled, added, added, added) !== 0)
        return fault(s, p[sge + Sge.LKEY], hi, lo, added, LOCAL_READ)
      chunkFilled += added
      if (chunkFilled === chunk) {
        chunkFilled = 0
        chunkAt += stride
      }
      done = added
      bytes -= added
    }
    if (bytes > 0) {
      if (memory.read(region, upperWord(hi, lo + done), (lo + done) >>> 0, arena, chunkAt, chunk, stride, bytes) !== 0)
        return fault(s, p[sge + Sge.LKEY], hi, lo, done + bytes, LOCAL_READ)
      const wholeChunks = (bytes / chunk) | 0
      chunkAt += wholeChunks * stride
      chunkFilled = bytes - wholeChunks * chunk
    }
  }
  return left === 0 ? OK : NO_REGION
}

/**
 * Checks that the key of every non-empty scatter/gather element of a WQE grants `access` to its range. `sge`: index of
 * the first element in the pool. Returns OK or NO_REGION.
 */
export const checkElements = (s: EngineState, row: number, sge: number, count: number, access: number): number => {
  const p = s.pool
  const pd = s.rows[row * QP.WORDS + QP.PD]
  const qpn = s.rows[row * QP.WORDS + QP.QPN]
  for (let i = 0, at = sge; i < count; i++, at += Sge.WORDS) {
    const length = p[at + Sge.LENGTH]
    if (length === 0) continue
    if (s.env.memory.resolve(pd, p[at + Sge.LKEY], p[at + Sge.HI], p[at + Sge.LO], length, access, qpn) < 0)
      return refuseKey(s, pd, p[at + Sge.LKEY], p[at + Sge.HI], p[at + Sge.LO], length, access, qpn)
  }
  return OK
}

/** Sets `s.payloads` to one payload: `bytes` bytes at `at`. */
export const setPayload = (s: EngineState, arena: Arena, at: number, bytes: number): void =>
  setPayloads(s, arena, at, bytes, bytes, 1)

/** Sets `s.payloads` to `count` payloads of `bytes` bytes each, one every `stride` bytes from `at` on. */
export const setPayloads = (
  s: EngineState,
  arena: Arena,
  at: number,
  bytes: number,
  stride: number,
  count: number,
): void => {
  const payloads = s.payloads
  payloads.arena = arena
  payloads.at = at
  payloads.bytes = bytes
  payloads.stride = stride
  payloads.count = count
}

/** A pending DMA of this size is not extended: its length must remain a 32-bit number. */
const MAX_PENDING_BYTES = 0x1000_0000

const accessOf = (kind: number): number => (kind === DmaKind.WRITE ? REMOTE_WRITE : LOCAL_WRITE)

/** Executes the pending DMA. False if the row is in ERR afterwards: its program may use the receive buffers again. */
const flushBefore = (s: EngineState, row: number): boolean => {
  flushDma(s)
  return s.rows[row * QP.WORDS + QP.STATE] !== ERR
}

/**
 * Writes `s.payloads` to an address, deferred. Payloads that do not continue the pending DMA begin a new one after the
 * old one was executed. If the old DMA fails, `s.onDmaFailed` is called, so check the row's state before the result. In
 * ERR nothing is written. Returns a DmaResult for the new payloads.
 */
export const writePayloads = (
  s: EngineState,
  row: number,
  kind: number,
  key: number,
  hi: number,
  lo: number,
): number => {
  const dma = s.dma
  const { arena, at, bytes, stride, count } = s.payloads
  const length = bytes * count
  if (s.dmaArena !== undefined) {
    const isSameTarget = s.dmaArena === arena && dma[DMA.ROW] === row && dma[DMA.KIND] === kind && dma[DMA.KEY] === key
    const fitsChunk = count === 1 ? bytes <= dma[DMA.CHUNK] : bytes === dma[DMA.CHUNK]
    if (isSameTarget && fitsChunk && dma[DMA.CLOSED] === 0) {
      const chunksBefore = dma[DMA.CHUNKS]
      const total = dma[DMA.TOTAL]
      // The second chunk sets the stride.
      const step = chunksBefore === 1 ? at - dma[DMA.AT] : dma[DMA.STRIDE]
      const end = dma[DMA.LO] + total
      const continuesPackets =
        step >= dma[DMA.CHUNK] && (count === 1 || stride === step) && at === dma[DMA.AT] + chunksBefore * step
      const continuesMemory = lo === end >>> 0 && hi === upperWord(dma[DMA.HI], end)
      if (continuesPackets && continuesMemory && total < MAX_PENDING_BYTES) {
        dma[DMA.STRIDE] = step
        dma[DMA.CHUNKS] = chunksBefore + count
        dma[DMA.TOTAL] = total + length
        if (bytes < dma[DMA.CHUNK]) dma[DMA.CLOSED] = 1
        return OK
      }
    }
    if (!flushBefore(s, row)) return FAULT
  }
  const w = s.rows
  const base = row * QP.WORDS
  const pd = protectionDomainOf(s, row, kind)
  const access = accessOf(kind)
  const qpn = w[base + QP.QPN]
  if (s.env.memory.resolve(pd, key, hi, lo, length, access, qpn) < 0)
    return refuseKey(s, pd, key, hi, lo, length, access, qpn)
  dma[DMA.ROW] = row
  dma[DMA.KIND] = kind
  dma[DMA.PD] = pd
  dma[DMA.KEY] = key
  dma[DMA.ACCESS] = access
  dma[DMA.HI] = hi
  dma[DMA.LO] = lo
  dma[DMA.AT] = at
  dma[DMA.CHUNK] = bytes
  dma[DMA.STRIDE] = stride
  dma[DMA.CHUNKS] = count
  dma[DMA.TOTAL] = length
  dma[DMA.CLOSED] = 0
  dma[DMA.PSN] = w[base + QP.RESP_EPSN]
  dma[DMA.MSN] = w[base + QP.RESP_MSN]
  s.dmaArena = arena
  return OK
}

/** As `writePayloads`, but not deferred. Only for a single payload. */
export const writePayloadNow = (
  s: EngineState,
  row: number,
  kind: number,
  key: number,
  hi: number,
  lo: number,
): number => {
  if (s.dmaArena !== undefined && !flushBefore(s, row)) return FAULT
  const { arena, at, bytes } = s.payloads
  const memory = s.env.memory
  const pd = protectionDomainOf(s, row, kind)
  const access = accessOf(kind)
  const qpn = s.rows[row * QP.WORDS + QP.QPN]
  const region = memory.resolve(pd, key, hi, lo, bytes, access, qpn)
  if (region < 0) return refuseKey(s, pd, key, hi, lo, bytes, access, qpn)
  if (memory.write(region, hi, lo, arena, at, bytes, bytes, bytes, kind === DmaKind.READ_RESPONSE) === 0) return OK
  return fault(s, key, hi, lo, bytes, access)
}

/** Executes the pending DMA, if there is one. */
export const flushDma = (s: EngineState): void => {
  const arena = s.dmaArena
  if (arena === undefined) return
  s.dmaArena = undefined
  const dma = s.dma
  const memory = s.env.memory
  const qpn = s.rows[dma[DMA.ROW] * QP.WORDS + QP.QPN]
  const hi = dma[DMA.HI]
  const lo = dma[DMA.LO]
  const total = dma[DMA.TOTAL]
  const region = memory.resolve(dma[DMA.PD], dma[DMA.KEY], hi, lo, total, dma[DMA.ACCESS], qpn)
  const isResponse = dma[DMA.KIND] === DmaKind.READ_RESPONSE
  let result: number = OK
  if (region < 0) result = refuseKey(s, dma[DMA.PD], dma[DMA.KEY], hi, lo, total, dma[DMA.ACCESS], qpn)
  else if (memory.write(region, hi, lo, arena, dma[DMA.AT], dma[DMA.CHUNK], dma[DMA.STRIDE], total, isResponse) !== 0)
    result = fault(s, dma[DMA.KEY], hi, lo, total, dma[DMA.ACCESS])
  if (result !== OK) s.onDmaFailed(s, dma[DMA.ROW], dma[DMA.KIND], result, dma[DMA.PSN], dma[DMA.MSN])
}

/** Executes the pending DMA if it belongs to `row`. */
export const flushDmaOf = (s: EngineState, row: number): void => {
  if (s.dmaArena !== undefined && s.dma[DMA.ROW] === row) flushDma(s)
}

/**
 * Writes as many of `s.payloads` as fit into the element that contains byte `offset` of the message. Returns a
 * DmaResult, and the number of written payloads in `s.result.written`. `sge`: index of the first element in the pool.
 */
export const scatterPayloads = (
  s: EngineState,
  row: number,
  kind: number,
  sge: number,
  count: number,
  offset: number,
): number => {
  const p = s.pool
  const payloads = s.payloads
  let skip = offset
  let element = sge
  const last = sge + (count - 1) * Sge.WORDS
  while (element < last && skip >= p[element + Sge.LENGTH]) {
    skip -= p[element + Sge.LENGTH]
    element += Sge.WORDS
  }
  const fitting = Math.max(0, Math.floor((p[element + Sge.LENGTH] - skip) / payloads.bytes))
  const written = fitting < payloads.count ? fitting : payloads.count
  s.result.written = written
  if (written === 0) return OK
  payloads.count = written
  const sum = p[element + Sge.LO] + skip
  return writePayloads(s, row, kind, p[element + Sge.LKEY], upperWord(p[element + Sge.HI], sum), sum >>> 0)
}

/**
 * Writes the single payload of `s.payloads` to the elements of a WQE, from byte `offset` of the message on. `sge`:
 * index of the first element in the pool; `writesNow`: not deferred. Returns a DmaResult.
 */
export const scatter = (
  s: EngineState,
  row: number,
  kind: number,
  sge: number,
  count: number,
  offset: number,
  writesNow: boolean,
): number => {
  const p = s.pool
  const { arena, at, bytes } = s.payloads
  let skip = offset
  let done = 0
  for (let i = 0, element = sge; i < count && done < bytes; i++, element += Sge.WORDS) {
    const length = p[element + Sge.LENGTH]
    if (skip >= length) {
      skip -= length
      continue
    }
    const sum = p[element + Sge.LO] + skip
    const hi = upperWord(p[element + Sge.HI], sum)
    const lo = sum >>> 0
    const size = length - skip < bytes - done ? length - skip : bytes - done
    skip = 0
    if (size !== bytes) setPayload(s, arena, at + done, size)
    const result = writesNow
      ? writePayloadNow(s, row, kind, p[element + Sge.LKEY], hi, lo)
      : writePayloads(s, row, kind, p[element + Sge.LKEY], hi, lo)
    if (result !== OK) return result
    done += size
  }
  return done === bytes ? OK : NO_REGION
}
