/*
 * Permitted differences between captures of Linux's rxe and our engine, with the clause of the InfiniBand Architecture
 * Specification, volume 1, that we follow.
 */

import { QpState } from '../../../../src/spec/enums.ts'
import { CREDITS_UNLIMITED, nakCode, syndromeKind } from '../../../../src/spec/wire/headers.ts'
import { WcStatus } from '../../../../src/spec/work.ts'
import type { WellFormedPacket } from '../../../../src/transport/wire/packet.ts'
import type { Difference, Permit, Recorded, StreamKind } from './compare.ts'
import type { Side } from './conversation.ts'

export interface Row {
  /** Capture and side of our engine; absent: all captures, both sides. */
  readonly capture?: string
  readonly side?: Side
  readonly stream: StreamKind
  /** Packet numbers in the capture file; MADS: all datagrams to QP 1. */
  readonly packets: readonly number[] | 'management datagrams'
  /** Fields that differ. Field `packet`: only Linux has the packet. */
  readonly fields: Readonly<Record<string, readonly [recorded: string, ours: string] | 'any'>>
  readonly clause: string
  readonly reason: string
}

const MADS = 'management datagrams'

const { LOC_LEN_ERR, LOC_QP_OP_ERR } = WcStatus.values
const { RTS, ERR } = QpState.values
/** AETH syndromes as text. */
const ACK = String(syndromeKind.ACK | CREDITS_UNLIMITED)
const NAK_INVALID_REQUEST = String(syndromeKind.NAK | nakCode.INVALID_REQUEST)
const NAK_REMOTE_ACCESS = String(syndromeKind.NAK | nakCode.REMOTE_ACCESS)
const NAK_REMOTE_OPERATION = String(syndromeKind.NAK | nakCode.REMOTE_OPERATION)

/** rxe retransmits only after the timeout. */
const LATE_RESEND = {
  side: 0,
  stream: 'requests',
  fields: { timing: ['after the ACK timeout', 'immediate'] },
  clause: '9.7.5.2, 9.7.6',
} as const

const TOO_LONG = {
  side: 1,
  stream: 'answers',
  fields: { 'AETH.syndrome': [NAK_REMOTE_OPERATION, NAK_INVALID_REQUEST] },
  clause: '9.7.4.1, 9.9.3',
  reason: 'a SEND longer than the receive buffer is an invalid request, rxe calls it a remote operational error',
} as const

export const permitted: readonly Row[] = [
  {
    stream: 'requests',
    packets: MADS,
    fields: { 'BTH.ackReq': ['true', 'false'] },
    clause: '9.8.3',
    reason: 'datagrams are not acknowledged; the kernel sets AckReq in its own nevertheless',
  },
  {
    capture: 'send_80_packets',
    side: 0,
    stream: 'requests',
    packets: [66],
    fields: { 'BTH.ackReq': ['true', 'false'] },
    clause: '9.7.3',
    reason:
      'when to request an acknowledgement within a message is the requester’s choice: rxe counts packets, we count bytes of the window',
  },
  {
    ...LATE_RESEND,
    capture: 'loss_send_requests',
    packets: [22, 28],
    reason:
      'rxe retransmits once per timeout, even if a NAK has acknowledged more since then; we retransmit after each NAK that makes progress',
  },
  {
    ...LATE_RESEND,
    capture: 'loss_write_requests',
    packets: [22, 28],
    reason: 'as for loss_send_requests',
  },
  {
    ...LATE_RESEND,
    capture: 'loss_read_responses',
    packets: [10, 15],
    clause: '9.7.6',
    reason: 'a gap in the responses of a READ shows a loss: we repeat the READ immediately, rxe after its timeout',
  },
  {
    capture: 'retry_exceeded',
    side: 0,
    stream: 'requests',
    packets: [2],
    fields: { waited: 'any' },
    clause: '9.7.6.1',
    reason: 'the first wait of rxe is up to twice the ACK timeout; the specification allows four times',
  },
  {
    capture: 'rnr_nak',
    side: 1,
    stream: 'answers',
    packets: [4, 8],
    fields: { packet: 'any' },
    clause: '9.7.5.2',
    reason: 'after an RNR NAK the following packets are dropped silently; rxe also sends a sequence error NAK for them',
  },
  { ...TOO_LONG, capture: 'nak_operation_too_long', packets: [2] },
  { ...TOO_LONG, capture: 'nak_operation_too_long_multi', packets: [4] },
  {
    capture: 'bad_invalidate',
    side: 1,
    stream: 'answers',
    packets: [2],
    fields: { packet: 'any' },
    clause: '9.9.6.3',
    reason: 'class J error: a SEND whose key cannot be invalidated is not acknowledged; rxe acknowledges it',
  },
  {
    capture: 'memory_window_type1',
    side: 1,
    stream: 'answers',
    packets: [6],
    fields: { 'AETH.syndrome': [ACK, NAK_REMOTE_ACCESS], 'AETH.msn': ['3', '2'] },
    clause: '9.7.4.1, 10.6',
    reason: 'a WRITE past the end of a memory window is refused; rxe checks only the bounds of the memory region',
  },
]

/** The completion of a receive WQE that is too short for its SEND. */
const TOO_LONG_STATUS = `completion 0: status ${LOC_LEN_ERR}, the program had ${LOC_QP_OP_ERR}`

/** Permitted sentences of outcome.ts; `permitted` has the reasons. */
export const permittedOutcomes: readonly { readonly capture: string; readonly side: Side; readonly text: string }[] = [
  { capture: 'nak_operation_too_long', side: 1, text: TOO_LONG_STATUS },
  { capture: 'nak_operation_too_long_multi', side: 1, text: TOO_LONG_STATUS },
  { capture: 'memory_window_type1', side: 1, text: 'WRITE 1: its data is not in memory' },
  { capture: 'memory_window_type1', side: 1, text: `the state is ${ERR}, the program says ${RTS}` },
]

/** Whether a row names the packet; for a datagram to QP 1, whether a row permits a difference of `field`. */
export const isExempt =
  (capture: string, side: Side) =>
  ({ number, packet }: Recorded, field: string): boolean =>
    permitted.some(row =>
      row.packets === MADS
        ? isMad(packet) && field in row.fields
        : row.capture === capture && row.side === side && row.packets.includes(number),
    )

const isMad = (packet: WellFormedPacket): boolean => packet.name === 'UD_SEND_ONLY' && packet.BTH.destQp === 1

/** Adds the rows that permit a difference to `used`. */
export const permitFor = (capture: string, side: Side, used: Set<Row>): Permit => {
  const rows = permitted.filter(row => (row.capture ?? capture) === capture && (row.side ?? side) === side)
  return difference => {
    const row = rows.find(r => allows(r, difference))
    if (row === undefined) return undefined
    used.add(row)
    return { recorded: 1, ours: row.fields.packet === undefined ? 1 : 0 }
  }
}

const namesPacket = ({ packets }: Row, { number, packet }: Recorded): boolean =>
  packets === MADS ? isMad(packet) : packets.includes(number)

const allows = (row: Row, { kind, recorded, fields }: Difference): boolean => {
  if (row.stream !== kind || recorded === undefined || !namesPacket(row, recorded)) return false
  if (row.fields.packet !== undefined) return true
  return fields.every(({ path, recorded: recordedValue, ours }) => {
    const allowed = row.fields[path]
    return allowed === 'any' || (allowed !== undefined && allowed[0] === recordedValue && allowed[1] === ours)
  })
}
