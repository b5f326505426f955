/*
 * The receiving half of SRD (docs/decisions/srd.md): executes each packet once, in any order, and acknowledges it.
 */

import { EfaOperation, EfaStatus } from '../../../spec/drivers/efa-queues.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import { headerAt } from '../../../spec/wire/opcodes.ts'
import { bthDestQp, bthPsn, psnDifference } from '../../../transport/wire/bth.ts'
import { rethRkey, rethVaHi, rethVaLo } from '../../../transport/wire/extensions.ts'
import { receives, WAIT } from '../engine-common.ts'
import type { EngineParts } from '../engine-parts.ts'
import { copyElements, copyRange, Direction, setRange } from '../memory.ts'
import { emptyRequest } from '../requests.ts'
import { type Peer, pairKey, type QueuePair, type ReceivedFrom } from '../state.ts'
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
import { ACKNOWLEDGED, acknowledgeLater, answerOf, createReceivedFrom, noteAnswer } from './pairs.ts'

const { SEND } = EfaOperation
const { REMOTE_READ, REMOTE_WRITE } = AccessFlags.values
const { OK } = EfaStatus

/** READs of one peer's queue pair that are answered at a time. */
const MAX_RESPONSES = 128
/** Incomplete WRITEs with immediate data of one source. */
const MAX_WRITES = 4096
/** Sources of packets of all queue pairs, each about 1.3 KB; packets of further ones are dropped. */
const MAX_SOURCES = 0x1_0000

export class Receiving {
  readonly #engine: EngineParts
  #sources = 0
  readonly #toAcknowledge: ReceivedFrom[] = []
  /** With torment: those that wait. */
  readonly #held: ReceivedFrom[] = []
  readonly #bits = new Uint32Array(ACKNOWLEDGED / 32)

  constructor(engine: EngineParts) {
    this.#engine = engine
  }

  closeSource({ peer }: ReceivedFrom): void {
    this.#sources--
    this.#engine.closePeer(peer)
  }

  refuse(
    peer: Peer,
    qpn: number,
    sourceQpn: number,
    epoch: number,
    psn: number,
    status: number,
    message: number,
  ): void {
    const at = this.#engine.port.reserve(REFUSE_BYTES)
    if (at < 0) return
    putRefusal(this.#engine.port.arena.view, at, qpn, sourceQpn, epoch, psn, status, message)
    this.#engine.commit(at, REFUSE_BYTES, peer)
  }

  onMessage(peer: Peer, at: number, opcode: number, payload: number): void {
    const { view } = this.#engine.port.arena
    const psn = bthPsn(view, at)
    const sourceQpn = srdSource(view, at)
    const epoch = srdEpoch(view, at)
    const qpn = bthDestQp(view, at)
    const isData = opcode === Opcode.READ_DATA
    const qp = isData
      ? this.#engine.state.qps.get(qpn)?.state
      : this.#engine.delivery.find(qpn, true, srdQkey(view, at))
    if (qp === undefined || !qp.isReliable || !receives(qp.state)) {
      this.refuse(peer, sourceQpn, qpn, epoch, psn, EfaStatus.BAD_DESTINATION, srdMessage(view, at))
      return
    }
    // data that nobody has asked for, which needs no Q_Key, makes no state
    if (isData && !qp.sources.has(pairKey(peer, sourceQpn)) && !qp.reads.has(srdMessage(view, at))) {
      this.refuse(peer, sourceQpn, qpn, epoch, psn, EfaStatus.BAD_DESTINATION, srdMessage(view, at))
      return
    }
    const source = this.#receivedFrom(qp, peer, sourceQpn, epoch, psn)
    if (source === undefined) {
      this.#engine.counts.rx_drops++
      return
    }
    const status = this.#takeOnce(source, psn, at, opcode, payload)
    if (status === WAIT) return
    if (status !== OK) {
      this.refuse(peer, sourceQpn, qpn, epoch, psn, status, srdMessage(view, at))
      return
    }
    if (acknowledgeLater(source, psn)) this.#toAcknowledge.push(source)
  }

  /** As `#takePacket`, for a packet that may have come before. */
  #takeOnce(source: ReceivedFrom, psn: number, at: number, opcode: number, payload: number): number {
    const answer = answerOf(source, psn)
    if (answer !== undefined) return answer
    const status = this.#takePacket(source, at, opcode, payload)
    if (status !== WAIT) noteAnswer(source, psn, status)
    return status
  }

  #receivedFrom(qp: QueuePair, peer: Peer, qpn: number, epoch: number, psn: number): ReceivedFrom | undefined {
    const key = pairKey(peer, qpn)
    let source = qp.sources.get(key)
    if (source === undefined || source.epoch !== epoch) {
      // a packet of an earlier pair is late: if it counted as a new one, packets of today would count as new again
      if (source?.earlierEpochs.includes(epoch)) return undefined
      if (source === undefined) {
        if (this.#sources === MAX_SOURCES) return undefined
        this.#sources++
        peer.uses++
      }
      source = createReceivedFrom(qp, peer, qpn, epoch, psn, source)
      qp.sources.set(key, source)
    }
    source.usedAt = this.#engine.now
    return source
  }

  /**
   * Executes a packet. WAIT: it must come again later; NOT_READY: later and with a new number; OK: it is taken; otherwise
   * why its message fails.
   */
  #takePacket(source: ReceivedFrom, at: number, opcode: number, payload: number): number {
    const { qp } = source
    const { arena } = this.#engine.port
    const { view } = arena
    const message = srdMessage(view, at)
    const offset = srdOffset(view, at)
    const length = srdLength(view, at)
    const data = at + payloadAt(opcode)
    const { from } = source
    const imm = headerAt.ImmDt[opcode]! > 0 ? view.getUint32(at + headerAt.ImmDt[opcode]!) : undefined
    if (opcode === Opcode.SEND || opcode === Opcode.SEND_IMM) {
      const status = this.#engine.delivery.takeMessage(qp, arena, data, payload, SEND, imm, from)
      return status === WAIT ? EfaStatus.NOT_READY : status
    }
    if (opcode === Opcode.READ_DATA) return this.#takeReadData(source, message, offset, data, payload)
    const reth = at + headerAt.RETH[opcode]!
    const hi = rethVaHi(view, reth)
    const lo = rethVaLo(view, reth)
    const rkey = rethRkey(view, reth)
    const isRead = opcode === Opcode.READ
    const access = isRead ? REMOTE_READ : REMOTE_WRITE
    const range = setRange(this.#engine.range, hi, lo, rkey, length)
    const refusal = this.#engine.delivery.refuseRdma(qp, from.text, access, range)
    if (refusal !== OK) return refusal
    if (isRead) return this.#respond(source, message, hi, lo, rkey, length)
    if (offset + payload > length) return EfaStatus.BAD_STATUS
    const received = (source.writes.get(message) ?? 0) + payload
    const isLast = received >= length
    if (imm !== undefined && !isLast && !source.writes.has(message) && source.writes.size >= MAX_WRITES) return WAIT
    if (!copyRange(this.#engine.memory, qp, access, range, offset, Direction.WRITE, arena, data, payload))
      return EfaStatus.BAD_ADDRESS
    if (imm !== undefined && isLast && this.#engine.delivery.takeImmediate(qp, length, imm, from) === WAIT)
      return EfaStatus.NOT_READY
    this.#engine.counts.rdma_write_recv_bytes += payload
    if (imm === undefined) return OK
    if (isLast) source.writes.delete(message)
    else source.writes.set(message, received)
    return OK
  }

  /** Begins to send the data of a READ. */
  #respond(source: ReceivedFrom, message: number, hi: number, lo: number, rkey: number, length: number): number {
    const { qp, peer, qpn } = source
    const pair = this.#engine.sending.pairOf(qp, peer, qpn)
    if (pair.queue.length >= MAX_RESPONSES) return EfaStatus.NOT_READY
    this.#engine.counts.rdma_read_resp_bytes += length
    pair.queue.push({
      ...emptyRequest(qp),
      operation: READ_DATA,
      order: -1,
      destQpn: qpn,
      peer,
      message,
      remoteHi: hi,
      remoteLo: lo,
      rkey,
      length,
    })
    return OK
  }

  #takeReadData({ qp, peer, qpn }: ReceivedFrom, message: number, offset: number, at: number, length: number): number {
    const request = qp.reads.get(message)
    // of a READ that has failed meanwhile
    if (request === undefined || request.peer !== peer || request.destQpn !== qpn) return OK
    if (offset + length > request.length) return EfaStatus.BAD_STATUS
    const { arena } = this.#engine.port
    const { memory } = this.#engine
    const { elements, count } = request
    if (!copyElements(memory, qp, elements, count, offset, Direction.WRITE, arena, at, length)) {
      this.#engine.end(request, EfaStatus.INVALID_LKEY)
      return OK
    }
    const pair = qp.pairs.get(pairKey(peer, qpn))
    if (pair !== undefined) pair.dataAt = this.#engine.now
    request.done += length
    if (request.done >= request.length) this.#engine.end(request, OK)
    return OK
  }

  acknowledge(): void {
    const { torment } = this.#engine
    for (let source = this.#toAcknowledge.pop(); source !== undefined; source = this.#toAcknowledge.pop()) {
      const { qp, peer, qpn, epoch, firstToAcknowledge: first, lastToAcknowledge } = source
      const isGone = first === undefined || qp.sources.get(pairKey(peer, qpn)) !== source
      if (!isGone && torment?.holds(source)) {
        this.#held.push(source)
        continue
      }
      source.firstToAcknowledge = undefined
      if (isGone) {
        torment?.forget(source)
        continue
      }
      for (let psn = lastToAcknowledge; ; psn = (psn - ACKNOWLEDGED) & 0xff_ffff) {
        const at = this.#engine.port.reserve(ACK_BYTES)
        // the sender sends the packets again, and is then answered
        if (at < 0) break
        this.#bits.fill(0)
        for (let i = 0; i < ACKNOWLEDGED; i++)
          if (answerOf(source, (psn - i) & 0xff_ffff) === OK) this.#bits[i >> 5]! |= 1 << (i & 31)
        putAck(this.#engine.port.arena.view, at, qpn, qp.qpn, epoch, psn, this.#bits)
        this.#engine.commit(at, ACK_BYTES, peer)
        if (psnDifference(psn, first) < ACKNOWLEDGED) break
      }
    }
    for (let source = this.#held.pop(); source !== undefined; source = this.#held.pop())
      this.#toAcknowledge.push(source)
  }
}
