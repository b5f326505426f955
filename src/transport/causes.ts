/*
 * What the engine says about its failures (spec/causes.ts). A step that finds that memory or a request is refused notes
 * why in `s.result.cause`, and whoever ends the request takes it from there. A request that cannot be sent, but is not the
 * oldest yet, leaves its cause by its row: nothing behind it is sent, so there is at most one. Only failing paths come
 * here; they may allocate.
 */
import { because, type Cause } from '../spec/causes.ts'
import { QP } from './fields.ts'
import type { EngineState } from './state.ts'
import { Access } from './types.ts'

const REMOTE = ~Access.LOCAL_WRITE

/** An address as arguments of causes have it. */
export const addressOf = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0)

const rangeOf = (key: number, hi: number, lo: number, length: number) => {
  const from = addressOf(hi, lo)
  return { key: key >>> 0, from, to: from + BigInt(length) }
}

/** `resolve` has refused these arguments: notes why. */
export const noteRefusedKey = (
  s: EngineState,
  pd: number,
  key: number,
  hi: number,
  lo: number,
  length: number,
  access: number,
  qp: number,
): void => {
  s.result.cause =
    s.env.memory.explain?.(pd, key, hi, lo, length, access, qp) ??
    because((access & REMOTE) !== 0 ? 'RKEY_REFUSED' : 'LKEY_REFUSED', rangeOf(key, hi, lo, length))
}

/** A move of bytes has failed: notes why. */
export const noteMemoryFault = (
  s: EngineState,
  key: number,
  hi: number,
  lo: number,
  length: number,
  access: number,
): void => {
  const isRemote = (access & REMOTE) !== 0
  const { memory } = s.env
  s.result.cause = memory.vanished()
    ? because(isRemote ? 'REMOTE_ENDED' : 'LOCAL_ENDED', {})
    : memory.tooSlow?.()
      ? because(isRemote ? 'REMOTE_SLOW' : 'LOCAL_SLOW', rangeOf(key, hi, lo, length))
      : because(isRemote ? 'REMOTE_FAULT' : 'LOCAL_FAULT', rangeOf(key, hi, lo, length))
}

/** What was noted last. */
export const takeCause = (s: EngineState): Cause => {
  const cause = s.result.cause ?? because('REFUSED', {})
  s.result.cause = undefined
  return cause
}

/** The request that is to be sent next cannot be; answers the status with which it ends. */
export const keepCause = (s: EngineState, row: number, status: number, cause: Cause): number => {
  s.stopped.set(row, cause)
  return status
}

/** The cause that was kept for a row. */
export const keptCause = (s: EngineState, row: number): Cause => {
  const cause = s.stopped.get(row) ?? because('REFUSED', {})
  s.stopped.delete(row)
  return cause
}

/** The peer says with a NAK that the oldest request is refused: its own words if it is of this daemon. */
export const peerCause = (s: EngineState, row: number, byCode: Cause): Cause =>
  s.env.causes?.ofPeer(row, s.rows[row * QP.WORDS + QP.COMP_PSN]) ?? byCode

/** An RNR NAK for the oldest PSN: counts how often that was. */
export const countRnrNak = (s: EngineState, row: number): number => {
  const psn = s.rows[row * QP.WORDS + QP.COMP_PSN]
  const before = s.notReady.get(row)
  const times = before !== undefined && before.psn === psn ? before.times + 1 : 1
  if (before === undefined) s.notReady.set(row, { psn, times })
  else {
    before.psn = psn
    before.times = times
  }
  return times
}

/** How many RNR NAKs the oldest PSN has got; 0 if the peer is ready. */
export const rnrNakCount = (s: EngineState, row: number): number => {
  const seen = s.notReady.get(row)
  return seen !== undefined && seen.psn === s.rows[row * QP.WORDS + QP.COMP_PSN] ? seen.times : 0
}

/** The queue pair begins anew. */
export const forgetCauses = (s: EngineState, row: number): void => {
  if (s.stopped.size > 0) s.stopped.delete(row)
  if (s.notReady.size > 0) s.notReady.delete(row)
}
