/*
 * UD (InfiniBand Architecture Specification, volume 1, clauses 9.8.3 and 10.2.5). Each packet is a message to the
 * destination of its work request, and is accepted if it has the Q_Key of the queue pair. The receive buffer gets a GRH
 * of 40 bytes before the payload.
 *
 * A packet is dropped silently (9.9.3, error class D) if its Q_Key is wrong, if there is no receive WQE, or if the
 * receive buffer is too small. A buffer that was too small is used for the next message.
 * state.ts explains short names such as `row`, `base` and `request`.
 */
import { type Cause, createCause } from '../../../spec/check/causes.ts'
import { joinWords } from '../../../spec/memory.ts'
import { MAX_MTU_BYTES } from '../../../spec/mtu.ts'
import { ICRC_BYTES, MULTICAST_QPN } from '../../../spec/wire/headers.ts'
import { headerAt, OP_IMM, opcodeFlags, opcodeHeaderBytes } from '../../../spec/wire/opcodes.ts'
import { WcFlags, WcOpcode, WcStatus } from '../../../spec/work.ts'
import type { Arena } from '../../wire/arena.ts'
import { bthDestQp, bthOpcode, bthPadCount, bthSolicited } from '../../wire/bth.ts'
import { dethQkey, dethSrcQp, immediate, putDeth } from '../../wire/extensions.ts'
import { GRH_BYTES } from '../../wire/ip.ts'
import { NO_RECEIVE, takeCause } from '../causes.ts'
import { completeReceive, failReceive } from '../completer/completion.ts'
import { DmaKind, DmaResult, scatter, setPayload } from '../dma.ts'
import { QP } from '../fields.ts'
import { recvBlockLog2 } from '../qp-layout.ts'
import { takeReceive } from '../responder/receive-request.ts'
import { type EngineState, giveBlock } from '../state.ts'
import { Receive, Send } from '../types.ts'

const DETH_AT = headerAt.DETH
const IMM_AT = headerAt.ImmDt
/** If this bit is set in the WQE's Q_Key, the queue pair's own Q_Key is sent (10.2.5, 11.4.1.1). */
const OWN_QKEY = 0x8000_0000

/** Writes the DETH at `at`, for the work request at `wr` in the pool. Counts packets to multicast groups. */
export const putDatagramHeader = (s: EngineState, row: number, wr: number, view: DataView, at: number): void => {
  const w = s.rows
  const base = row * QP.WORDS
  const qkey = s.pool[wr + Send.QKEY]
  if ((s.pool[wr + Send.DEST_QPN] & 0xff_ffff) === MULTICAST_QPN) s.counters.multicastSent++
  putDeth(view, at, (qkey & OWN_QKEY) !== 0 ? w[base + QP.QKEY] : qkey, w[base + QP.QPN])
}

/** The sender of a packet for a queue pair of UD; 0: the packet is none of UD. */
export const datagramSource = (view: DataView, at: number): number => {
  const deth = DETH_AT[bthOpcode(view, at)]
  return deth > 0 ? dethSrcQp(view, at + deth) : 0
}

/** Counts and reports the dropped packet at `at`. `wrId`: of a receive WQE that is too small. */
const drop = (s: EngineState, row: number, view: DataView, at: number, cause: Cause, wrId?: bigint): void => {
  s.counters.dropped++
  // No sender is reported for a multicast packet: other members of the group may have accepted the packet.
  const isMulticast = bthDestQp(view, at) === MULTICAST_QPN
  const sourceQpn = isMulticast ? undefined : dethSrcQp(view, at + DETH_AT[bthOpcode(view, at)])
  s.env.causes?.dropped(row, cause, wrId, sourceQpn)
}

/** Handles a packet, checked by `checkPacket`, of a QP in RTR, RTS, SQD or SQE. */
export const onDatagram = (s: EngineState, row: number, arena: Arena, at: number, length: number): void => {
  const base = row * QP.WORDS
  const view = arena.view
  const opcode = bthOpcode(view, at)
  const flags = opcodeFlags[opcode]
  const header = opcodeHeaderBytes[opcode]
  const payload = length - header - bthPadCount(view, at) - ICRC_BYTES
  const deth = at + DETH_AT[opcode]
  const qkey = dethQkey(view, deth)
  const ownQkey = s.rows[base + QP.QKEY] >>> 0
  if (qkey !== ownQkey) {
    s.counters.qkeyViolations++
    const sourceQpn = dethSrcQp(view, deth)
    drop(s, row, view, at, createCause('QKEY_DIFFERS', { sourceQpn, packetQkey: qkey, qkey: ownQkey }))
    return
  }
  if (payload > MAX_MTU_BYTES) {
    s.counters.dropped++
    return
  }
  if (!takeReceive(s, row)) {
    drop(s, row, view, at, NO_RECEIVE)
    return
  }
  const w = s.rows
  const receive = w[base + QP.RESP_RECEIVE]
  const bytes = GRH_BYTES + payload
  const bufferBytes = s.pool[receive + Receive.LENGTH]
  if (bytes > bufferBytes) {
    const wrId = joinWords(s.pool[receive + Receive.ID_HI], s.pool[receive + Receive.ID_LO])
    // RESP_RECEIVE keeps the WQE for the next message
    drop(s, row, view, at, createCause('RECEIVE_TOO_SHORT', { bufferBytes, length: bytes }), wrId)
    return
  }
  // The payload is copied behind the GRH, so that one DMA writes both.
  const grh = s.env.grh!
  const grhAt = grh.header(arena, at, length)
  arena.bytes.copyWithin(grhAt + GRH_BYTES, at + header, at + header + payload)
  const count = s.pool[receive + Receive.SGES]
  setPayload(s, arena, grhAt, bytes)
  const messageOffset = 0
  const writesNow = true
  const result = scatter(s, row, DmaKind.RECEIVE, receive + Receive.SGE, count, messageOffset, writesNow)
  if (result !== DmaResult.OK) {
    failReceive(s, row, WcStatus.values.LOC_PROT_ERR, takeCause(s))
    return
  }
  // for completeReceive: DEST_QPN is the source QPN
  w[base + QP.DEST_QPN] = dethSrcQp(view, deth)
  w[base + QP.RESP_SL] = grh.path
  w[base + QP.RESP_RECEIVE] = 0
  const hasImmediate = (flags & OP_IMM) !== 0
  completeReceive(
    s,
    row,
    receive,
    WcOpcode.values.RECV,
    bytes,
    hasImmediate ? immediate(view, at + IMM_AT[opcode]) : 0,
    hasImmediate ? WcFlags.values.WITH_IMM : 0,
    bthSolicited(view, at),
  )
  giveBlock(s, recvBlockLog2(s.rows, base), receive)
}
