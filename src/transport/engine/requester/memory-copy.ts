/*
 * MEMCPY, a driver's request that copies bytes within the memory of the program, from one key to another. A copy takes
 * slices: after each of them other rows may have their turn. The keys are looked up anew for each slice.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { WrOpcode } from '../../../spec/work.ts'
import { upperWord } from '../address.ts'
import { noteMemoryFault, noteRefusedKey } from '../causes.ts'
import { QP, WQE } from '../fields.ts'
import { scratchFor } from '../run.ts'
import { failLocalAccess, Step } from '../scheduling.ts'
import { type EngineState, MAX_LOCAL_BYTES } from '../state.ts'
import { Access, Copy, Send, Sge } from '../types.ts'

const { MEMCPY } = WrOpcode.values
const { LOCAL_READ, LOCAL_WRITE } = Access
const { SENT_SOME, PORT_FULL } = Step

const SLICE_BYTES = 0x8000
/** If ranges of a key may have few bytes: each is a copy of its own. */
const SCATTERED_BYTES = 0x1000

/** Of a reservation, perhaps not in use. */
const RESERVED_BYTES = 16

/** Not a `Step`: all is copied. */
export const ENDED = 2

/** Whether a local operation is a copy that has not ended. */
export const isCopy = ({ pool }: EngineState, request: number): boolean =>
  pool[request + WQE.WR + Send.OPCODE] === MEMCPY && pool[request + WQE.DONE] === 0

/** Copies a slice. Returns ENDED, or a `Step`. */
export const copySlice = (s: EngineState, row: number, request: number): number => {
  const p = s.pool
  const base = row * QP.WORDS
  const wr = request + WQE.WR
  const pd = s.rows[base + QP.PD]
  const isScattered = s.env.memory.isScattered?.(pd) === true
  const done = p[wr + Copy.DONE]
  const left = p[wr + Send.LENGTH] - done
  const bytes = Math.min(left, isScattered ? SCATTERED_BYTES : SLICE_BYTES, s.sink!.maxBytes - RESERVED_BYTES)
  const at = scratchFor(s, bytes)
  if (at < 0) return PORT_FULL
  const isCopied =
    access(s, row, wr + Send.SGE, done, bytes, at, LOCAL_READ) &&
    access(s, row, wr + Send.SGE + Sge.WORDS, done, bytes, at, LOCAL_WRITE)
  if (!isCopied) return failLocalAccess(s, row, request)
  s.localBytes += isScattered ? MAX_LOCAL_BYTES : bytes
  p[wr + Copy.DONE] = done + bytes
  return bytes === left ? ENDED : SENT_SOME
}

/** Reads bytes of an element to the sink's arena, or writes them from there. False: sets the cause. */
const access = (
  s: EngineState,
  row: number,
  sge: number,
  offset: number,
  bytes: number,
  at: number,
  right: number,
): boolean => {
  const p = s.pool
  const { memory } = s.env
  const { arena } = s.sink!
  const base = row * QP.WORDS
  const pd = s.rows[base + QP.PD]
  const qpn = s.rows[base + QP.QPN]
  const key = p[sge + Sge.LKEY]
  const sum = p[sge + Sge.LO] + offset
  const hi = upperWord(p[sge + Sge.HI], sum)
  const lo = sum >>> 0
  const region = memory.resolve(pd, key, hi, lo, bytes, right, qpn)
  if (region < 0) {
    noteRefusedKey(s, pd, key, hi, lo, bytes, right, qpn)
    return false
  }
  const errno =
    right === LOCAL_READ
      ? memory.read(region, hi, lo, arena, at, bytes, bytes, bytes)
      : memory.write(region, hi, lo, arena, at, bytes, bytes, bytes, true)
  if (errno !== 0) noteMemoryFault(s, key, hi, lo, bytes, right)
  return errno === 0
}
