/*
 * What arrives at the queue pairs of a device: messages of the same process, from memory to memory, and datagrams; and
 * the completions of receives.
 */
import type { InjectedCompletion } from '../../core/driver-contract.ts'
import type { Bytes } from '../../core/memory/address-space.ts'
import { causeOfRule } from '../../spec/check/causes.ts'
import { CompletionEntry, CompletionFlag, EfaOperation, EfaStatus, UNKNOWN_AH } from '../../spec/drivers/efa-queues.ts'
import { AccessFlags } from '../../spec/enums.ts'
import { DEFAULT_PKEY } from '../../spec/wire/headers.ts'
import { headerAt } from '../../spec/wire/opcodes.ts'
import { isMappedIpv4 } from '../../transport/wire/address.ts'
import { BTH_PAD_SHIFT, bthDestQp, putBth } from '../../transport/wire/bth.ts'
import { GRH_BYTES, IPV4_BYTES, putIpv4, putIpv6, UDP_BYTES } from '../../transport/wire/ip.ts'
import { beginEntry, efaStatusOf, endEntry, isSilent, WC_RECV, WC_WRITE_IMM } from './completions.ts'
import type { EfaState } from './device-state.ts'
import { continueLater, tapCompletion, waitForReceive } from './ending.ts'
import { HOP_LIMIT, MAX_TRANSFER, receives, SCRATCH_BYTES, UD_SEND, UD_SEND_IMM, WAIT } from './engine-common.ts'
import { reportReceive } from './failures.ts'
import { copyElements, copyRange, gather, isGranted, memoryOf, setRange } from './memory.ts'
import { commit } from './peers.ts'
import { pendingReceives, postedReceive, takeReceive } from './requests.ts'
import { packetBytes, payloadAt } from './srd/packets.ts'
import type { Arrival, Element, QueuePair, Request, Source } from './state.ts'

const { SEND, RDMA_READ, RDMA_WRITE } = EfaOperation
const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE } = AccessFlags.values
const { OK } = EfaStatus

/** The GRH of a datagram with `length` bytes of payload; over IPv4 as Linux writes it. */
const putGrh = (view: DataView, length: number, source: Uint8Array, destination: Uint8Array): void => {
  const udpLength = UDP_BYTES + packetBytes(UD_SEND, length)
  if (!isMappedIpv4(source)) {
    putIpv6(view, 0, udpLength, 0, 0, HOP_LIMIT, source, destination)
    return
  }
  const ip = GRH_BYTES - IPV4_BYTES
  for (let i = 0; i < ip; i += 4) view.setUint32(i, 0)
  putIpv4(view, ip, IPV4_BYTES + udpLength, 0, true, 0, HOP_LIMIT, source, destination)
}

/** Says what arrives next. */
export const setArrival = (
  { arrival }: EfaState,
  operation: number,
  length: number,
  hasImm: boolean,
  imm: number,
  sourceQpn: number,
  source: Arrival['source'],
): void => {
  arrival.operation = operation
  arrival.length = length
  arrival.hasImm = hasImm
  arrival.imm = imm
  arrival.sourceQpn = sourceQpn
  arrival.source = source
  arrival.isUnsolicited = false
}

/** A queue pair that can receive with this service and Q_Key. */
export const findReceiver = (
  { qps }: EfaState,
  qpn: number,
  isReliable: boolean,
  qkey: number,
): QueuePair | undefined => {
  const qp = qps.get(qpn)?.state
  return qp !== undefined && receives(qp.state) && qp.isReliable === isReliable && qp.qkey === qkey ? qp : undefined
}

const countPacket = (sender: EfaState, receiver: EfaState, bytes: number): void => {
  sender.counts.tx_pkts++
  sender.counts.tx_bytes += bytes
  receiver.counts.rx_pkts++
  receiver.counts.rx_bytes += bytes
}

// ---- messages within the process ----

/** Executes a request of `sender` at its destination in device `efa`, or a part of it. Returns its status, or WAIT. */
export const deliver = (efa: EfaState, sender: EfaState, request: Request): number => {
  const qp = findReceiver(efa, request.destQpn, true, request.qkey)
  if (qp === undefined) return EfaStatus.BAD_DESTINATION
  if (request.operation !== SEND) return deliverRdma(efa, sender, request, qp)
  if (pendingReceives(qp) === 0) return waitForReceive(sender, request, qp)
  const { length, hasImm, imm } = request
  const status = gather(memoryOf(sender), request, 0, sender.scratch, 0, length)
  if (status !== OK) return status
  countPacket(sender, efa, length)
  setArrival(efa, SEND, length, hasImm, imm, request.qp.qpn, request.qp.source)
  return takeMessage(efa, qp, sender.scratch, 0, length)
}

const deliverRdma = (efa: EfaState, sender: EfaState, request: Request, qp: QueuePair): number => {
  const { operation, remoteHi, remoteLo, rkey, length, hasImm } = request
  const isRead = operation === RDMA_READ
  const access = isRead ? REMOTE_READ : REMOTE_WRITE
  const memory = memoryOf(efa)
  const own = memoryOf(sender)
  const { scratch } = sender
  const range = setRange(efa.range, remoteHi, remoteLo, rkey, length)
  if (request.done === 0) {
    const refusal = refuseRdma(efa, qp, request.qp.source, access, range)
    if (refusal !== OK) return refusal
    if (hasImm && !isRead && !qp.takesUnsolicitedWrites && pendingReceives(qp) === 0)
      return waitForReceive(sender, request, qp)
  }
  for (let budget = sender.turns.areShared ? SCRATCH_BYTES : MAX_TRANSFER; request.done < length; ) {
    if (budget <= 0) return continueLater(sender, request)
    const { done } = request
    const part = Math.min(length - done, SCRATCH_BYTES)
    if (!isRead) {
      const status = gather(own, request, done, scratch, 0, part)
      if (status !== OK) return status
    }
    if (!copyRange(memory, qp, access, range, done, scratch, 0, part)) return EfaStatus.BAD_ADDRESS
    if (isRead && !copyElements(own, request.qp, request, LOCAL_WRITE, done, scratch, 0, part))
      return EfaStatus.INVALID_LKEY
    request.done += part
    budget -= part
    if (isRead) countPacket(efa, sender, part)
    else countPacket(sender, efa, part)
  }
  if (isRead) efa.counts.rdma_read_resp_bytes += length
  else efa.counts.rdma_write_recv_bytes += length
  if (isRead || !hasImm) return OK
  setArrival(efa, RDMA_WRITE, length, true, request.imm, request.qp.qpn, request.qp.source)
  const status = takeImmediate(efa, qp)
  return status === WAIT ? waitForReceive(sender, request, qp) : status
}

/** RDMA needs a key, and an address handle of the initiator. */
export const refuseRdma = (
  efa: EfaState,
  qp: QueuePair,
  source: Pick<Source, 'text'>,
  access: number,
  range: Element,
): EfaStatus => {
  if (ahOf(efa, qp.pd, source) === UNKNOWN_AH) return EfaStatus.UNKNOWN_PEER
  return isGranted(memoryOf(efa), qp, access, range) ? OK : EfaStatus.BAD_ADDRESS
}

const ahOf = ({ peers }: EfaState, pd: number, { text }: Pick<Source, 'text'>): number =>
  peers.byText.get(text)?.ahs.get(pd) ?? UNKNOWN_AH

// ---- receives ----

/**
 * Writes the arrival, of which `length` bytes are at `at`, to the oldest receive; that of UD after the GRH in the
 * scratch buffer. Returns the sender's status; WAIT: there is none.
 */
export const takeMessage = (efa: EfaState, qp: QueuePair, bytes: Bytes, at: number, length: number): number => {
  const { receive, arrival } = efa
  const { memory: table, taps } = efa.device()
  const { requests } = taps
  if (qp.receive === undefined || !takeReceive(table, qp.receive, receive)) {
    requests?.notReady(qp.object)
    return WAIT
  }
  requests?.taken(qp.object, qp.object, postedReceive(receive))
  const memory = memoryOf(efa)
  const head = qp.isReliable ? 0 : GRH_BYTES
  let status: number = OK
  if (receive.length < arrival.length) status = EfaStatus.LOCAL_LENGTH
  else if (
    (head > 0 && !copyElements(memory, qp, receive, LOCAL_WRITE, 0, efa.scratch, 0, head)) ||
    !copyElements(memory, qp, receive, LOCAL_WRITE, head, bytes, at, length)
  )
    status = EfaStatus.INVALID_LKEY
  completeReceive(efa, qp, status)
  if (status === OK) return OK
  return status === EfaStatus.LOCAL_LENGTH ? EfaStatus.REMOTE_LENGTH : EfaStatus.BAD_STATUS
}

/** The immediate data of a WRITE takes a receive without writing to it. Returns OK; WAIT: there is none. */
export const takeImmediate = (efa: EfaState, qp: QueuePair): number => {
  const { memory: table, taps } = efa.device()
  if (qp.takesUnsolicitedWrites) efa.arrival.isUnsolicited = true
  else if (qp.receive === undefined || !takeReceive(table, qp.receive, efa.receive)) return WAIT
  else taps.requests?.taken(qp.object, qp.object, postedReceive(efa.receive))
  completeReceive(efa, qp, OK)
  return OK
}

/** Completes the taken receive, or the unsolicited arrival, with what has arrived. */
export const completeReceive = (efa: EfaState, qp: QueuePair, taken: number): void => {
  const { counts, arrival, receive, torment } = efa
  const device = efa.device()
  const { operation, length, isUnsolicited } = arrival
  arrival.id = isUnsolicited ? 0 : receive.id
  const opcode = operation === RDMA_WRITE ? WC_WRITE_IMM : WC_RECV
  const { decideCompletion } = device.taps
  let fault: InjectedCompletion | undefined
  if (taken === OK && decideCompletion !== undefined) fault = decideCompletion(qp.object, opcode, BigInt(arrival.id))
  const status = fault === undefined ? taken : efaStatusOf(fault.status)
  counts.recv_wrs++
  if (status !== OK && status !== EfaStatus.FLUSHED)
    reportReceive(device, qp, receive, status, length, fault && causeOfRule(fault))
  if (status === OK && operation === SEND) counts.recv_bytes += length
  if (torment === undefined) writeReceive(efa, qp, arrival, status, opcode)
  else {
    const copy = { ...arrival }
    torment.pushReceive(qp.receiveCq, qp.qpn, () => writeReceive(efa, qp, copy, status, opcode))
  }
}

const writeReceive = (efa: EfaState, qp: QueuePair, arrived: Arrival, status: number, opcode: number): void => {
  if (isSilent(efa, qp)) return
  const cq = qp.receiveCq
  const fields = status === OK ? undefined : efa.torment?.undefinedFields(qp.qpn, true)
  const { id, source, isUnsolicited } = arrived
  const { operation, length } = fields ?? arrived
  const at = beginEntry(cq)
  if (at >= 0) {
    const { view, bytes } = cq.state.ring
    view.setUint16(at + CompletionEntry.QPN, qp.qpn, true)
    view.setUint16(at + CompletionEntry.LENGTH, length & 0xffff, true)
    const ah = source === undefined ? UNKNOWN_AH : ahOf(efa, qp.pd, source)
    view.setUint16(at + CompletionEntry.AH, fields?.ah ?? ah, true)
    view.setUint16(at + CompletionEntry.SOURCE_QPN, fields?.sourceQpn ?? arrived.sourceQpn, true)
    const { hasImm } = fields ?? arrived
    if (hasImm) view.setUint32(at + CompletionEntry.IMM, fields?.imm ?? arrived.imm, true)
    if (cq.state.entryBytes > CompletionEntry.LENGTH_HIGH) {
      if (operation === RDMA_WRITE) view.setUint16(at + CompletionEntry.LENGTH_HIGH, length >>> 16, true)
      else if (ah === UNKNOWN_AH && cq.state.hasSourceGid && source !== undefined)
        bytes.set(source.address, at + CompletionEntry.SOURCE_GID)
    }
    const { RECEIVE_QUEUE, HAS_IMM, OPERATION_SHIFT, UNSOLICITED } = CompletionFlag
    const flags =
      RECEIVE_QUEUE | (hasImm ? HAS_IMM : 0) | (operation << OPERATION_SHIFT) | (isUnsolicited ? UNSOLICITED : 0)
    endEntry(cq, at, id, status, flags)
  }
  if (!isUnsolicited) tapCompletion(efa, qp, cq, at, status, opcode, arrived.length, arrived.sourceQpn)
}

// ---- datagrams ----

/**
 * Sends a datagram, which may be lost. `target`: the device of this process that has its destination. Returns its
 * status.
 */
export const sendDatagram = (efa: EfaState, request: Request, target: EfaState | undefined): EfaStatus => {
  const { length, hasImm, imm, qp, destQpn, qkey, peer } = request
  if (target !== undefined) {
    // the buffer of the target, which may be the same, gets the GRH
    const status = gather(memoryOf(efa), request, 0, efa.scratch, GRH_BYTES, length)
    if (status !== OK) return status
    countPacket(efa, target, length)
    setArrival(target, SEND, GRH_BYTES + length, hasImm, imm, qp.qpn, qp.source)
    takeDatagram(target, destQpn, qkey, efa.gid, peer!.address, efa.scratch, GRH_BYTES, length)
    return OK
  }
  const opcode = hasImm ? UD_SEND_IMM : UD_SEND
  const bytes = packetBytes(opcode, length)
  const at = efa.port.reserve(bytes)
  // no room: lost, as in a full queue of an adapter
  if (at < 0) return OK
  const { arena } = efa.port
  const status = gather(memoryOf(efa), request, 0, arena, at + payloadAt(opcode), length)
  if (status !== OK) return status
  const { view } = arena
  putBth(view, at, opcode, (-length & 3) << BTH_PAD_SHIFT, DEFAULT_PKEY, destQpn, qp.sqPsn)
  qp.sqPsn = (qp.sqPsn + 1) & 0xff_ffff
  view.setUint32(at + headerAt.DETH[opcode]!, qkey)
  view.setUint32(at + headerAt.DETH[opcode]! + 4, qp.qpn)
  if (hasImm) view.setUint32(at + headerAt.ImmDt[opcode]!, imm)
  commit(efa, at, bytes, peer!)
  return OK
}

/** The arrival is a datagram, whose `length` bytes of payload are at `at`. */
const takeDatagram = (
  efa: EfaState,
  qpn: number,
  qkey: number,
  from: Uint8Array,
  to: Uint8Array,
  bytes: Bytes,
  at: number,
  length: number,
): void => {
  const qp = findReceiver(efa, qpn, false, qkey)
  if (qp === undefined) {
    efa.counts.rx_drops++
    return
  }
  putGrh(efa.scratch.view, length, from, to)
  if (takeMessage(efa, qp, bytes, at, length) === WAIT) efa.counts.rx_drops++
}

/** A packet of UD, of `efa.sender`. */
export const onDatagram = (efa: EfaState, at: number, opcode: number, length: number): void => {
  const { sender, torment } = efa
  const { arena } = efa.port
  const { view } = arena
  if (length > efa.mtu) return
  const deth = at + headerAt.DETH[opcode]!
  const hasImm = opcode === UD_SEND_IMM
  const imm = hasImm ? view.getUint32(at + headerAt.ImmDt[opcode]!) : 0
  // the record of an unknown sender is that of the next run, too: torment keeps it
  const unknown = torment === undefined ? sender : { ...sender, address: sender.address.slice() }
  const source = sender.peer ?? unknown
  setArrival(efa, SEND, GRH_BYTES + length, hasImm, imm, view.getUint32(deth + 4) & 0xff_ffff, source)
  const qkey = view.getUint32(deth)
  takeDatagram(efa, bthDestQp(view, at), qkey, source.address, efa.gid, arena, at + payloadAt(opcode), length)
}
