/*
 * Causes of failures in the engine (spec/check/causes.ts). A check that fails sets `s.result.cause`. The function that
 * completes the request takes the cause from there. If earlier requests are outstanding, the cause is stored until they
 * have completed. No later request is sent, so a queue pair has at most one stored cause. This code may allocate: it
 * does not run for successful requests.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { type Cause, causeOfRule, createCause } from '../../spec/check/causes.ts'
import { joinWords } from '../../spec/memory.ts'
import { doPkeysMatch, PKEY_FULL_MEMBER } from '../wire/bth.ts'
import { QP } from './fields.ts'
import type { EngineState } from './state.ts'
import { Access } from './types.ts'

const REMOTE_RIGHTS = ~Access.LOCAL_WRITE

/** The cause when a message of an unreliable service finds no receive request. */
export const NO_RECEIVE = createCause('NO_RECEIVE', {})

/** The cause when two ends may not exchange packets: the P_Key of a packet of `sourceQpn`, and that of its receiver. */
export const partitionCause = (sourceQpn: number, packetPkey: number, qpn: number, pkey: number): Cause => {
  if (pkey === 0 || packetPkey === 0) return createCause('PKEY_EMPTY', { qpn: pkey === 0 ? qpn : sourceQpn })
  return doPkeysMatch(packetPkey, pkey | PKEY_FULL_MEMBER)
    ? createCause('PKEY_LIMITED', { sourceQpn, qpn, pkey })
    : createCause('PKEY_DIFFERS', { sourceQpn, packetPkey, qpn, pkey })
}

const rangeOf = (key: number, hi: number, lo: number, length: number) => {
  const accessStart = joinWords(hi, lo)
  return { key: key >>> 0, accessStart, accessEnd: accessStart + BigInt(length) }
}

/** Sets the cause after `Memory.resolve` has refused these arguments. */
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
    createCause((access & REMOTE_RIGHTS) !== 0 ? 'RKEY_REFUSED' : 'LKEY_REFUSED', rangeOf(key, hi, lo, length))
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
  const isRemote = (access & REMOTE_RIGHTS) !== 0
  const { memory } = s.env
  const injected = memory.injectedFault?.()
  if (injected !== undefined) {
    s.result.cause = causeOfRule(injected)
    return
  }
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

/** Stores the cause of a request that has failed locally. Returns `status`. */
export const storeCause = (s: EngineState, row: number, status: number, cause: Cause): number => {
  s.storedCauses.set(row, cause)
  return status
}

export const takeStoredCause = (s: EngineState, row: number): Cause => {
  const cause = s.storedCauses.get(row) ?? createCause('REFUSED', {})
  s.storedCauses.delete(row)
  return cause
}

/**
 * The cause when the peer's NAK refuses the oldest request: what the peer's device reports (`Causes.causeAtPeer`), or
 * `nakCause` if that is unknown.
 */
export const peerCause = (s: EngineState, row: number, nakCause: Cause): Cause =>
  s.env.causes?.causeAtPeer(row, s.rows[row * QP.WORDS + QP.COMP_PSN]) ?? nakCause

/** Counts an RNR NAK for the oldest unacknowledged PSN; returns the count for this PSN. `now`: microseconds. */
export const countRnrNak = (s: EngineState, row: number, now: number): number => {
  const psn = s.rows[row * QP.WORDS + QP.COMP_PSN]
  const counted = s.rnrNaks.get(row)
  if (counted?.psn === psn) return ++counted.times
  s.rnrNaks.set(row, { psn, times: 1, since: now })
  return 1
}

/** Number of RNR NAKs for the oldest unacknowledged PSN. */
export const rnrNaksOf = (s: EngineState, row: number): number => {
  const counted = s.rnrNaks.get(row)
  return counted !== undefined && counted.psn === s.rows[row * QP.WORDS + QP.COMP_PSN] ? counted.times : 0
}

/** Clears the stored cause and the RNR NAK count of a row that is reset or destroyed. */
export const forgetCauses = (s: EngineState, row: number): void => {
  if (s.storedCauses.size > 0) s.storedCauses.delete(row)
  if (s.rnrNaks.size > 0) s.rnrNaks.delete(row)
}
