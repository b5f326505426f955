/*
 * The receiving half of SRD (docs/decisions/srd.md): executes each packet once, in any order, and acknowledges it.
 */

import type { Account } from '../../../core/model.ts'
import { EfaOperation, EfaStatus } from '../../../spec/drivers/efa-queues.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import { headerAt } from '../../../spec/wire/opcodes.ts'
import { bthDestQp, bthPsn, psnDifference } from '../../../transport/wire/bth.ts'
import { rethRkey, rethVaHi, rethVaLo } from '../../../transport/wire/extensions.ts'
import { Senders } from '../attributes.ts'
import { findReceiver, refuseRdma, setArrival, takeImmediate, takeMessage } from '../delivery.ts'
import type { EfaState } from '../device-state.ts'
import { endSend } from '../ending.ts'
import { receives, WAIT } from '../engine-common.ts'
import { copyElements, copyRange, memoryOf, setRange } from '../memory.ts'
import { commit, receiverOf, releaseSender, strangerToRefuse, takeSender } from '../peers.ts'
import { emptyRequest } from '../requests.ts'
import { type Pair, type Peer, pairKey, type QueuePair, type ReceivedFrom } from '../state.ts'
import {
  ACK_BYTES,
  Opcode,
  payloadAt,
  putAck,
  putRefusal,
  READ_DATA,
  REFUSE_BYTES,
  srdEpoch,
  srdLength,
  srdMessage,
  srdOffset,
  srdQkey,
  srdSource,
} from './packets.ts'
import { ACKNOWLEDGED, acknowledgeLater, answerOf, createReceivedFrom, noteAnswer, pairOf } from './pairs.ts'

const { SEND, RDMA_WRITE } = EfaOperation
const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE } = AccessFlags.values
const { OK } = EfaStatus

/** READs of one peer's queue pair that are answered at a time. */
const MAX_RESPONSES = 128
/** Incomplete WRITEs with immediate data of one source. */
const MAX_WRITES = 4096

/** The bits of an acknowledgement, until it is written. */
const bits = new Uint32Array(ACKNOWLEDGED / 32)

const accountOf = ({ object }: QueuePair): Account | undefined => object.context?.account

export const closeSource = (efa: EfaState, { qp, peer, writes }: ReceivedFrom): void => {
  efa.writes.release(accountOf(qp), writes.size)
  releaseSender(efa, qp, peer)
}

/**
 * Refuses packet `psn` of queue pair `qpn` of the peer. If the port is full the packet comes again, and is refused
 * then.
 */
export const refuse = (
  efa: EfaState,
  peer: Peer,
  qpn: number,
  sourceQpn: number,
  epoch: number,
  psn: number,
  status: number,
  message: number,
): void => {
  const at = efa.port.reserve(REFUSE_BYTES)
  if (at < 0) return
  putRefusal(efa.port.arena.view, at, qpn, sourceQpn, epoch, psn, status, message)
  commit(efa, at, REFUSE_BYTES, peer)
}

/** A packet with `payload` bytes, of `efa.sender`. */
export const onMessage = (efa: EfaState, at: number, opcode: number, payload: number): void => {
  const { view } = efa.port.arena
  const psn = bthPsn(view, at)
  const sourceQpn = srdSource(view, at)
  const epoch = srdEpoch(view, at)
  const qpn = bthDestQp(view, at)
  const message = srdMessage(view, at)
  const isData = opcode === Opcode.READ_DATA
  const qp = isData ? efa.qps.get(qpn)?.state : findReceiver(efa, qpn, true, srdQkey(view, at))
  const known = qp && sourceOf(efa, qp, sourceQpn)
  // data that nobody has asked for, which needs no Q_Key, makes no state
  const isUnasked = isData && known === undefined && !qp?.reads.has(message)
  if (qp === undefined || !qp.isReliable || !receives(qp.state) || isUnasked) {
    const peer = strangerToRefuse(efa)
    if (peer === undefined) efa.counts.rx_drops++
    else refuse(efa, peer, sourceQpn, qpn, epoch, psn, EfaStatus.BAD_DESTINATION, message)
    return
  }
  const source = receivedFrom(efa, qp, known, sourceQpn, epoch, psn)
  if (source === undefined) {
    efa.counts.rx_drops++
    return
  }
  const status = takeOnce(efa, source, psn, at, opcode, payload)
  if (status === WAIT) return
  if (status !== OK) refuse(efa, source.peer, sourceQpn, qpn, epoch, psn, status, message)
  else if (acknowledgeLater(source, psn)) efa.toAcknowledge.push(source)
}

/** What the queue pair has received from the sender's queue pair `qpn`. */
const sourceOf = ({ sender: { peer } }: EfaState, { sources }: QueuePair, qpn: number): ReceivedFrom | undefined =>
  peer === undefined ? undefined : sources.get(pairKey(peer, qpn))

/** As `takePacket`, for a packet that may have come before. */
const takeOnce = (
  efa: EfaState,
  source: ReceivedFrom,
  psn: number,
  at: number,
  opcode: number,
  payload: number,
): number => {
  const answer = answerOf(source, psn)
  if (answer !== undefined) return answer
  const status = takePacket(efa, source, at, opcode, payload)
  if (status !== WAIT) noteAnswer(source, psn, status)
  return status
}

/** `known`: as `sourceOf` found it. */
const receivedFrom = (
  efa: EfaState,
  qp: QueuePair,
  known: ReceivedFrom | undefined,
  qpn: number,
  epoch: number,
  psn: number,
): ReceivedFrom | undefined => {
  let source = known
  if (source === undefined || source.epoch !== epoch) {
    // a packet of an earlier pair is late: if it counted as a new one, packets of today would count as new again
    if (source?.earlierEpochs.includes(epoch)) return undefined
    const peer = source?.peer ?? takeSender(efa, qp)
    if (peer === undefined) return undefined
    if (source !== undefined) efa.writes.release(accountOf(qp), source.writes.size)
    source = createReceivedFrom(qp, peer, qpn, epoch, psn, source)
    qp.sources.set(pairKey(peer, qpn), source)
  }
  source.usedAt = efa.now
  return source
}

/**
 * Executes a packet. WAIT: it must come again later; NOT_READY: later and with a new number; OK: it is taken; otherwise
 * why its message fails.
 */
const takePacket = (efa: EfaState, source: ReceivedFrom, at: number, opcode: number, payload: number): number => {
  const { qp, peer, qpn } = source
  const { arena } = efa.port
  const { view } = arena
  const message = srdMessage(view, at)
  const offset = srdOffset(view, at)
  const length = srdLength(view, at)
  const data = at + payloadAt(opcode)
  const hasImm = headerAt.ImmDt[opcode]! > 0
  const imm = hasImm ? view.getUint32(at + headerAt.ImmDt[opcode]!) : 0
  if (opcode === Opcode.SEND || opcode === Opcode.SEND_IMM) {
    setArrival(efa, SEND, payload, hasImm, imm, qpn, peer)
    const status = takeMessage(efa, qp, arena, data, payload)
    return status === WAIT ? EfaStatus.NOT_READY : status
  }
  if (opcode === Opcode.READ_DATA) return takeReadData(efa, source, message, offset, data, payload)
  const reth = at + headerAt.RETH[opcode]!
  const isRead = opcode === Opcode.READ
  const access = isRead ? REMOTE_READ : REMOTE_WRITE
  const range = setRange(efa.range, rethVaHi(view, reth), rethVaLo(view, reth), rethRkey(view, reth), length)
  const refusal = refuseRdma(efa, qp, peer, access, range)
  if (refusal !== OK) return refusal
  if (isRead) return respond(efa, source, message)
  if (offset + payload > length) return EfaStatus.BAD_STATUS
  if (!hasImm) {
    if (!copyRange(memoryOf(efa), qp, access, range, offset, arena, data, payload)) return EfaStatus.BAD_ADDRESS
    efa.counts.rdma_write_recv_bytes += payload
    return OK
  }
  const { writes } = source
  const isKnown = writes.has(message)
  const received = (writes.get(message) ?? 0) + payload
  const isLast = received >= length
  if (!isKnown && !isLast && (writes.size >= MAX_WRITES || !efa.writes.take(receiverOf(qp)))) return WAIT
  if (!copyRange(memoryOf(efa), qp, access, range, offset, arena, data, payload)) {
    if (!isKnown && !isLast) efa.writes.release(accountOf(qp))
    return EfaStatus.BAD_ADDRESS
  }
  if (isLast) {
    setArrival(efa, RDMA_WRITE, length, true, imm, qpn, peer)
    if (takeImmediate(efa, qp) === WAIT) return EfaStatus.NOT_READY
    if (writes.delete(message)) efa.writes.release(accountOf(qp))
  } else writes.set(message, received)
  efa.counts.rdma_write_recv_bytes += payload
  return OK
}

/** Begins to send the data of the READ of `efa.range`. */
const respond = (efa: EfaState, { qp, peer, qpn }: ReceivedFrom, message: number): number => {
  const { hi, lo, key, length } = efa.range
  const pair = pairOf(efa, qp, peer, qpn)
  if (pair.queue.length >= MAX_RESPONSES) return EfaStatus.NOT_READY
  const bytes = Senders.responseBytes + (pair.responses === 0 ? Senders.windowBytes : 0)
  if (!efa.responses.take(receiverOf(qp), 1, bytes)) return EfaStatus.NOT_READY
  pair.responses++
  efa.counts.rdma_read_resp_bytes += length
  pair.queue.push({
    ...emptyRequest(qp),
    ...{ operation: READ_DATA, order: -1, destQpn: qpn, peer, message, length },
    ...{ remoteHi: hi, remoteLo: lo, rkey: key },
  })
  return OK
}

/** The data of `count` READs of the pair's destination is acknowledged, or was given up. */
export const endResponses = (efa: EfaState, pair: Pair, count: number): void => {
  if (count === 0) return
  pair.responses -= count
  const bytes = count * Senders.responseBytes + (pair.responses === 0 ? Senders.windowBytes : 0)
  efa.responses.release(accountOf(pair.qp), count, bytes)
}

const takeReadData = (
  efa: EfaState,
  { qp, peer, qpn }: ReceivedFrom,
  message: number,
  offset: number,
  at: number,
  length: number,
): number => {
  const request = qp.reads.get(message)
  // of a READ that has failed meanwhile
  if (request === undefined || request.peer !== peer || request.destQpn !== qpn) return OK
  if (offset + length > request.length) return EfaStatus.BAD_STATUS
  if (!copyElements(memoryOf(efa), qp, request, LOCAL_WRITE, offset, efa.port.arena, at, length)) {
    endSend(efa, request, EfaStatus.INVALID_LKEY)
    return OK
  }
  const pair = qp.pairs.get(pairKey(peer, qpn))
  if (pair !== undefined) pair.dataAt = efa.now
  request.done += length
  if (request.done >= request.length) endSend(efa, request, OK)
  return OK
}

/** Acknowledges what was taken since the last time, unless torment holds the acknowledgement. */
export const acknowledge = (efa: EfaState): void => {
  const { torment, toAcknowledge } = efa
  let held = 0
  for (let i = 0; i < toAcknowledge.length; i++) {
    const source = toAcknowledge[i]!
    if (source.qp.sources.get(pairKey(source.peer, source.qpn)) !== source) torment?.forget(source)
    else if (torment?.holds(source)) toAcknowledge[held++] = source
    else {
      source.hasToAcknowledge = false
      sendAcks(efa, source)
    }
  }
  toAcknowledge.length = held
}

const sendAcks = (efa: EfaState, source: ReceivedFrom): void => {
  const { qp, peer, qpn, epoch, firstToAcknowledge: first, lastToAcknowledge: last } = source
  for (let psn = last; ; psn = (psn - ACKNOWLEDGED) & 0xff_ffff) {
    const at = efa.port.reserve(ACK_BYTES)
    // the sender sends the packets again, and is then answered
    if (at < 0) return
    bits.fill(0)
    for (let i = 0; i < ACKNOWLEDGED; i++)
      if (answerOf(source, (psn - i) & 0xff_ffff) === OK) bits[i >> 5]! |= 1 << (i & 31)
    putAck(efa.port.arena.view, at, qpn, qp.qpn, epoch, psn, bits)
    commit(efa, at, ACK_BYTES, peer)
    if (psnDifference(psn, first) < ACKNOWLEDGED) return
  }
}
