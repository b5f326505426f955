/*
 * Sending, for packets (transport/engine/requester/requester.ts) and for messages between local queue pairs
 * (transport/engine/loopback/slices.ts): result codes, and the requester's cursor, which is the PSN and the WQE to send
 * next. state.ts explains short names such as `row`, `base` and `request`.
 */
import { WcStatus } from '../../spec/work.ts'
import { storeCause, takeCause } from './causes.ts'
import { QP, ReqFlag, WQE } from './fields.ts'
import { psnAdd, psnDistance } from './psn.ts'
import type { EngineState } from './state.ts'
import { clearTimer } from './timers.ts'

const { LOC_PROT_ERR } = WcStatus.values

/**
 * Result of polling a row (queue pair), or all scheduled rows. DONE: nothing more can be sent now; MORE: poll again;
 * PAUSE: poll again after others, because a packet took long (`isScattered`); FULL: the port is full.
 */
export const PollResult = { DONE: 0, MORE: 1, PAUSE: 2, FULL: -1 } as const

/**
 * Result of one sending step of a WQE. WAITS: for a window, a fence or a response, or after a NAK; FAILS: the WQE
 * completes with its `WQE.STATUS`.
 */
export const Step = { SENT_SOME: 1, WAITS: 0, PORT_FULL: -1, FAILS: -2 } as const

/**
 * Advances the cursor by `count` PSNs of a WQE: those of packets that were sent, or of responses that a READ requested;
 * 0 for a local operation or a datagram that is not sent. `weight`: the window bytes that they count as; `ends`: they
 * were the last of the WQE.
 */
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
  // PSNs are compared by their distance from the oldest unacknowledged one, because a READ may have 2^23 PSNs.
  if (psnDistance(unacked, psn) > psnDistance(unacked, w[base + QP.REQ_MAX_PSN])) w[base + QP.REQ_MAX_PSN] = psn
  w[base + QP.REQ_SENT_BYTES] += weight
  if (ends) w[base + QP.REQ_CURRENT] = s.pool[request + WQE.NEXT]
}

/**
 * Whether memory of a queue pair may be scattered (`Memory.isScattered`). Then a copy is of one packet, so that a poll
 * can end after it (`isBusy`).
 */
export const isScattered = (s: EngineState, row: number): boolean => {
  const { memory } = s.env
  const base = row * QP.WORDS
  return memory.isScattered?.(s.rows[base + QP.PD]) === true || memory.isScattered?.(s.rows[base + QP.RECV_PD]) === true
}

/**
 * A poll in which copies have accessed so many ranges copies no more to or from scattered memory: half a millisecond.
 */
const MAX_RANGES = 512

/** Whether copies of scattered memory in this poll have taken so long that others come first. */
export const isBusy = (s: EngineState): boolean =>
  s.env.memory.rangeAccesses !== undefined && s.env.memory.rangeAccesses() - s.rangesBefore >= MAX_RANGES

/** Sets the status of a WQE whose client memory could not be accessed; returns Step.FAILS. */
export const failLocalAccess = (s: EngineState, row: number, request: number): number => {
  s.pool[request + WQE.STATUS] = storeCause(s, row, LOC_PROT_ERR, takeCause(s))
  return Step.FAILS
}

/** Go-back-N: sending restarts at the oldest unacknowledged PSN. */
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
