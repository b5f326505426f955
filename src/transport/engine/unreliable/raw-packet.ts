/*
 * Raw packets: a send request is a frame of the link, and so is a received message. There is no header of a transport
 * and no peer. What sends and delivers frames is the driver (`FrameSink`).
 *
 * A frame for which there is no receive, or too small a one, is dropped, as with UD: a sender cannot stop the queue of
 * a receiver. The receive that was too small is used for the next frame. state.ts explains short names such as `row`,
 * `base` and `request`.
 */
import { createCause } from '../../../spec/check/causes.ts'
import { QpState } from '../../../spec/enums.ts'
import { joinWords } from '../../../spec/memory.ts'
import { MIN_FRAME_BYTES } from '../../../spec/wire/ethernet.ts'
import { WcOpcode, WcStatus } from '../../../spec/work.ts'
import type { Arena } from '../../wire/arena.ts'
import { NO_RECEIVE, storeCause, takeCause } from '../causes.ts'
import { completeReceive, failReceive } from '../completer/completion.ts'
import { DmaKind, DmaResult, gather, scatter, setPayload } from '../dma.ts'
import { QP, WQE } from '../fields.ts'
import { recvBlockLog2 } from '../qp-layout.ts'
import { takeReceive } from '../responder/receive-request.ts'
import { advance, failLocalAccess, Step } from '../scheduling.ts'
import { type EngineState, giveBlock, PACKET_WEIGHT } from '../state.ts'
import { Receive, Send } from '../types.ts'

const { RTR, ERR } = QpState.values
const { LOC_LEN_ERR, LOC_PROT_ERR } = WcStatus.values

/** Sends the frame of a WQE. Returns a `Step`. */
export const sendFrame = (s: EngineState, row: number, request: number): number => {
  const p = s.pool
  const wr = request + WQE.WR
  const frames = s.env.frames!
  const header = p[wr + Send.HEADER_BYTES]
  const data = p[wr + Send.LENGTH]
  const length = header + data
  if (length < MIN_FRAME_BYTES || length > frames.maxBytes) {
    const cause = createCause('FRAME_LENGTH', { length, min: MIN_FRAME_BYTES, max: frames.maxBytes })
    p[request + WQE.STATUS] = storeCause(s, row, LOC_LEN_ERR, cause)
    return Step.FAILS
  }
  const at = frames.reserve(length)
  if (at < 0) return Step.PORT_FULL
  const headerAt = p[wr + Send.INLINE_AT] + p[wr + Send.HEADER_AT]
  if (header > 0) s.env.work.copyInline(row, headerAt, 0, frames.arena, at, header, header, header)
  if (data > 0 && gather(s, row, request, 0, data, frames.arena, at + header, data, data) !== DmaResult.OK)
    return failLocalAccess(s, row, request)
  frames.commit(at, length, p[wr + Send.CHECKSUMS])
  s.counters.sentPackets++
  p[wr + Send.LENGTH] = length // for the completion
  advance(s, row, request, 1, length + PACKET_WEIGHT, true)
  return Step.SENT_SOME
}

/** As `Engine.onFrame`. */
export const onFrame = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  length: number,
  tag: number,
  headers: number,
): void => {
  const base = row * QP.WORDS
  const state = s.rows[base + QP.STATE]
  s.counters.receivedPackets++
  if (state < RTR || state === ERR) {
    s.counters.dropped++
    return
  }
  if (!takeReceive(s, row)) {
    s.counters.outOfBuffer++
    s.env.causes?.dropped(row, NO_RECEIVE)
    return
  }
  const receive = s.rows[base + QP.RESP_RECEIVE]
  const bufferBytes = s.pool[receive + Receive.LENGTH]
  if (length > bufferBytes) {
    s.counters.dropped++
    const wrId = joinWords(s.pool[receive + Receive.ID_HI], s.pool[receive + Receive.ID_LO])
    s.env.causes?.dropped(row, createCause('RECEIVE_TOO_SHORT', { bufferBytes, length }), wrId)
    return
  }
  setPayload(s, arena, at, length)
  const count = s.pool[receive + Receive.SGES]
  if (scatter(s, row, DmaKind.RECEIVE, receive + Receive.SGE, count, 0, true) !== DmaResult.OK) {
    failReceive(s, row, LOC_PROT_ERR, takeCause(s))
    return
  }
  s.rows[base + QP.RESP_SL] = headers
  s.rows[base + QP.RESP_RECEIVE] = 0
  completeReceive(s, row, receive, WcOpcode.values.RECV, length, tag, 0, false)
  giveBlock(s, recvBlockLog2(s.rows, base), receive)
}
