/*
 * Causes of failures in the engine (spec/check/causes.ts). A step that refuses an access or a request sets
 * `s.result.cause`; the function that completes the request takes it from there. If a request fails locally while
 * earlier ones are outstanding, its cause is stored until they have completed: no later request is sent, so there is at
 * most one stored cause per queue pair. Only failures, RNR NAKs and changes of a QP's state run this code; it may
 * allocate.
 */
import { type Cause, createCause } from '../spec/check/causes.ts'
import { joinWords } from '../spec/memory.ts'
import { QP } from './fields.ts'
import type { EngineState } from './state.ts'
import { Access } from './types.ts'

/** Bits of all rights but the local ones: they are checked for a peer's request. */
const REMOTE = ~Access.LOCAL_WRITE

/** The cause when a message of an unreliable service finds no receive request. */
export const NO_RECEIVE = createCause('NO_RECEIVE', {})

const rangeOf = (key: number, hi: number, lo: number, length: number) => {
  const accessStart = joinWords(hi, lo)
  return { key: key >>> 0, accessStart, accessEnd: accessStart + BigInt(length) }
}

/** Sets the cause after `resolve` has refused these arguments. */
export const noteRefusedKey = (
  s: EngineState,
  pd: number,
  key: number,
  hi: number,
  lo: number,
  length: number,
  access: number,
  qpn: number,
): void => {
  s.result.cause =
    s.env.memory.explain?.(pd, key, hi, lo, length, access, qpn) ??
    createCause((access & REMOTE) !== 0 ? 'RKEY_REFUSED' : 'LKEY_REFUSED', rangeOf(key, hi, lo, length))
}

/** Sets the cause after a read or write of memory has failed. */
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
  s.result.cause = memory.hasProcessEnded()
    ? createCause(isRemote ? 'REMOTE_ENDED' : 'LOCAL_ENDED', {})
    : memory.hasTimedOut?.()
      ? createCause(isRemote ? 'REMOTE_SLOW' : 'LOCAL_SLOW', rangeOf(key, hi, lo, length))
      : createCause(isRemote ? 'REMOTE_FAULT' : 'LOCAL_FAULT', rangeOf(key, hi, lo, length))
}

/** Returns the cause that was set last, and clears it. */
export const takeCause = (s: EngineState): Cause => {
  const cause = s.result.cause ?? createCause('REFUSED', {})
  s.result.cause = undefined
  return cause
}

/** Stores the cause of a request that has failed locally. Returns `status`, with which the request will complete. */
export const storeCause = (s: EngineState, row: number, status: number, cause: Cause): number => {
  s.stoppedCauses.set(row, cause)
  return status
}

/** Returns and clears the cause stored for a row. */
export const takeStoredCause = (s: EngineState, row: number): Cause => {
  const cause = s.stoppedCauses.get(row) ?? createCause('REFUSED', {})
  s.stoppedCauses.delete(row)
  return cause
}

/**
 * The cause when the peer's NAK refuses the oldest request: the peer's own if it is known (`Causes.causeAtPeer`),
 * otherwise `nakCause`, the cause for the NAK code.
 */
export const peerCause = (s: EngineState, row: number, nakCause: Cause): Cause =>
  s.env.causes?.causeAtPeer(row, s.rows[row * QP.WORDS + QP.COMP_PSN]) ?? nakCause

/** Counts an RNR NAK for the oldest unacknowledged PSN; returns how many were counted for it so far. */
export const countRnrNak = (s: EngineState, row: number): number => {
  const psn = s.rows[row * QP.WORDS + QP.COMP_PSN]
  const counted = s.rnrNaks.get(row)
  const times = counted !== undefined && counted.psn === psn ? counted.times + 1 : 1
  if (counted === undefined) s.rnrNaks.set(row, { psn, times })
  else {
    counted.psn = psn
    counted.times = times
  }
  return times
}

/** Clears the stored cause and the RNR NAK count of a row that is reset, is destroyed or enters ERR. */
export const forgetCauses = (s: EngineState, row: number): void => {
  if (s.stoppedCauses.size > 0) s.stoppedCauses.delete(row)
  if (s.rnrNaks.size > 0) s.rnrNaks.delete(row)
}
