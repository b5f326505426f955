/*
 * Forged packets that Linux's rxe and our engine answer differently, with the clause of the InfiniBand Architecture
 * Specification, volume 1, that we follow.
 */
import { QpState } from '../../../../src/spec/enums.ts'
import { CREDITS_UNLIMITED, nakCode, syndromeKind } from '../../../../src/spec/wire/headers.ts'
import { WcStatus } from '../../../../src/spec/work.ts'
import type { Linux } from './forged.ts'

export interface Departure {
  /** The case, as in test/fixtures/wire/responder.md. */
  readonly name: string
  /** The Linux version whose capture differs; absent: both. */
  readonly linux?: Linux
  /** Fields that differ in the reply. Field `packet`: only one side replies; the other has `-`. */
  readonly fields: Readonly<Record<string, readonly [recorded: string, ours: string]>>
  /** Our `Result.after` (forged.ts), if Linux's differs. */
  readonly after?: string
  readonly clause: string
  readonly reason: string
}

const { WR_FLUSH_ERR, LOC_LEN_ERR, REM_INV_REQ_ERR } = WcStatus.values
const { RTS, ERR } = QpState.values

/** AETH syndromes as text. */
const ACK = String(syndromeKind.ACK | CREDITS_UNLIMITED)
const NAK_INVALID_REQUEST = String(syndromeKind.NAK | nakCode.INVALID_REQUEST)
const NAK_REMOTE_ACCESS = String(syndromeKind.NAK | nakCode.REMOTE_ACCESS)
const NAK_REMOTE_OPERATION = String(syndromeKind.NAK | nakCode.REMOTE_OPERATION)

const flushed = (count: number): string => Array<string>(count).fill(`status ${WR_FLUSH_ERR}`).join('; ')

/** The packet is refused before it consumes a receive WQE: all eight are flushed. */
const REFUSED = `${flushed(8)}; state ${ERR} rq_psn 0x000200; word 5`
/** Values of AETH.syndrome where rxe sends an ACK and our engine a NAK for an invalid request. */
const ACK_OR_INVALID = [ACK, NAK_INVALID_REQUEST] as const
/** Values of AETH.msn where rxe has counted the message and our engine has not. */
const MSN_1_OR_0 = ['1', '0'] as const

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
    fields: { 'AETH.syndrome': ACK_OR_INVALID },
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
    reason: 'the length is checked before a receive WQE is consumed, so none completes with REM_INV_REQ_ERR',
  },
  {
    name: 'only_longer_than_mtu',
    linux: '6.1',
    fields: { 'AETH.syndrome': ACK_OR_INVALID, 'AETH.msn': MSN_1_OR_0 },
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
    fields: { 'AETH.syndrome': ACK_OR_INVALID, 'AETH.msn': MSN_1_OR_0 },
    after: `status ${REM_INV_REQ_ERR}; ${flushed(7)}; state ${ERR} rq_psn 0x000201; word 5`,
    clause: '9.7.4.1',
    reason: 'a LAST packet carries at least one byte; rxe 6.1 does not check this, 6.12 does',
  },
  {
    name: 'write_over_2gib',
    linux: '6.1',
    fields: { 'AETH.syndrome': [NAK_REMOTE_ACCESS, NAK_INVALID_REQUEST] },
    clause: '9.4.3, 9.9.3',
    reason: 'the limit of 2 GiB is checked before the access rights, as in rxe 6.12',
  },
  {
    name: 'read_huge',
    linux: '6.1',
    fields: { 'AETH.syndrome': [NAK_REMOTE_ACCESS, NAK_INVALID_REQUEST] },
    clause: '9.4.4, 9.9.3',
    reason: 'the limit of 2 GiB is checked before the access rights, as in rxe 6.12',
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
    after: `state ${RTS} rq_psn 0x000201; word 9`,
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
    after: `state ${RTS} rq_psn 0x000201; word 5`,
    clause: '7.8.1, A19',
    reason: 'rxe computes the ICRC of a FLUSH over BTH, FETH and RETH once more, and accepts only that; we accept both',
  },
  {
    name: 'too_long_for_buffer',
    fields: { 'AETH.syndrome': [NAK_REMOTE_OPERATION, NAK_INVALID_REQUEST] },
    after: `status ${LOC_LEN_ERR}; ${flushed(7)}; state ${ERR} rq_psn 0x000204; word 5`,
    clause: '9.7.4.1, 9.9.3',
    reason:
      'a message longer than the receive buffer is an invalid request and a local length error; rxe reports operation errors',
  },
]

/** Malformed packets are only in the table of responder.md, not in the captures. */
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
