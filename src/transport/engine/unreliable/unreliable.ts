/*
 * UC (InfiniBand Architecture Specification, volume 1, clause 9.8), and sends of UD. If a packet of a message is
 * missing, the responder drops the message. A send WQE completes when its last packet was sent. There are no
 * acknowledgements.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { OP_SEND, OP_START } from '../../../spec/wire/opcodes.ts'
import { SendKind, WcStatus } from '../../../spec/work.ts'
import { completeOldest, onDrained } from '../completer/completion.ts'
import { QP, ReqFlag, RespFlag } from '../fields.ts'
import { dropMessage } from '../responder/nak.ts'
import type { EngineState } from '../state.ts'

const { NONE, SEND, WRITE } = SendKind

/**
 * Accepts a UC packet, or drops it and the current message; returns whether it is accepted. A FIRST or ONLY is always
 * accepted, with any PSN, and ends the current message.
 */
export const admitPacket = (s: EngineState, row: number, flags: number, psn: number): boolean => {
  const w = s.rows
  const base = row * QP.WORDS
  const isGap = psn !== w[base + QP.RESP_EPSN]
  // While a message is being dropped, RESP_EPSN is not advanced: no packet can be taken for a new gap.
  if (isGap && (w[base + QP.RESP_FLAGS] & RespFlag.DROPPING) === 0) s.counters.outOfSequence++
  if ((flags & OP_START) !== 0) {
    w[base + QP.RESP_MESSAGE] = NONE
    w[base + QP.RESP_FLAGS] &= ~RespFlag.DROPPING
    w[base + QP.RESP_EPSN] = psn
    return true
  }
  // While a message is being dropped, RESP_MESSAGE is NONE.
  if (!isGap && w[base + QP.RESP_MESSAGE] === ((flags & OP_SEND) !== 0 ? SEND : WRITE)) return true
  dropMessage(s, row)
  return false
}

/** Call this after packets of `request` were sent: completes the WQE if its last packet was sent. */
export const onSent = (s: EngineState, row: number, request: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  w[base + QP.COMP_PSN] = w[base + QP.REQ_PSN]
  // With pacing, the bytes count against `rowLimit` until the poll ends; `openWindow` of the next poll does this.
  if (s.pacingInterval === 0) w[base + QP.COMP_ACKED_BYTES] = w[base + QP.REQ_SENT_BYTES]
  if (w[base + QP.REQ_CURRENT] === request) return
  completeOldest(s, row, WcStatus.values.SUCCESS)
  // Only one WQE is fetched at a time, so none is outstanding.
  if ((s.rows[base + QP.REQ_FLAGS] & ReqFlag.DRAINING) !== 0) onDrained(s, row)
}
