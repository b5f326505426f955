/*
 * What is particular to connections without acknowledgements, UC (InfiniBand Architecture Specification, volume 1,
 * clause 9.8), and in sending to datagrams too. A receiver passes a message over when one of its packets is missing and
 * begins again with the next one; a request to send is complete when its last packet has left. Otherwise the requester
 * and the responder are those of RC.
 *
 * Nobody says how much a receiver can take: how fast such services send is in transport/flow-control/peer-window.ts.
 */
import { OP_SEND, OP_START } from '../spec/wire/opcodes.ts'
import { SendKind, WcStatus } from '../spec/work.ts'
import { completeOldest, onDrained } from './completer/completion.ts'
import { QP, ReqFlag, RespFlag } from './fields.ts'
import { dropMessage } from './responder/nak.ts'
import type { EngineState } from './state.ts'

const { NONE, SEND, WRITE } = SendKind

/** Whether a packet is to be taken. A FIRST or ONLY always is, whatever its PSN; it ends a message under way. */
export const isAdmitted = (s: EngineState, row: number, flags: number, psn: number): boolean => {
  const w = s.rows
  const base = row * QP.WORDS
  const gap = psn !== w[base + QP.RESP_EPSN]
  if (gap) s.counters.outOfSequence++
  if ((flags & OP_START) !== 0) {
    w[base + QP.RESP_MESSAGE] = NONE
    w[base + QP.RESP_FLAGS] &= ~RespFlag.DROPPING
    w[base + QP.RESP_EPSN] = psn
    return true
  }
  // while a message is passed over there is none under way
  if (!gap && w[base + QP.RESP_MESSAGE] === ((flags & OP_SEND) !== 0 ? SEND : WRITE)) return true
  dropMessage(s, row)
  return false
}

/** Packets of `request` have left: with the last one it is complete. */
export const onSent = (s: EngineState, row: number, request: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  w[base + QP.COMP_PSN] = w[base + QP.REQ_PSN]
  if (s.pace === 0) w[base + QP.COMP_ACKED_BYTES] = w[base + QP.REQ_SENT_BYTES]
  if (w[base + QP.REQ_CURRENT] === request) return
  completeOldest(s, row, WcStatus.values.SUCCESS)
  if (s.rows[base + QP.REQ_HEAD] === 0 && (s.rows[base + QP.REQ_FLAGS] & ReqFlag.DRAINING) !== 0) onDrained(s, row)
}
