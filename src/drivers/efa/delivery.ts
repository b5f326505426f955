/*
 * What arrives at the queue pairs of a device: messages of the same process, from memory to memory, and datagrams; and the
 * completions of receives. engine.ts has the polls and the ends of sends.
 */
import type { Bytes } from '../../core/memory/address-space.ts'
import { causeOfRule } from '../../spec/check/causes.ts'
import { CompletionEntry, CompletionFlag, EfaOperation, EfaStatus, UNKNOWN_AH } from '../../spec/drivers/efa-queues.ts'
import { AccessFlags } from '../../spec/enums.ts'
import { DEFAULT_PKEY } from '../../spec/wire/headers.ts'
import { headerAt } from '../../spec/wire/opcodes.ts'
import { isMappedIpv4 } from '../../transport/wire/address.ts'
import { BTH_PAD_SHIFT, bthDestQp, putBth } from '../../transport/wire/bth.ts'
import { GRH_BYTES, IPV4_BYTES, putIpv4, putIpv6, UDP_BYTES } from '../../transport/wire/ip.ts'
import { beginEntry, efaStatusOf, endEntry, WC_RECV, WC_WRITE_IMM } from './completions.ts'
import {
  HOP_LIMIT,
  MAX_TRANSFER,
  pendingReceives,
  receives,
  SCRATCH_BYTES,
  UD_SEND,
  UD_SEND_IMM,
  WAIT,
} from './engine-common.ts'
import type { EngineParts } from './engine-parts.ts'
import { reportReceive } from './failures.ts'
import { copyElements, copyRange, Direction, gather, isGranted, setRange } from './memory.ts'
import { postedReceive, takeReceive } from './requests.ts'
import { packetBytes, payloadAt } from './srd/packets.ts'
import type { Element, Peer, QueuePair, Request, Source } from './state.ts'

const { SEND, RDMA_READ, RDMA_WRITE } = EfaOperation
const { REMOTE_READ, REMOTE_WRITE } = AccessFlags.values
const { OK } = EfaStatus
const { READ, WRITE } = Direction

/** The GRH of a datagram with `length` bytes of payload; over IPv4 as Linux writes it. */
const putGrh = (view: DataView, at: number, length: number, source: Uint8Array, destination: Uint8Array): void => {
  const udpLength = UDP_BYTES + packetBytes(UD_SEND, length)
  if (!isMappedIpv4(source)) {
    putIpv6(view, at, udpLength, 0, 0, HOP_LIMIT, source, destination)
    return
  }
  const ip = at + GRH_BYTES - IPV4_BYTES
  for (let i = at; i < ip; i += 4) view.setUint32(i, 0)
  putIpv4(view, ip, IPV4_BYTES + udpLength, 0, true, 0, HOP_LIMIT, source, destination)
}

/** What arrives at the queue pairs of a device, and datagrams. */
export class Delivery {
  readonly #engine: EngineParts

  constructor(engine: EngineParts) {
    this.#engine = engine
  }

  /** A queue pair that can receive with this service and Q_Key. */
  find(qpn: number, isReliable: boolean, qkey: number): QueuePair | undefined {
    const qp = this.#engine.state.qps.get(qpn)?.state
    return qp !== undefined && receives(qp.state) && qp.isReliable === isReliable && qp.qkey === qkey ? qp : undefined
  }

  /** Executes a request of `sender` at its destination in this device, or a part of it. */
  deliver(sender: EngineParts, request: Request): number {
    const qp = this.find(request.destQpn, true, request.qkey)
    if (qp === undefined) return EfaStatus.BAD_DESTINATION
    if (request.operation !== SEND) return this.#deliverRdma(sender, request, qp)
    if (pendingReceives(qp) === 0) return sender.wait(request, qp)
    const status = sender.delivery.gatherInto(request, 0, request.length)
    if (status !== OK) return status
    this.countPacket(sender, request.length)
    return this.takeMessage(
      qp,
      sender.scratch,
      0,
      request.length,
      SEND,
      request.hasImm ? request.imm : undefined,
      request.qp.source,
    )
  }

  gatherInto(request: Request, offset: number, length: number): EfaStatus {
    return gather(this.#engine.memory, request, offset, this.#engine.scratch, 0, length)
  }

  countPacket(sender: EngineParts, bytes: number): void {
    sender.counts.tx_pkts++
    sender.counts.tx_bytes += bytes
    this.#engine.counts.rx_pkts++
    this.#engine.counts.rx_bytes += bytes
  }

  #deliverRdma(sender: EngineParts, request: Request, qp: QueuePair): number {
    const { operation, remoteHi, remoteLo, rkey, length, hasImm, elements, count } = request
    const isRead = operation === RDMA_READ
    const access = isRead ? REMOTE_READ : REMOTE_WRITE
    const { memory } = this.#engine
    const range = setRange(this.#engine.range, remoteHi, remoteLo, rkey, length)
    if (request.done === 0) {
      const refusal = this.refuseRdma(qp, request.qp.source.text, access, range)
      if (refusal !== OK) return refusal
      if (hasImm && !isRead && !qp.takesUnsolicitedWrites && pendingReceives(qp) === 0) return sender.wait(request, qp)
    }
    const scratch = sender.scratch
    for (let budget = MAX_TRANSFER; request.done < length; ) {
      if (budget <= 0) return sender.continueLater(request)
      const { done } = request
      const part = Math.min(length - done, SCRATCH_BYTES)
      if (!isRead) {
        const status = sender.delivery.gatherInto(request, done, part)
        if (status !== OK) return status
      }
      if (!copyRange(memory, qp, access, range, done, isRead ? READ : WRITE, scratch, 0, part))
        return EfaStatus.BAD_ADDRESS
      if (isRead && !copyElements(sender.memory, request.qp, elements, count, done, WRITE, scratch, 0, part))
        return EfaStatus.INVALID_LKEY
      request.done += part
      budget -= part
      if (isRead) sender.delivery.countPacket(this.#engine, part)
      else this.countPacket(sender, part)
    }
    if (isRead) this.#engine.counts.rdma_read_resp_bytes += length
    else this.#engine.counts.rdma_write_recv_bytes += length
    if (!isRead && hasImm) {
      const status = this.takeImmediate(qp, length, request.imm, request.qp.source)
      return status === WAIT ? sender.wait(request, qp) : status
    }
    return OK
  }

  /** RDMA needs a key, and an address handle of the initiator. */
  refuseRdma(qp: QueuePair, sourceText: string, access: number, range: Element): EfaStatus {
    if (this.#ahOf(qp.pd, sourceText) === UNKNOWN_AH) return EfaStatus.UNKNOWN_PEER
    return isGranted(this.#engine.memory, qp, access, range) ? OK : EfaStatus.BAD_ADDRESS
  }

  #ahOf(pd: number, text: string): number {
    return this.#engine.peers.get(text)?.ahs.get(pd) ?? UNKNOWN_AH
  }

  /** Writes a message of `length` bytes at `at` to the oldest receive. Returns the sender's status; WAIT: there is none. */
  takeMessage(
    qp: QueuePair,
    bytes: Bytes,
    at: number,
    length: number,
    operation: number,
    imm: number | undefined,
    source: Source,
  ): number {
    const receive = this.#engine.receive
    if (qp.receive === undefined || !takeReceive(this.#engine.device().memory, qp.receive, receive)) {
      this.#engine.taps?.notReady(qp.object)
      return WAIT
    }
    this.#engine.taps?.taken(qp.object, qp.object, postedReceive(receive))
    let status: number = OK
    if (receive.length < length) status = EfaStatus.LOCAL_LENGTH
    else if (!copyElements(this.#engine.memory, qp, receive.elements, receive.count, 0, WRITE, bytes, at, length))
      status = EfaStatus.INVALID_LKEY
    this.completeReceive(qp, status, length, operation, imm, source)
    if (status === OK) return OK
    return status === EfaStatus.LOCAL_LENGTH ? EfaStatus.REMOTE_LENGTH : EfaStatus.BAD_STATUS
  }

  /** The immediate data of a WRITE takes a receive without writing to it. */
  takeImmediate(qp: QueuePair, length: number, imm: number, source: Source): number {
    if (qp.takesUnsolicitedWrites) {
      this.completeReceive(qp, OK, length, RDMA_WRITE, imm, source, true)
      return OK
    }
    if (qp.receive === undefined || !takeReceive(this.#engine.device().memory, qp.receive, this.#engine.receive))
      return WAIT
    this.#engine.taps?.taken(qp.object, qp.object, postedReceive(this.#engine.receive))
    this.completeReceive(qp, OK, length, RDMA_WRITE, imm, source)
    return OK
  }

  completeReceive(
    qp: QueuePair,
    taken: number,
    length: number,
    operation: number,
    imm: number | undefined,
    source: Source | undefined,
    isUnsolicited = false,
  ): void {
    const { counts } = this.#engine
    const cq = qp.receiveCq
    const id = isUnsolicited ? 0 : this.#engine.receive.id
    const opcode = operation === RDMA_WRITE ? WC_WRITE_IMM : WC_RECV
    const { decideCompletion } = this.#engine.device().taps
    const fault = taken === OK ? decideCompletion?.(qp.object, opcode, BigInt(id)) : undefined
    const status = fault === undefined ? taken : efaStatusOf(fault.status)
    counts.recv_wrs++
    if (status !== OK && status !== EfaStatus.FLUSHED)
      reportReceive(this.#engine.device(), qp, this.#engine.receive, status, length, fault && causeOfRule(fault))
    if (status === OK && operation === SEND) counts.recv_bytes += length
    if (this.#engine.torment === undefined)
      this.#writeReceive(qp, id, status, length, operation, opcode, imm, source, isUnsolicited)
    else
      this.#engine.torment.pushReceive(cq, qp.qpn, () =>
        this.#writeReceive(qp, id, status, length, operation, opcode, imm, source, isUnsolicited),
      )
  }

  #writeReceive(
    qp: QueuePair,
    id: number,
    status: number,
    bytesHere: number,
    operationHere: number,
    opcode: number,
    immHere: number | undefined,
    source: Source | undefined,
    isUnsolicited: boolean,
  ): void {
    const cq = qp.receiveCq
    const fields = status === OK ? undefined : this.#engine.torment?.undefinedFields(qp.qpn)
    const operation = fields?.operation ?? operationHere
    const length = fields?.length ?? bytesHere
    const imm = fields === undefined ? immHere : fields.imm
    const at = beginEntry(cq)
    if (at >= 0) {
      const { view, bytes } = cq.state.ring
      view.setUint16(at + CompletionEntry.QPN, qp.qpn, true)
      view.setUint16(at + CompletionEntry.LENGTH, length & 0xffff, true)
      const ah = source === undefined ? UNKNOWN_AH : this.#ahOf(qp.pd, source.text)
      view.setUint16(at + CompletionEntry.AH, fields?.ah ?? ah, true)
      view.setUint16(at + CompletionEntry.SOURCE_QPN, fields?.sourceQpn ?? source?.qpn ?? 0, true)
      if (imm !== undefined) view.setUint32(at + CompletionEntry.IMM, imm, true)
      if (cq.state.entryBytes > CompletionEntry.LENGTH_HIGH) {
        if (operation === RDMA_WRITE) view.setUint16(at + CompletionEntry.LENGTH_HIGH, length >>> 16, true)
        else if (ah === UNKNOWN_AH && cq.state.hasSourceGid && source !== undefined)
          bytes.set(source.address, at + CompletionEntry.SOURCE_GID)
      }
      const { RECEIVE_QUEUE, HAS_IMM, OPERATION_SHIFT, UNSOLICITED } = CompletionFlag
      const flags =
        RECEIVE_QUEUE |
        (imm === undefined ? 0 : HAS_IMM) |
        (operation << OPERATION_SHIFT) |
        (isUnsolicited ? UNSOLICITED : 0)
      endEntry(cq, at, id, status, flags)
    }
    if (!isUnsolicited) this.#engine.tapCompleted(qp, cq, at, status, opcode, bytesHere, source?.qpn ?? 0)
  }

  /** Sends a datagram, which may be lost. Returns the status of the send. */
  sendDatagram(request: Request, target: EngineParts | undefined): EfaStatus {
    const { length, hasImm, imm, qp, destQpn, qkey, peer } = request
    if (target !== undefined) {
      const status = gather(this.#engine.memory, request, 0, this.#engine.scratch, GRH_BYTES, length)
      if (status !== OK) return status
      target.delivery.countPacket(this.#engine, length)
      putGrh(this.#engine.scratch.view, 0, length, this.#engine.state.gid, peer!.address)
      target.delivery.takeDatagram(this.#engine.scratch, length, destQpn, qkey, hasImm ? imm : undefined, qp.source)
      return OK
    }
    const opcode = hasImm ? UD_SEND_IMM : UD_SEND
    const bytes = packetBytes(opcode, length)
    const at = this.#engine.port.reserve(bytes)
    // no room: lost, as in a full queue of an adapter
    if (at < 0) return OK
    const { arena } = this.#engine.port
    const status = gather(this.#engine.memory, request, 0, arena, at + payloadAt(opcode), length)
    if (status !== OK) return status
    const { view } = arena
    putBth(view, at, opcode, (-length & 3) << BTH_PAD_SHIFT, DEFAULT_PKEY, destQpn, qp.sqPsn)
    qp.sqPsn = (qp.sqPsn + 1) & 0xff_ffff
    view.setUint32(at + headerAt.DETH[opcode]!, qkey)
    view.setUint32(at + headerAt.DETH[opcode]! + 4, qp.qpn)
    if (hasImm) view.setUint32(at + headerAt.ImmDt[opcode]!, imm)
    this.#engine.commit(at, bytes, peer!)
    return OK
  }

  /** A datagram whose GRH begins `bytes`. */
  takeDatagram(bytes: Bytes, length: number, qpn: number, qkey: number, imm: number | undefined, source: Source): void {
    const qp = this.find(qpn, false, qkey)
    if (qp === undefined || this.takeMessage(qp, bytes, 0, GRH_BYTES + length, SEND, imm, source) === WAIT)
      this.#engine.counts.rx_drops++
  }

  onDatagram(peer: Peer, at: number, opcode: number, length: number): void {
    const { arena } = this.#engine.port
    const { view, bytes } = arena
    const deth = at + headerAt.DETH[opcode]!
    const imm = opcode === UD_SEND_IMM ? view.getUint32(at + headerAt.ImmDt[opcode]!) : undefined
    if (length > this.#engine.mtu) return
    putGrh(this.#engine.scratch.view, 0, length, peer.address, this.#engine.state.gid)
    const payload = at + payloadAt(opcode)
    this.#engine.scratch.bytes.set(bytes.subarray(payload, payload + length), GRH_BYTES)
    const source = { qpn: view.getUint32(deth + 4) & 0xff_ffff, address: peer.address, text: peer.text }
    this.takeDatagram(this.#engine.scratch, length, bthDestQp(view, at), view.getUint32(deth), imm, source)
  }
}
