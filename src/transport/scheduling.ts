/*
 * Results of turns and steps, and the requester's cursor: common to packets (transport/requester/requester.ts) and to
 * messages between local queue pairs (transport/loopback/slices.ts).
 */
import { WcStatus } from '../spec/work.ts'
import { keepCause, takeCause } from './causes.ts'
import { QP, ReqFlag, WQE } from './fields.ts'
import { psnAdd, psnDistance } from './psn.ts'
import type { EngineState } from './state.ts'
import { clearTimer } from './timers.ts'

const { LOC_PROT_ERR } = WcStatus.values

/** Result of a turn of a QP. */
export const Turn = { DONE: 0, MORE: 1, FULL: -1 } as const

/** Result of one step of a WQE. REFUSES: it completes with its `STATUS`. */
export const Step = { SENT_SOME: 1, WAITS: 0, PORT_FULL: -1, REFUSES: -2 } as const

/** After packets were sent: advances the cursor by `count` PSNs and `weight` window bytes. */
export const advance = (
  s: EngineState,
  row: number,
  request: number,
  count: number,
  weight: number,
  ends: boolean,
): void => {
  const w = s.rows
  const base = row * QP.WORDS
  const psn = psnAdd(w[base + QP.REQ_PSN], count)
  const unacked = w[base + QP.COMP_PSN]
  w[base + QP.REQ_PSN] = psn
  // distances from the oldest PSN: a READ of 2^23 PSNs ends as far ahead as a PSN can be
  if (psnDistance(unacked, psn) > psnDistance(unacked, w[base + QP.REQ_MAX_PSN])) w[base + QP.REQ_MAX_PSN] = psn
  w[base + QP.REQ_SENT_BYTES] += weight
  if (ends) w[base + QP.REQ_CURRENT] = s.pool[request + WQE.NEXT]
}

/** Client memory could not be accessed: sets the status of the WQE. */
export const failLocalAccess = (s: EngineState, row: number, request: number): number => {
  s.pool[request + WQE.STATUS] = keepCause(s, row, LOC_PROT_ERR, takeCause(s))
  return Step.REFUSES
}

/** Go-back-N: sending starts again from the oldest unacknowledged PSN. */
export const goBack = (s: EngineState, row: number): void => {
  const w = s.rows
  const p = s.pool
  const base = row * QP.WORDS
  w[base + QP.REQ_PSN] = w[base + QP.COMP_PSN]
  w[base + QP.REQ_SENT_BYTES] = w[base + QP.COMP_ACKED_BYTES]
  w[base + QP.REQ_BYTES_SINCE_ACKREQ] = 0
  w[base + QP.REQ_CURRENT] = w[base + QP.REQ_HEAD]
  w[base + QP.REQ_RD_ATOMIC] = 0
  w[base + QP.REQ_FLAGS] &= ~ReqFlag.LATE
  for (let request = w[base + QP.REQ_HEAD]; request !== 0; request = p[request + WQE.NEXT]) p[request + WQE.COUNTED] = 0
  clearTimer(s.timers, row)
  s.counters.retransmissions++
}
