/*
 * Causes of failures in the engine (spec/causes.ts). A step that refuses an access or a request sets `s.result.cause`;
 * the function that completes the request takes it from there. If the next request cannot be sent, but earlier ones are
 * outstanding, its cause is kept with its row: no later request is sent, so there is at most one per row. Only failing
 * paths run this code; it may allocate.
 */
import { because, type Cause } from '../spec/causes.ts'
import { QP } from './fields.ts'
import type { EngineState } from './state.ts'
import { Access } from './types.ts'

const REMOTE = ~Access.LOCAL_WRITE

/** A message of an unreliable service meets no receive request. */
export const NO_RECEIVE = because('NO_RECEIVE', {})

/** An address in the form that arguments of causes have. */
export const addressOf = (hi: number, lo: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0)

const rangeOf = (key: number, hi: number, lo: number, length: number) => {
  const from = addressOf(hi, lo)
  return { key: key >>> 0, from, to: from + BigInt(length) }
}

/** `resolve` has refused these arguments: sets the cause. */
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

/** A read or write of memory has failed: sets the cause. */
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

/** Takes the cause that was set last. */
export const takeCause = (s: EngineState): Cause => {
  const cause = s.result.cause ?? because('REFUSED', {})
  s.result.cause = undefined
  return cause
}

/** The next request to send is refused: keeps the cause. Returns the status with which the request completes. */
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

/** The peer's NAK refuses the oldest request: the peer's own cause if it is of this daemon. */
export const peerCause = (s: EngineState, row: number, byCode: Cause): Cause =>
  s.env.causes?.ofPeer(row, s.rows[row * QP.WORDS + QP.COMP_PSN]) ?? byCode

/** An RNR NAK for the oldest PSN: returns how many it has had. */
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

/** RESET or destroy. */
export const forgetCauses = (s: EngineState, row: number): void => {
  if (s.stopped.size > 0) s.stopped.delete(row)
  if (s.notReady.size > 0) s.notReady.delete(row)
}
