/*
 * Copies between packets and client memory. `gather` reads part of a message into the payloads of a run. Writes are
 * deferred: consecutive packets whose payloads go to consecutive addresses become one strided write, executed at a gap,
 * before a completion, and at the end of a burst. Nothing is acknowledged before it is written
 * (docs/decisions/client-memory.md).
 *
 * Keys are resolved when a DMA is queued, so that a peer's mistake is reported for the right packet, and again when it
 * is executed, since the region may have been deregistered in between. The caller, or `onDmaFailed`, decides which side
 * a failure is attributed to.
 */
import { SendFlags } from '../spec/work.ts'
import type { Arena } from '../wire/arena.ts'
import { upperWord } from './address.ts'
import { noteMemoryFault, noteRefusedKey } from './causes.ts'
import { DMA, QP, WQE } from './fields.ts'
import type { EngineState } from './state.ts'
import { Access, Send, Sge } from './types.ts'

const { LOCAL_READ, LOCAL_WRITE, REMOTE_WRITE } = Access
const INLINE = SendFlags.values.INLINE

/** Result of a DMA. */
export const DmaResult = { OK: 0, NO_REGION: 1, FAULT: 2 } as const
const { OK, NO_REGION, FAULT } = DmaResult

/** The messages that a DMA writes to memory: a WRITE, a SEND, or a READ response. */
export const DmaKind = { WRITE: 1, RECEIVE: 2, READ_RESPONSE: 3 } as const

/** The protection domain in which the key is resolved. */
const domainOf = (s: EngineState, row: number, kind: number): number =>
  s.rows[row * QP.WORDS + (kind === DmaKind.RECEIVE ? QP.RECV_PD : QP.PD)]

/** Sets the cause after `Memory.resolve` has refused. */
const noRegion = (
  s: EngineState,
  pd: number,
  key: number,
  hi: number,
  lo: number,
  length: number,
  access: number,
  qp: number,
): number => {
  noteRefusedKey(s, pd, key, hi, lo, length, access, qp)
  return NO_REGION
}

/** Sets the cause after memory could not be accessed. */
const fault = (s: EngineState, key: number, hi: number, lo: number, length: number, access: number): number => {
  noteMemoryFault(s, key, hi, lo, length, access)
  return FAULT
}

/**
 * Reads `total` bytes of a send WQE's data, from byte `from` of the message on, into chunks of `chunk` bytes every
 * `stride` bytes. Returns a DmaResult.
 */
export const gather = (
  s: EngineState,
  row: number,
  request: number,
  from: number,
  total: number,
  to: Arena,
  at: number,
  chunk: number,
  stride: number,
): number => {
  const p = s.pool
  const wr = request + WQE.WR
  const memory = s.env.memory
  if ((p[wr + Send.FLAGS] & INLINE) !== 0) {
    s.env.work.copyInline(row, p[wr + Send.INLINE_AT], from, to, at, chunk, stride, total)
    return OK
  }
  const pd = s.rows[row * QP.WORDS + QP.PD]
  const qp = s.rows[row * QP.WORDS + QP.QPN]
  const count = p[wr + Send.SGES]
  let sge = wr + Send.SGE
  if (count === 1) {
    const end = p[sge + Sge.LO] + from
    const lo = end >>> 0
    const hi = upperWord(p[sge + Sge.HI], end)
    const region = memory.resolve(pd, p[sge + Sge.LKEY], hi, lo, total, LOCAL_READ, qp)
    if (region < 0) return noRegion(s, pd, p[sge + Sge.LKEY], hi, lo, total, LOCAL_READ, qp)
    if (memory.read(region, hi, lo, to, at, chunk, stride, total) === 0) return OK
    return fault(s, p[sge + Sge.LKEY], hi, lo, total, LOCAL_READ)
  }
  let skip = from
  let left = total
  let piece = at
  let within = 0
  for (let i = 0; i < count && left > 0; i++, sge += Sge.WORDS) {
    const length = p[sge + Sge.LENGTH]
    if (skip >= length) {
      skip -= length
      continue
    }
    const sum = p[sge + Sge.LO] + skip
    const hi = upperWord(p[sge + Sge.HI], sum)
    const lo = sum >>> 0
    let n = length - skip < left ? length - skip : left
    skip = 0
    left -= n
    const region = memory.resolve(pd, p[sge + Sge.LKEY], hi, lo, n, LOCAL_READ, qp)
    if (region < 0) return noRegion(s, pd, p[sge + Sge.LKEY], hi, lo, n, LOCAL_READ, qp)
    let done = 0
    if (within > 0) {
      const head = chunk - within < n ? chunk - within : n
      if (memory.read(region, hi, lo, to, piece + within, head, head, head) !== 0)
        return fault(s, p[sge + Sge.LKEY], hi, lo, head, LOCAL_READ)
      within += head
      if (within === chunk) {
        within = 0
        piece += stride
      }
      done = head
      n -= head
    }
    if (n > 0) {
      if (memory.read(region, upperWord(hi, lo + done), (lo + done) >>> 0, to, piece, chunk, stride, n) !== 0)
        return fault(s, p[sge + Sge.LKEY], hi, lo, done + n, LOCAL_READ)
      const wholeChunks = (n / chunk) | 0
      piece += wholeChunks * stride
      within = n - wholeChunks * chunk
    }
  }
  return left === 0 ? OK : NO_REGION
}

/**
 * Whether every scatter/gather element of a WQE grants `access`: DmaResult.OK or NO_REGION. `sge`: index of the first
 * element.
 */
export const checkElements = (s: EngineState, row: number, sge: number, count: number, access: number): number => {
  const p = s.pool
  const pd = s.rows[row * QP.WORDS + QP.PD]
  const qp = s.rows[row * QP.WORDS + QP.QPN]
  for (let i = 0, at = sge; i < count; i++, at += Sge.WORDS) {
    const length = p[at + Sge.LENGTH]
    if (length === 0) continue
    if (s.env.memory.resolve(pd, p[at + Sge.LKEY], p[at + Sge.HI], p[at + Sge.LO], length, access, qp) < 0)
      return noRegion(s, pd, p[at + Sge.LKEY], p[at + Sge.HI], p[at + Sge.LO], length, access, qp)
  }
  return OK
}

/** Sets the payload to write: `bytes` bytes at `at`, of one packet or of a contiguous part of a message. */
export const setPayload = (s: EngineState, arena: Arena, at: number, bytes: number): void =>
  setPayloads(s, arena, at, bytes, bytes, 1)

/** Sets the payloads of `count` packets to write: `bytes` bytes each, every `stride` bytes from `at` on. */
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

/** The access that a key must grant: a peer's WRITE needs remote rights, writing for our own WQEs local rights. */
const accessOf = (kind: number): number => (kind === DmaKind.WRITE ? REMOTE_WRITE : LOCAL_WRITE)

/**
 * Writes `s.payloads` to an address, now or together with what follows. Returns a DmaResult. If an earlier DMA fails
 * meanwhile, `s.onDmaFailed` is called: check the row's state afterwards.
 */
export const writePayloads = (
  s: EngineState,
  row: number,
  kind: number,
  key: number,
  hi: number,
  lo: number,
): number => {
  const m = s.dma
  const { arena, at, bytes, stride, count } = s.payloads
  const length = bytes * count
  if (s.dmaArena !== undefined) {
    if (
      s.dmaArena === arena &&
      m[DMA.CLOSED] === 0 &&
      m[DMA.ROW] === row &&
      m[DMA.KIND] === kind &&
      m[DMA.KEY] === key &&
      (count === 1 ? bytes <= m[DMA.CHUNK] : bytes === m[DMA.CHUNK])
    ) {
      const before = m[DMA.PIECES]
      const total = m[DMA.TOTAL]
      const step = before === 1 ? at - m[DMA.AT] : m[DMA.STRIDE]
      const end = m[DMA.LO] + total
      if (
        step >= m[DMA.CHUNK] &&
        (count === 1 || stride === step) &&
        at === m[DMA.AT] + before * step &&
        lo === end >>> 0 &&
        hi === upperWord(m[DMA.HI], end) &&
        total < 0x1000_0000
      ) {
        m[DMA.STRIDE] = step
        m[DMA.PIECES] = before + count
        m[DMA.TOTAL] = total + length
        if (bytes < m[DMA.CHUNK]) m[DMA.CLOSED] = 1
        return OK
      }
    }
    flushDma(s)
  }
  const w = s.rows
  const base = row * QP.WORDS
  const pd = domainOf(s, row, kind)
  const access = accessOf(kind)
  const qp = w[base + QP.QPN]
  if (s.env.memory.resolve(pd, key, hi, lo, length, access, qp) < 0)
    return noRegion(s, pd, key, hi, lo, length, access, qp)
  m[DMA.ROW] = row
  m[DMA.KIND] = kind
  m[DMA.PD] = pd
  m[DMA.KEY] = key
  m[DMA.ACCESS] = access
  m[DMA.HI] = hi
  m[DMA.LO] = lo
  m[DMA.AT] = at
  m[DMA.CHUNK] = bytes
  m[DMA.STRIDE] = stride
  m[DMA.PIECES] = count
  m[DMA.TOTAL] = length
  m[DMA.CLOSED] = 0
  m[DMA.PSN] = w[base + QP.RESP_EPSN]
  m[DMA.MSN] = w[base + QP.RESP_MSN]
  s.dmaArena = arena
  return OK
}

/**
 * As `writePayloads`, but executed immediately, for one payload: of a message of a single packet, or without packets.
 */
export const writePayloadNow = (
  s: EngineState,
  row: number,
  kind: number,
  key: number,
  hi: number,
  lo: number,
): number => {
  if (s.dmaArena !== undefined) flushDma(s)
  const { arena, at, bytes } = s.payloads
  const memory = s.env.memory
  const pd = domainOf(s, row, kind)
  const access = accessOf(kind)
  const qp = s.rows[row * QP.WORDS + QP.QPN]
  const region = memory.resolve(pd, key, hi, lo, bytes, access, qp)
  if (region < 0) return noRegion(s, pd, key, hi, lo, bytes, access, qp)
  if (memory.write(region, hi, lo, arena, at, bytes, bytes, bytes) === 0) return OK
  return fault(s, key, hi, lo, bytes, access)
}

/** Executes the pending DMA, if there is one. */
export const flushDma = (s: EngineState): void => {
  const arena = s.dmaArena
  if (arena === undefined) return
  s.dmaArena = undefined
  const m = s.dma
  const memory = s.env.memory
  const qp = s.rows[m[DMA.ROW] * QP.WORDS + QP.QPN]
  const region = memory.resolve(m[DMA.PD], m[DMA.KEY], m[DMA.HI], m[DMA.LO], m[DMA.TOTAL], m[DMA.ACCESS], qp)
  const why =
    region < 0
      ? noRegion(s, m[DMA.PD], m[DMA.KEY], m[DMA.HI], m[DMA.LO], m[DMA.TOTAL], m[DMA.ACCESS], qp)
      : memory.write(region, m[DMA.HI], m[DMA.LO], arena, m[DMA.AT], m[DMA.CHUNK], m[DMA.STRIDE], m[DMA.TOTAL]) === 0
        ? OK
        : fault(s, m[DMA.KEY], m[DMA.HI], m[DMA.LO], m[DMA.TOTAL], m[DMA.ACCESS])
  if (why !== OK) s.onDmaFailed(s, m[DMA.ROW], m[DMA.KIND], why, m[DMA.PSN], m[DMA.MSN])
}

/** Executes the pending DMA if it belongs to `row`. */
export const flushDmaOf = (s: EngineState, row: number): void => {
  if (s.dmaArena !== undefined && s.dma[DMA.ROW] === row) flushDma(s)
}

/**
 * Writes as many of `s.payloads` as fit into the element that contains byte `offset` of the message; `s.result.taken`
 * tells how many. `sge`: the first of `count` elements. Returns a DmaResult.
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
  let e = sge
  const last = sge + (count - 1) * Sge.WORDS
  while (e < last && skip >= p[e + Sge.LENGTH]) {
    skip -= p[e + Sge.LENGTH]
    e += Sge.WORDS
  }
  const fit = Math.floor((p[e + Sge.LENGTH] - skip) / payloads.bytes)
  const taken = fit < payloads.count ? (fit > 0 ? fit : 0) : payloads.count
  s.result.taken = taken
  if (taken === 0) return OK
  payloads.count = taken
  const end = p[e + Sge.LO] + skip
  return writePayloads(s, row, kind, p[e + Sge.LKEY], upperWord(p[e + Sge.HI], end), end >>> 0)
}

/**
 * Writes the single payload of `s.payloads` to the elements of a WQE, from byte `offset` of the message on. `sge`: the
 * first of `count` elements; `now`: immediately. Returns a DmaResult.
 */
export const scatter = (
  s: EngineState,
  row: number,
  kind: number,
  sge: number,
  count: number,
  offset: number,
  now: boolean,
): number => {
  const p = s.pool
  const { arena, at, bytes } = s.payloads
  let skip = offset
  let done = 0
  for (let i = 0, e = sge; i < count && done < bytes; i++, e += Sge.WORDS) {
    const size = p[e + Sge.LENGTH]
    if (skip >= size) {
      skip -= size
      continue
    }
    const end = p[e + Sge.LO] + skip
    const hi = upperWord(p[e + Sge.HI], end)
    const lo = end >>> 0
    const n = size - skip < bytes - done ? size - skip : bytes - done
    skip = 0
    if (n !== bytes) setPayload(s, arena, at + done, n)
    const why = now
      ? writePayloadNow(s, row, kind, p[e + Sge.LKEY], hi, lo)
      : writePayloads(s, row, kind, p[e + Sge.LKEY], hi, lo)
    if (why !== OK) return why
    done += n
  }
  return done === bytes ? OK : NO_REGION
}
