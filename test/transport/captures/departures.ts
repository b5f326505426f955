/*
 * Forged packets that Linux's rxe answers differently: per case, the reply fields that differ, the final state and
 * completions of our queue pair, the reason, and the clause of the InfiniBand Architecture Specification, volume 1,
 * that we follow. A difference without a row fails the test, and so does an unused row.
 */
import type { Linux } from './forged.ts'

export interface Departure {
  readonly name: string
  /** Both captures if absent. */
  readonly linux?: Linux
  /** Fields of the only reply → recorded and our value; `packet`: a reply that one of both did not send (`-`). */
  readonly fields: Readonly<Record<string, readonly [recorded: string, ours: string]>>
  /** Our completions, the final state and the value of the atomic word, if they differ. */
  readonly after?: string
  readonly clause: string
  readonly reason: string
}

const flushed = (count: number): string => Array<string>(count).fill('status 5').join('; ')

/** The packet is refused before it consumes a receive WQE: all of them are flushed. */
const REFUSED = `${flushed(8)}; state 6 rq_psn 0x000200; word 5`
const INVALID = ['31', '97'] as const
const NOT_COUNTED = ['1', '0'] as const

export const departures: readonly Departure[] = [
  {
    name: 'duplicate_very_old',
    fields: { 'BTH.psn': ['16777215', '511'] },
    clause: '9.7.5.1',
    reason: 'a duplicate is acknowledged with PSN ePSN - 1, even before the first request; rxe sends PSN -1',
  },
  {
    name: 'first_shorter_than_mtu',
    linux: '6.1',
    fields: { 'AETH.syndrome': INVALID },
    after: REFUSED,
    clause: '9.7.4.1',
    reason: 'FIRST and MIDDLE packets are as long as the path MTU; rxe 6.1 does not check this, 6.12 does',
  },
  {
    name: 'first_shorter_than_mtu',
    linux: '6.12',
    fields: {},
    after: REFUSED,
    clause: '9.7.4.1',
    reason: 'the length is checked before a receive WQE is consumed, so none completes with status 9',
  },
  {
    name: 'only_longer_than_mtu',
    linux: '6.1',
    fields: { 'AETH.syndrome': INVALID, 'AETH.msn': NOT_COUNTED },
    after: REFUSED,
    clause: '9.7.4.1',
    reason: 'no packet is longer than the path MTU; rxe 6.1 does not check this, 6.12 does',
  },
  {
    name: 'only_longer_than_mtu',
    linux: '6.12',
    fields: {},
    after: REFUSED,
    clause: '9.7.4.1',
    reason: 'the length is checked before a receive WQE is consumed',
  },
  {
    name: 'last_empty',
    linux: '6.1',
    fields: { 'AETH.syndrome': INVALID, 'AETH.msn': NOT_COUNTED },
    after: `status 9; ${flushed(7)}; state 6 rq_psn 0x000201; word 5`,
    clause: '9.7.4.1',
    reason: 'a LAST packet carries at least one byte; rxe 6.1 does not check this, 6.12 does',
  },
  {
    name: 'write_over_2gib',
    linux: '6.1',
    fields: { 'AETH.syndrome': ['98', '97'] },
    clause: '9.4.3, 9.9.3',
    reason: 'the limit of 2 GiB is checked before the access rights, as in rxe 6.12',
  },
  {
    name: 'read_huge',
    linux: '6.1',
    fields: { 'AETH.syndrome': ['98', '97'] },
    clause: '9.4.4, 9.9.3',
    reason: 'as write_over_2gib',
  },
  {
    name: 'invalidate_unknown',
    fields: { packet: ['RC_ACKNOWLEDGE', '-'] },
    clause: '9.9.6.3',
    reason: 'class J error: a SEND whose key cannot be invalidated is not acknowledged',
  },
  {
    name: 'opcode_atomic_write',
    linux: '6.1',
    fields: { packet: ['-', 'RC_READ_RESP_ONLY'] },
    after: 'state 3 rq_psn 0x000201; word 9',
    clause: 'A19',
    reason: 'rxe 6.1 has no ATOMIC WRITE and drops it; we support it, as 6.12 does',
  },
  {
    name: 'opcode_flush',
    linux: '6.1',
    fields: { packet: ['-', 'RC_ACKNOWLEDGE'] },
    after: REFUSED,
    clause: 'A19',
    reason: 'rxe 6.1 has no FLUSH and drops it; we refuse it, because the queue pair lacks the right',
  },
  {
    name: 'flush_standard_icrc',
    fields: { packet: ['-', 'RC_READ_RESP_ONLY'] },
    after: 'state 3 rq_psn 0x000201; word 5',
    clause: '7.8.1, A19',
    reason: 'rxe computes the ICRC of a FLUSH over BTH, FETH and RETH once more, and accepts only that; we accept both',
  },
  {
    name: 'too_long_for_buffer',
    fields: { 'AETH.syndrome': ['99', '97'] },
    after: `status 1; ${flushed(7)}; state 6 rq_psn 0x000204; word 5`,
    clause: '9.7.4.1, 9.9.3',
    reason:
      'a message longer than the receive buffer is an invalid request and a local length error; rxe reports operation errors',
  },
]

/** Malformed cases, which are not in the captures. */
export const malformedDepartures: readonly {
  readonly name: string
  readonly clause: string
  readonly reason: string
}[] = [
  {
    name: 'pad_more_than_body',
    clause: '9.2, 9.6',
    reason:
      'a packet whose length is not a multiple of four bytes is dropped as malformed; rxe takes it for an empty SEND',
  },
]
