/*
 * What turns of queue pairs and steps of requests end with, and what each step does to a queue pair's cursor,
 * whichever way the bytes go: as packets (transport/requester/requester.ts) or straight to a queue pair of this
 * process (transport/loopback/slices.ts).
 */
import { WcStatus } from '../spec/work.ts'
import { keepCause, takeCause } from './causes.ts'
import { psnAdd, psnDistance } from './psn.ts'
import { type EngineState, Q, Request, Row } from './state.ts'
import { clearTimer } from './timers.ts'

const { WORDS, REQUESTER, HEAD, CURRENT, UNACKED, SEND_PSN, MAX_PSN, SENT, ACKED, SINCE, RD_OUT } = Row
const { NEXT, COUNTED, STATUS } = Request
const { LOC_PROT_ERR } = WcStatus.values

/** What a turn of a QP ended with. */
export const Turn = { DONE: 0, MORE: 1, FULL: -1 } as const

/** What one step of a request ended with. REFUSES: it is to end with its `STATUS`. */
export const Step = { SENT_SOME: 1, WAITS: 0, PORT_FULL: -1, REFUSES: -2 } as const

/** After packets were sent: moves the cursor on by `count` PSNs and `weight` window bytes. */
export const advance = (
  s: EngineState,
  row: number,
  request: number,
  count: number,
  weight: number,
  ends: boolean,
): void => {
  const w = s.rows
  const base = row * WORDS
  const psn = psnAdd(w[base + SEND_PSN], count)
  const unacked = w[base + UNACKED]
  w[base + SEND_PSN] = psn
  // distances from the oldest one: a READ of 2^23 PSNs ends as far ahead as a PSN can be
  if (psnDistance(unacked, psn) > psnDistance(unacked, w[base + MAX_PSN])) w[base + MAX_PSN] = psn
  w[base + SENT] += weight
  if (ends) w[base + CURRENT] = s.pool[request + NEXT]
}

/** Client memory could not be read or written: the status of the request. */
export const failLocalAccess = (s: EngineState, row: number, request: number): number => {
  s.pool[request + STATUS] = keepCause(s, row, LOC_PROT_ERR, takeCause(s))
  return Step.REFUSES
}

/** Sending starts again from the oldest unacknowledged PSN. */
export const goBack = (s: EngineState, row: number): void => {
  const w = s.rows
  const p = s.pool
  const base = row * WORDS
  w[base + SEND_PSN] = w[base + UNACKED]
  w[base + SENT] = w[base + ACKED]
  w[base + SINCE] = 0
  w[base + CURRENT] = w[base + HEAD]
  w[base + RD_OUT] = 0
  w[base + REQUESTER] &= ~Q.LATE
  for (let request = w[base + HEAD]; request !== 0; request = p[request + NEXT]) p[request + COUNTED] = 0
  clearTimer(s.timers, row)
  s.counters.retransmissions++
}
