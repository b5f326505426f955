/*
 * The expected output of test/programs/pairs/outcomes.c. userdma as responder follows the InfiniBand specification.
 * Linux's rxe differs (docs/reference/conformance.md lists the differences).
 *
 * A line has the wr_id and the status of each completion (ibv_wc_status_str), then the state of the queue pair (enum
 * ibv_qp_state): 3 is RTS, 6 ERR; 7 is UNKNOWN, for a destroyed queue pair.
 */
import assert from 'node:assert/strict'

type Responder = 'userdma' | 'Linux'

interface Outcome {
  readonly requester: string
  readonly responder: string
}

const FLUSHED = 'Work Request Flushed Error'

const failed = (status: string, responder: string): Outcome => ({
  requester: `1 ${status}; 2 ${FLUSHED}; state 6`,
  responder,
})
const bothSucceed: Outcome = {
  requester: '1 success; 2 success; state 3',
  responder: '100 success; 101 success; state 3',
}
const refused = failed('remote access error', `100 ${FLUSHED}; 101 ${FLUSHED}; state 6`)
const notReady = failed('RNR retry counter exceeded', 'state 3')

/** A SEND longer than its receive is an invalid request; Linux's rxe reports an operation error. */
const shortReceive: Readonly<Record<Responder, Outcome>> = {
  userdma: failed('remote invalid request error', `100 local length error; 101 ${FLUSHED}; state 6`),
  Linux: failed('remote operation error', `100 local QP operation error; 101 ${FLUSHED}; state 6`),
}

const outcomes = (responder: Responder): Readonly<Record<string, Outcome>> => ({
  write_imm: bothSucceed,
  write_bad_rkey: refused,
  long_write_bad_rkey: refused,
  read_bad_rkey: refused,
  atomic_bad_rkey: refused,
  write_past_end: refused,
  read_past_end: refused,
  write_not_allowed: refused,
  atomic_not_allowed: refused,
  short_receive: shortReceive[responder],
  long_short_receive: shortReceive[responder],
  no_receive: notReady,
  write_imm_no_receive: notReady,
  late_receive: bothSucceed,
  write_imm_late_receive: bothSucceed,
  no_answer: failed('transport retry counter exceeded', 'state 7'),
})

export const assertOutcomes = (responder: Responder, requesterOutput: string, responderOutput: string): void => {
  const expected = Object.entries(outcomes(responder))
  const lines = (end: keyof Outcome): string => expected.map(([name, one]) => `${name}: ${one[end]}\n`).join('')
  assert.equal(requesterOutput, lines('requester'), 'the requester')
  assert.equal(responderOutput, lines('responder'), 'the responder')
}
