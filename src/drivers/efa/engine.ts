/*
 * The engine of an EFA device: takes sends from rings, executes them, and completes them (docs/decisions/efa.md,
 * docs/decisions/srd.md). Queue pairs of the same process get messages directly, from memory to memory; others by
 * packets of SRD, which need no order, or of UD. Does no I/O of its own; times are microseconds.
 */
import type { Bytes } from '../../core/memory/address-space.ts'
import type { Device } from '../../core/model.ts'
import { emptyRun, type Port } from '../../phy/port.ts'
import { CompletionEntry, CompletionFlag, EfaOperation, EfaStatus, UNKNOWN_AH } from '../../spec/drivers/efa-queues.ts'
import { AccessFlags, QpState } from '../../spec/enums.ts'
import { DEFAULT_PKEY, ICRC_BYTES } from '../../spec/wire/headers.ts'
import { headerAt, opcodeNumber } from '../../spec/wire/opcodes.ts'
import { addressText, isMappedIpv4, isSameAddress } from '../../wire/address.ts'
import { BTH_PAD_SHIFT, bthDestQp, bthOpcode, bthPadCount, bthPsn, psnDifference, putBth } from '../../wire/bth.ts'
import { rethRkey, rethVaHi, rethVaLo } from '../../wire/extensions.ts'
import { GRH_BYTES, IPV4_BYTES, putIpv4, putIpv6, UDP_BYTES } from '../../wire/ip.ts'
import { checkPacket } from '../../wire/packet.ts'
import { Limits } from './attributes.ts'
import {
  beginEntry,
  efaStatusOf,
  endEntry,
  readCqDoorbell,
  WC_RECV,
  WC_SEND,
  WC_WRITE,
  WC_WRITE_IMM,
  wcStatusOf,
} from './completions.ts'
import { loadDoorbell } from './doorbells.ts'
import { copyElements, copyRange, elementsGranted, gather, isGranted } from './memory.ts'
import {
  copyRequest,
  emptyReceive,
  emptyRequest,
  idOf,
  NO_INLINE,
  pendingElements,
  pendingSends,
  postedReceive,
  postedSend,
  readSend,
  takeReceive,
} from './requests.ts'
import {
  ACK_BYTES,
  ackEpoch,
  ackSource,
  ackWord,
  Opcode,
  opcodeOf,
  packetBytes,
  payloadAt,
  putAck,
  putHeaders,
  putRefusal,
  READ_DATA,
  REFUSE_BYTES,
  refusalStatus,
  srdEpoch,
  srdLength,
  srdMessage,
  srdOffset,
  srdQkey,
  srdSource,
} from './srd/packets.ts'
import {
  ACKNOWLEDGED,
  acknowledgeLater,
  closeWindow,
  createPair,
  createReceivedFrom,
  endPacket,
  endPacketsOf,
  isRefused,
  isTaken,
  notePacket,
  noteTaken,
  requestOf,
  room,
  slotOf,
  visitPackets,
  WINDOW,
} from './srd/pairs.ts'
import {
  type CqObject,
  type EfaState,
  type EngineCalls,
  type Pair,
  type Peer,
  pairKey,
  type QueuePair,
  type ReceivedFrom,
  type Request,
  randomEpoch,
} from './state.ts'

const { SEND, RDMA_READ, RDMA_WRITE } = EfaOperation
const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE } = AccessFlags.values
const { RTR, RTS, SQD, SQE, ERR } = QpState.values
const { OK } = EfaStatus

export const SCRATCH_BYTES = 0x1_0000
/** Sends of one queue pair, and bytes of one READ or WRITE, that one poll executes. */
const MAX_SENDS = 256
const MAX_TRANSFER = 0x10_0000
/** A message without receive is sent again after this time, or when a receive is posted. */
const NOT_READY_DELAY = 1000
/** `rnrRetry` for no limit. */
export const ENDLESS = 7
/** Time until an unacknowledged packet is sent again, doubled at each try; the destination is given up after so many. */
const FIRST_TIMEOUT = 4000
const MAX_TIMEOUT = 256_000
const MAX_TRIES = 14
/** A packet for which the port has no room is tried again after this time. */
const PORT_FULL_DELAY = 100
/** A packet is lost if one that is so much later was acknowledged. */
const REORDERED = 64
/** Microseconds without data after which a READ fails. */
const READ_TIMEOUT = 3_000_000
/** READs of one peer's queue pair that are answered at a time. */
const MAX_RESPONSES = 128
/** Incomplete WRITEs with immediate data of one source. */
const MAX_WRITES = 4096
/** Sources of packets that have no address handle here. */
const MAX_STRANGERS = 4096
/** Sources of packets of all queue pairs, each about 500 bytes; packets of further ones are dropped. */
const MAX_SOURCES = 0x1_0000
/** Microseconds after which an idle pair is forgotten: no packet is in flight so long. */
const IDLE_TIME = 60_000_000
/** The hop limit and UDP source port of all packets. */
const HOP_LIMIT = 64
const SOURCE_PORT = 4791
/** The request waits: it is not completed now. */
const WAIT = -1

const UD_SEND = opcodeNumber.UD_SEND_ONLY
const UD_SEND_IMM = opcodeNumber.UD_SEND_ONLY_IMM

const receives = (state: number): boolean => state === RTR || state === RTS || state === SQD || state === SQE

/** The counters of Linux's driver, and what else `userdma stat` shows. */
export const createCounts = () => ({
  tx_bytes: 0,
  tx_pkts: 0,
  rx_bytes: 0,
  rx_pkts: 0,
  rx_drops: 0,
  send_bytes: 0,
  send_wrs: 0,
  recv_bytes: 0,
  recv_wrs: 0,
  rdma_read_wrs: 0,
  rdma_read_bytes: 0,
  rdma_read_wr_err: 0,
  rdma_read_resp_bytes: 0,
  rdma_write_wrs: 0,
  rdma_write_bytes: 0,
  rdma_write_wr_err: 0,
  rdma_write_recv_bytes: 0,
  retrans_bytes: 0,
  retrans_pkts: 0,
  retrans_timeout_events: 0,
  unresponsive_remote_events: 0,
})

/** Where a message comes from, for its completion. */
interface Source {
  readonly qpn: number
  readonly address: Uint8Array
  readonly text: string
}

export class Engine implements EngineCalls {
  readonly counts = createCounts()
  readonly #state: EfaState
  readonly #device: () => Device<EfaState>
  readonly #port: Port
  readonly #scratch: Bytes
  /** Bytes of a packet's payload. */
  readonly #mtu: number
  readonly #text: string
  /** The send that is being executed. */
  #request: Request | undefined
  readonly #receive = emptyReceive()
  readonly #run = emptyRun()
  /** By text of the address. */
  readonly #peers = new Map<string, Peer>()
  /** Numbers of closed peers. */
  readonly #freePeers: number[] = []
  /** By the port's number of the source address. */
  readonly #peerOfSource: (Peer | undefined)[] = []
  #strangers = 0
  #sources = 0
  /** Long READs and WRITEs within the process. */
  readonly #transfers: Request[] = []
  /** Requests to try again at `dueAt`. */
  readonly #waiting = new Set<Request>()
  /** READs that wait for data. */
  readonly #reading = new Set<Request>()
  /** Pairs with packets to send, or unacknowledged. */
  readonly #pairs = new Set<Pair>()
  readonly #toAcknowledge: ReceivedFrom[] = []
  readonly #bits = new Uint32Array(ACKNOWLEDGED / 32)
  #now = 0
  #forgetAt = 0

  constructor(state: Omit<EfaState, 'engine'>, device: () => Device<EfaState>, scratch: Bytes, mtu: number) {
    this.#state = state as EfaState
    this.#device = device
    this.#port = state.port
    this.#scratch = scratch
    this.#mtu = mtu
    this.#text = addressText(state.gid)
    this.#port.receiver = this
  }

  get #table() {
    return this.#device().memory
  }

  get #taps() {
    return this.#device().taps.requests
  }

  // ---- the driver's calls ----

  /** Opens a flow to an address. Throws as `Port.openFlow`. */
  openPeer(address: Uint8Array): Peer {
    const text = addressText(address)
    let peer = this.#peers.get(text)
    if (peer === undefined) {
      const flow = this.#port.openFlow({
        source: this.#state.gid,
        destination: address,
        sourcePort: SOURCE_PORT,
        trafficClass: 0,
        hopLimit: HOP_LIMIT,
        flowLabel: 0,
      })
      const number = this.#freePeers.pop() ?? this.#peers.size
      peer = { number, address: address.slice(), flow, uses: 0, ahs: new Map(), source: -1 }
      this.#peers.set(text, peer)
    }
    peer.uses++
    return peer
  }

  closePeer(peer: Peer): void {
    if (--peer.uses > 0) return
    this.#peers.delete(addressText(peer.address))
    this.#freePeers.push(peer.number)
    if (this.#peerOfSource[peer.source] === peer) this.#peerOfSource[peer.source] = undefined
    this.#port.closeFlow(peer.flow)
  }

  /** RESET: forgets everything, without completions. */
  reset(qp: QueuePair): void {
    this.#endAll(qp)
    for (const request of qp.waiters) request.dueAt = this.#now
    qp.waiters.clear()
    for (const source of qp.sources.values()) this.#closeSource(source)
    qp.sources.clear()
    for (const request of qp.active.values()) this.closePeer(request.peer!)
    qp.active.clear()
    qp.ended.clear()
    qp.loaded = 0
    if (qp.send !== undefined) qp.send.taken = 0
    if (qp.receive !== undefined) {
      qp.receive.taken = 0
      qp.receive.seenDoorbell = 0
    }
    this.#taps?.reset(qp.object)
  }

  /** ERR: all requests complete as flushed. */
  fail(qp: QueuePair): void {
    const active = [...qp.active.values()].sort((a, b) => a.order - b.order)
    this.#endAll(qp)
    for (const request of active) this.#end(request, EfaStatus.FLUSHED)
    this.#flush(qp)
  }

  /** Completes everything that is in the rings as flushed. */
  #flush(qp: QueuePair): void {
    if (qp.send !== undefined)
      for (let left = pendingSends(qp.send); left > 0; left--) this.#end(this.#load(qp), EfaStatus.FLUSHED)
    if (qp.receive === undefined) return
    // no more than there are now: the program may ring without end meanwhile
    for (let left = pendingReceives(qp); left > 0 && takeReceive(this.#table, qp.receive, this.#receive); left--) {
      this.#taps?.taken(qp.object, qp.object, postedReceive(this.#receive))
      this.#completeReceive(qp, EfaStatus.FLUSHED, 0, SEND, undefined, undefined)
    }
  }

  /** Nothing is executed any more. */
  #endAll(qp: QueuePair): void {
    for (const request of qp.active.values()) this.#forget(request)
    for (const pair of qp.pairs.values()) {
      this.#pairs.delete(pair)
      this.closePeer(pair.peer)
    }
    qp.pairs.clear()
    qp.reads.clear()
  }

  #closeSource({ peer }: ReceivedFrom): void {
    this.#sources--
    this.closePeer(peer)
  }

  /** Removes a request from all lists but `active`. */
  #forget(request: Request): void {
    this.#waiting.delete(request)
    this.#reading.delete(request)
    request.destination?.waiters.delete(request)
    this.#endTransfer(request)
    request.qp.reads.delete(request.message)
    if (request.peer === undefined) return
    const pair = request.qp.pairs.get(pairKey(request.peer, request.destQpn))
    if (pair !== undefined) endPacketsOf(pair, request)
  }

  #endTransfer(request: Request): void {
    const at = this.#transfers.indexOf(request)
    if (at >= 0) this.#transfers.splice(at, 1)
  }

  // ---- polls ----

  poll(now: number): boolean {
    this.#now = now
    let hasWorked = this.#readDoorbells()
    if (now >= this.#port.nextTimeout()) this.#port.onTimeout(now)
    if (this.#receivePackets()) hasWorked = true
    if (this.#transfers.length > 0) {
      hasWorked = true
      for (const request of [...this.#transfers]) this.#retry(request)
    }
    if (this.#onTimeout(now)) hasWorked = true
    for (const pair of this.#pairs) if (this.#transmit(pair)) hasWorked = true
    this.#acknowledge()
    this.#port.flush()
    if (now >= this.#forgetAt) this.#forgetIdle(now)
    return hasWorked
  }

  /** Forgets destinations and sources that were idle for long: a program may talk to many queue pairs, each once. */
  #forgetIdle(now: number): void {
    this.#forgetAt = now + IDLE_TIME / 4
    for (const { state: qp } of this.#state.qps.values()) {
      for (const [key, pair] of qp.pairs)
        if (!this.#pairs.has(pair) && now >= pair.usedAt + IDLE_TIME) {
          qp.pairs.delete(key)
          this.closePeer(pair.peer)
        }
      for (const [key, source] of qp.sources)
        if (now >= source.usedAt + IDLE_TIME) {
          qp.sources.delete(key)
          this.#closeSource(source)
        }
    }
  }

  nextTimeout(): number {
    let due = this.#port.nextTimeout()
    for (const { dueAt } of this.#waiting) due = Math.min(due, dueAt)
    for (const request of this.#reading) due = Math.min(due, readTimeoutOf(request))
    for (const pair of this.#pairs) {
      if (pair.refused.length > 0) due = Math.min(due, this.#dueOfRefused(pair))
      visitPackets(pair, (_psn, slot) => {
        due = Math.min(due, pair.sentAt[slot]! + timeoutOf(pair.tries[slot]!))
      })
    }
    return due
  }

  /** The first of them is due first. While the window is full, acknowledgements and timeouts come before. */
  #dueOfRefused(pair: Pair): number {
    return room(pair) <= WINDOW / 2 ? Number.POSITIVE_INFINITY : pair.refused[0]!.dueAt
  }

  #readDoorbells(): boolean {
    let hasWorked = false
    for (const { state: qp } of this.#state.qps.values()) {
      const { send, receive } = qp
      if (send !== undefined && pendingSends(send) > 0 && this.#takeSends(qp)) hasWorked = true
      if (receive === undefined) continue
      const posted = loadDoorbell(receive.doorbell)
      if (posted === receive.seenDoorbell) continue
      receive.seenDoorbell = posted
      this.#taps?.receivesPosted(qp.object, qp.object)
      if (qp.state === ERR) this.#flush(qp)
      // a request that finds no receive any more waits again
      for (const request of [...qp.waiters]) if (pendingReceives(qp) > 0) this.#wake(qp, request)
      hasWorked = true
    }
    for (const cq of this.#state.cqs.values()) if (cq.state.hasChannel && readCqDoorbell(cq)) hasWorked = true
    return hasWorked
  }

  /** A receive was posted to `qp`, for which a request of any device of the process waits. */
  #wake(qp: QueuePair, request: Request): void {
    qp.waiters.delete(request)
    const engine = (request.qp.object.context?.device.state as EfaState | undefined)?.engine
    engine?.retryNow(request)
  }

  /** Tries a waiting request again, without counting. */
  retryNow(request: Request): void {
    if (this.#waiting.has(request)) this.#retry(request)
  }

  #load(qp: QueuePair): Request {
    this.#request ??= emptyRequest(qp)
    readSend(this.#table, qp, qp.send!, this.#request)
    const request = this.#request
    this.#taps?.loaded(qp.object, postedSend(request, this.#state.ahs.get(request.ah)?.peer.address))
    return request
  }

  #takeSends(qp: QueuePair): boolean {
    if (qp.state === ERR) {
      this.#flush(qp)
      return true
    }
    if (qp.state !== RTS) return false
    const count = Math.min(pendingSends(qp.send!), MAX_SENDS)
    for (let i = 0; i < count && qp.state === RTS; i++) this.#begin(this.#load(qp))
    return true
  }

  #begin(loaded: Request): void {
    const status = this.#check(loaded)
    if (status !== OK) {
      this.#end(loaded, status)
      return
    }
    const { qp } = loaded
    loaded.message = qp.nextMessage++ >>> 0
    const target = this.#local(loaded)
    if (!qp.isReliable) this.#end(loaded, this.#sendDatagram(loaded, target))
    else if (target === undefined) this.#sendPackets(this.#keep(loaded))
    else {
      const result = target.deliver(this, loaded)
      if (result !== WAIT) this.#end(loaded, result)
    }
  }

  /** A copy that lives until the request ends. */
  #keep(request: Request): Request {
    const { qp, order } = request
    if (qp.active.get(order) === request) return request
    const copy = copyRequest(request)
    // the program may destroy the address handle meanwhile
    copy.peer!.uses++
    qp.active.set(order, copy)
    return copy
  }

  /** What is wrong with a send itself. */
  #check(request: Request): EfaStatus {
    const { qp, operation, ah, length, inlineLength, elements, count, remoteLength } = request
    const handle = this.#state.ahs.get(ah)
    if (handle === undefined || handle.pd !== qp.pd) return EfaStatus.INVALID_AH
    request.peer = handle.peer
    if (operation !== SEND && (operation > RDMA_WRITE || !qp.isReliable)) return EfaStatus.UNSUPPORTED_OPERATION
    if (inlineLength !== NO_INLINE && inlineLength < length) return EfaStatus.LOCAL_LENGTH
    if (operation === SEND && length > this.#mtu) return EfaStatus.LOCAL_LENGTH
    if (operation !== SEND && (length > Limits.maxRdmaBytes || length !== remoteLength)) return EfaStatus.LOCAL_LENGTH
    const access = operation === RDMA_READ ? LOCAL_WRITE : 0
    return elementsGranted(this.#table, qp.pd, elements, count, access) ? OK : EfaStatus.INVALID_LKEY
  }

  /** The engine of this process that receives what is sent to a peer; undefined: packets are needed. */
  #local({ peer }: Request): Engine | undefined {
    const receiver = this.#port.receiverOf?.(peer!.flow)
    return receiver instanceof Engine ? receiver : undefined
  }

  // ---- the end of a send ----

  /** Completes a send. While somebody watches requests, sends end in order. */
  #end(request: Request, status: number): void {
    const { qp, order } = request
    const kept = qp.active.get(order)
    if (kept !== undefined) {
      this.#forget(kept)
      qp.active.delete(order)
      this.closePeer(kept.peer!)
    }
    const { ended } = qp
    if (this.#taps === undefined && ended.size === 0) {
      this.#completeSend(request, status)
      return
    }
    ended.set(order, { request: request === this.#request ? copyRequest(request) : request, status })
    // requests are kept in their order. A program that posts beyond its queue does not get that order
    const isFull = ended.size > qp.send!.depth
    const oldest = this.#taps === undefined || isFull ? qp.loaded : (qp.active.keys().next().value ?? qp.loaded)
    const complete = [...ended].filter(([order]) => order < oldest).sort(([a], [b]) => a - b)
    for (const [order, one] of complete) {
      ended.delete(order)
      this.#completeSend(one.request, one.status)
    }
  }

  #count({ operation, length }: Request, status: number): void {
    const { counts } = this
    if (operation === RDMA_READ) {
      counts.rdma_read_wrs++
      if (status === OK) counts.rdma_read_bytes += length
      else counts.rdma_read_wr_err++
    } else if (operation === RDMA_WRITE) {
      counts.rdma_write_wrs++
      if (status === OK) counts.rdma_write_bytes += length
      else counts.rdma_write_wr_err++
    } else {
      counts.send_wrs++
      if (status === OK) counts.send_bytes += length
    }
  }

  #completeSend(request: Request, executed: number): void {
    const { qp, operation, length, id, id1, id2, id3 } = request
    const { decideCompletion } = this.#device().taps
    const opcode = operation === RDMA_WRITE ? WC_WRITE : WC_SEND
    const fault = executed === OK ? decideCompletion?.(qp.object, opcode, idOf(request)) : undefined
    const status = fault === undefined ? executed : efaStatusOf(fault.status)
    this.#count(request, status)
    const cq = qp.sendCq
    this.#taps?.retired(qp.object, 1, status === EfaStatus.FLUSHED)
    const at = beginEntry(cq)
    if (at >= 0) {
      const { view } = cq.state.ring
      view.setUint16(at + CompletionEntry.QPN, qp.qpn, true)
      if (qp.send!.hasLongIds) {
        view.setUint16(at + CompletionEntry.REQUEST_ID_EXTENDED, id1, true)
        view.setUint16(at + CompletionEntry.REQUEST_ID_EXTENDED + 2, id2, true)
        view.setUint16(at + CompletionEntry.REQUEST_ID_EXTENDED + 4, id3, true)
      }
      const { OPERATION_SHIFT, SEND_QUEUE } = CompletionFlag
      endEntry(cq, at, id, status, SEND_QUEUE | ((operation & 7) << OPERATION_SHIFT))
    }
    this.#tapCompleted(qp, cq, at, status, opcode, length, 0)
  }

  #tapCompleted(
    qp: QueuePair,
    cq: CqObject,
    at: number,
    status: number,
    opcode: number,
    bytes: number,
    sourceQpn: number,
  ): void {
    const position = at < 0 ? 0 : cq.state.produced
    this.#taps?.completed(qp.object, cq, {
      status: wcStatusOf(status),
      opcode,
      bytes,
      sourceQpn,
      solicited: false,
      position,
    })
  }

  // ---- arrival within the process ----

  /** A queue pair that can receive with this service and Q_Key. */
  #find(qpn: number, isReliable: boolean, qkey: number): QueuePair | undefined {
    const qp = this.#state.qps.get(qpn)?.state
    return qp !== undefined && receives(qp.state) && qp.isReliable === isReliable && qp.qkey === qkey ? qp : undefined
  }

  /** Executes a request of `sender` at its destination in this device, or a part of it. */
  deliver(sender: Engine, request: Request): number {
    const qp = this.#find(request.destQpn, true, request.qkey)
    if (qp === undefined) return EfaStatus.BAD_DESTINATION
    if (request.operation !== SEND) return this.#deliverRdma(sender, request, qp)
    if (pendingReceives(qp) === 0) return sender.wait(request, qp)
    const status = sender.gatherInto(request, 0, request.length)
    if (status !== OK) return status
    this.#countPacket(sender, request.length)
    return this.#takeMessage(
      qp,
      sender.#scratch,
      0,
      request.length,
      SEND,
      request.hasImm ? request.imm : undefined,
      sender.#sourceOf(request.qp),
    )
  }

  gatherInto(request: Request, offset: number, length: number): EfaStatus {
    return gather(this.#table, request, offset, this.#scratch, 0, length, length, length)
  }

  #sourceOf({ qpn }: QueuePair): Source {
    return { qpn, address: this.#state.gid, text: this.#text }
  }

  #countPacket(sender: Engine, bytes: number): void {
    sender.counts.tx_pkts++
    sender.counts.tx_bytes += bytes
    this.counts.rx_pkts++
    this.counts.rx_bytes += bytes
  }

  /** No receive is posted. */
  wait(request: Request, destination: QueuePair): number {
    const kept = this.#keep(request)
    destination.object.context?.device.taps.requests?.notReady(destination.object)
    if (kept.rnrTries++ >= kept.qp.rnrRetry && kept.qp.rnrRetry < ENDLESS) return EfaStatus.NOT_READY
    kept.dueAt = this.#now + NOT_READY_DELAY
    this.#endTransfer(kept)
    this.#waiting.add(kept)
    kept.destination?.waiters.delete(kept)
    kept.destination = destination
    destination.waiters.add(kept)
    return WAIT
  }

  #retry(request: Request): void {
    this.#waiting.delete(request)
    const target = this.#local(request)
    if (target === undefined) {
      this.#endTransfer(request)
      request.sent = 0
      request.done = 0
      this.#sendPackets(request)
      return
    }
    const result = target.deliver(this, request)
    if (result !== WAIT) this.#end(request, result)
  }

  #deliverRdma(sender: Engine, request: Request, qp: QueuePair): number {
    const { operation, remoteHi, remoteLo, rkey, length, hasImm, elements, count } = request
    const isRead = operation === RDMA_READ
    const access = isRead ? REMOTE_READ : REMOTE_WRITE
    if (request.done === 0) {
      const refusal = this.#refuseRdma(qp, sender.#text, rkey, access, remoteHi, remoteLo, length)
      if (refusal !== OK) return refusal
      if (hasImm && !isRead && !qp.takesUnsolicitedWrites && pendingReceives(qp) === 0) return sender.wait(request, qp)
    }
    const scratch = sender.#scratch
    for (let budget = MAX_TRANSFER; request.done < length; ) {
      if (budget <= 0) return sender.continueLater(request)
      const { done } = request
      const part = Math.min(length - done, SCRATCH_BYTES)
      if (isRead) {
        if (!copyRange(this.#table, qp.pd, rkey, access, remoteHi, remoteLo, done, true, scratch, 0, part, part, part))
          return EfaStatus.BAD_ADDRESS
        if (!copyElements(sender.#table, request.qp.pd, elements, count, done, false, scratch, 0, part))
          return EfaStatus.INVALID_LKEY
      } else {
        const status = sender.gatherInto(request, done, part)
        if (status !== OK) return status
        if (!copyRange(this.#table, qp.pd, rkey, access, remoteHi, remoteLo, done, false, scratch, 0, part, part, part))
          return EfaStatus.BAD_ADDRESS
      }
      request.done += part
      budget -= part
      if (isRead) sender.#countPacket(this, part)
      else this.#countPacket(sender, part)
    }
    if (isRead) this.counts.rdma_read_resp_bytes += length
    else this.counts.rdma_write_recv_bytes += length
    if (!isRead && hasImm) {
      const status = this.#takeImmediate(qp, length, request.imm, sender.#sourceOf(request.qp))
      return status === WAIT ? sender.wait(request, qp) : status
    }
    return OK
  }

  continueLater(request: Request): number {
    const kept = this.#keep(request)
    if (!this.#transfers.includes(kept)) this.#transfers.push(kept)
    return WAIT
  }

  /** RDMA needs a key, and an address handle of the initiator. */
  #refuseRdma(
    qp: QueuePair,
    sourceText: string,
    rkey: number,
    access: number,
    hi: number,
    lo: number,
    length: number,
  ): EfaStatus {
    if (this.#ahOf(qp.pd, sourceText) === UNKNOWN_AH) return EfaStatus.UNKNOWN_PEER
    return isGranted(this.#table, qp.pd, rkey, access, hi, lo, length) ? OK : EfaStatus.BAD_ADDRESS
  }

  #ahOf(pd: number, text: string): number {
    return this.#peers.get(text)?.ahs.get(pd) ?? UNKNOWN_AH
  }

  /** Writes a message of `length` bytes at `at` to the oldest receive. Returns the sender's status; WAIT: there is none. */
  #takeMessage(
    qp: QueuePair,
    bytes: Bytes,
    at: number,
    length: number,
    operation: number,
    imm: number | undefined,
    source: Source,
  ): number {
    const receive = this.#receive
    if (qp.receive === undefined || !takeReceive(this.#table, qp.receive, receive)) {
      this.#taps?.notReady(qp.object)
      return WAIT
    }
    this.#taps?.taken(qp.object, qp.object, postedReceive(receive))
    let status: number = OK
    if (receive.length < length) status = EfaStatus.LOCAL_LENGTH
    else if (!copyElements(this.#table, qp.pd, receive.elements, receive.count, 0, false, bytes, at, length))
      status = EfaStatus.INVALID_LKEY
    this.#completeReceive(qp, status, length, operation, imm, source)
    if (status === OK) return OK
    return status === EfaStatus.LOCAL_LENGTH ? EfaStatus.REMOTE_LENGTH : EfaStatus.BAD_STATUS
  }

  /** The immediate data of a WRITE takes a receive without writing to it. */
  #takeImmediate(qp: QueuePair, length: number, imm: number, source: Source): number {
    if (qp.takesUnsolicitedWrites) {
      this.#completeReceive(qp, OK, length, RDMA_WRITE, imm, source, true)
      return OK
    }
    if (qp.receive === undefined || !takeReceive(this.#table, qp.receive, this.#receive)) return WAIT
    this.#taps?.taken(qp.object, qp.object, postedReceive(this.#receive))
    this.#completeReceive(qp, OK, length, RDMA_WRITE, imm, source)
    return OK
  }

  #completeReceive(
    qp: QueuePair,
    taken: number,
    length: number,
    operation: number,
    imm: number | undefined,
    source: Source | undefined,
    isUnsolicited = false,
  ): void {
    const { counts } = this
    const cq = qp.receiveCq
    const id = isUnsolicited ? 0 : this.#receive.id
    const opcode = operation === RDMA_WRITE ? WC_WRITE_IMM : WC_RECV
    const { decideCompletion } = this.#device().taps
    const fault = taken === OK ? decideCompletion?.(qp.object, opcode, BigInt(id)) : undefined
    const status = fault === undefined ? taken : efaStatusOf(fault.status)
    counts.recv_wrs++
    if (status === OK && operation === SEND) counts.recv_bytes += length
    const at = beginEntry(cq)
    if (at >= 0) {
      const { view, bytes } = cq.state.ring
      view.setUint16(at + CompletionEntry.QPN, qp.qpn, true)
      view.setUint16(at + CompletionEntry.LENGTH, length & 0xffff, true)
      const ah = source === undefined ? UNKNOWN_AH : this.#ahOf(qp.pd, source.text)
      view.setUint16(at + CompletionEntry.AH, ah, true)
      view.setUint16(at + CompletionEntry.SOURCE_QPN, source?.qpn ?? 0, true)
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
    if (!isUnsolicited) this.#tapCompleted(qp, cq, at, status, opcode, length, source?.qpn ?? 0)
  }

  // ---- datagrams ----

  /** Sends a datagram, which may be lost. Returns the status of the send. */
  #sendDatagram(request: Request, target: Engine | undefined): EfaStatus {
    const { length, hasImm, imm, qp, destQpn, qkey, peer } = request
    if (target !== undefined) {
      const status = gather(this.#table, request, 0, this.#scratch, GRH_BYTES, length, length, length)
      if (status !== OK) return status
      target.#countPacket(this, length)
      putGrh(this.#scratch.view, 0, length, this.#state.gid, peer!.address)
      target.takeDatagram(this.#scratch, length, destQpn, qkey, hasImm ? imm : undefined, this.#sourceOf(qp))
      return OK
    }
    const opcode = hasImm ? UD_SEND_IMM : UD_SEND
    const bytes = packetBytes(opcode, length)
    const at = this.#port.reserve(bytes)
    // no room: lost, as in a full queue of an adapter
    if (at < 0) return OK
    const { arena } = this.#port
    const status = gather(this.#table, request, 0, arena, at + payloadAt(opcode), length, length, length)
    if (status !== OK) return status
    const { view } = arena
    putBth(view, at, opcode, (-length & 3) << BTH_PAD_SHIFT, DEFAULT_PKEY, destQpn, qp.sqPsn)
    qp.sqPsn = (qp.sqPsn + 1) & 0xff_ffff
    view.setUint32(at + headerAt.DETH[opcode]!, qkey)
    view.setUint32(at + headerAt.DETH[opcode]! + 4, qp.qpn)
    if (hasImm) view.setUint32(at + headerAt.ImmDt[opcode]!, imm)
    this.#commit(at, bytes, peer!)
    return OK
  }

  #commit(at: number, bytes: number, { flow }: Peer): void {
    this.#port.commit(at, bytes, 1, bytes, flow)
    this.counts.tx_pkts++
    this.counts.tx_bytes += bytes
  }

  /** A datagram whose GRH begins `bytes`. */
  takeDatagram(bytes: Bytes, length: number, qpn: number, qkey: number, imm: number | undefined, source: Source): void {
    const qp = this.#find(qpn, false, qkey)
    if (qp === undefined || this.#takeMessage(qp, bytes, 0, GRH_BYTES + length, SEND, imm, source) === WAIT)
      this.counts.rx_drops++
  }

  // ---- SRD: sending ----

  #pairOf(qp: QueuePair, peer: Peer, qpn: number): Pair {
    const key = pairKey(peer, qpn)
    let pair = qp.pairs.get(key)
    if (pair === undefined) {
      peer.uses++
      pair = createPair(qp, peer, qpn, randomEpoch(this.#device().core))
      qp.pairs.set(key, pair)
    }
    pair.usedAt = this.#now
    this.#pairs.add(pair)
    return pair
  }

  /** Queues a request for `#transmit`. */
  #sendPackets(request: Request): void {
    const { qp, peer, destQpn, operation } = request
    this.#pairOf(qp, peer!, destQpn).queue.push(request)
    if (operation !== RDMA_READ) return
    request.heardAt = this.#now
    qp.reads.set(request.message, request)
    this.#reading.add(request)
  }

  /** Sends what the window permits; true if anything was sent. */
  #transmit(pair: Pair): boolean {
    const { queue, refused } = pair
    if (queue.length === 0 && refused.length === 0) {
      if (pair.inFlight === 0) {
        this.#pairs.delete(pair)
        closeWindow(pair)
      }
      return false
    }
    const window = this.#port.windowBytes ?? MAX_TRANSFER
    let hasSent = this.#transmitRefused(pair)
    while (queue.length > 0 && room(pair) > 0 && pair.inFlightBytes < window) {
      const request = queue[0]!
      const length = request.operation === RDMA_READ ? 0 : Math.min(request.length - request.sent, this.#mtu)
      const status = this.#sendPacket(pair, request, request.sent, length, undefined)
      if (status === WAIT) break
      hasSent = true
      if (status !== OK) {
        endPacketsOf(pair, request)
        this.#finish(request, status)
        continue
      }
      request.sent += length
      if (request.operation === RDMA_READ || request.sent === request.length) queue.shift()
    }
    return hasSent
  }

  /** Sends due packets that were refused, as new ones. Half of the window is left to other requests. */
  #transmitRefused(pair: Pair): boolean {
    const { refused } = pair
    let hasSent = false
    for (;;) {
      const [first] = refused
      if (first === undefined || this.#now < first.dueAt || room(pair) <= WINDOW / 2) return hasSent
      const { request, offset, length } = first
      const status = this.#sendPacket(pair, request, offset, length, undefined)
      if (status === WAIT) return hasSent
      hasSent = true
      refused.shift()
      if (status === OK) continue
      endPacketsOf(pair, request)
      this.#finish(request, status)
    }
  }

  /** Sends one packet; `psn`: again. WAIT: the port is full. */
  #sendPacket(pair: Pair, request: Request, offset: number, length: number, psn: number | undefined): number {
    const opcode = opcodeOf(request)
    const bytes = packetBytes(opcode, length)
    const at = this.#port.reserve(bytes)
    if (at < 0) return WAIT
    const { arena } = this.#port
    const status =
      request.operation === READ_DATA
        ? this.#gatherResponse(request, offset, at + payloadAt(opcode), length)
        : gather(this.#table, request, offset, arena, at + payloadAt(opcode), length, length, length)
    if (status !== OK) return status
    const number = psn ?? notePacket(pair, request, offset, length, this.#now)
    putHeaders(arena.view, at, opcode, request, pair.epoch, number, offset, length)
    this.#commit(at, bytes, pair.peer)
    return OK
  }

  #gatherResponse({ qp, rkey, remoteHi, remoteLo }: Request, offset: number, at: number, length: number): EfaStatus {
    const { arena } = this.#port
    return copyRange(
      this.#table,
      qp.pd,
      rkey,
      REMOTE_READ,
      remoteHi,
      remoteLo,
      offset,
      true,
      arena,
      at,
      length,
      length,
      length,
    )
      ? OK
      : EfaStatus.BAD_ADDRESS
  }

  /** Ends a request of packets. The data of a READ is no request of a program: its requester is told. */
  #finish(request: Request, status: number): void {
    if (request.operation !== READ_DATA) this.#end(request, status)
    else if (status === EfaStatus.BAD_ADDRESS)
      this.#refuse(request.peer!, request.destQpn, request.qp.qpn, 0, 0, status, request.message)
  }

  #onTimeout(now: number): boolean {
    let hasWorked = false
    for (const request of this.#waiting)
      if (now >= request.dueAt) {
        hasWorked = true
        this.#retry(request)
      }
    for (const request of this.#reading)
      if (now >= readTimeoutOf(request)) {
        hasWorked = true
        this.counts.unresponsive_remote_events++
        this.#end(request, EfaStatus.UNRESPONSIVE)
      }
    for (const pair of this.#pairs) if (pair.inFlight > 0 && this.#resend(pair, now)) hasWorked = true
    return hasWorked
  }

  /** Sends overdue packets again, and gives up a destination that does not answer. */
  #resend(pair: Pair, now: number): boolean {
    let hasSent = false
    let isGone = false
    visitPackets(pair, (psn, slot) => {
      if (isGone || now < pair.sentAt[slot]! + timeoutOf(pair.tries[slot]!)) return
      hasSent = true
      if (pair.tries[slot]! >= MAX_TRIES) isGone = true
      else this.#sendAgain(pair, psn, slot)
    })
    if (!isGone) return hasSent
    this.counts.unresponsive_remote_events++
    const requests = new Set([...pair.queue, ...pair.refused.map(({ request }) => request)])
    visitPackets(pair, (_psn, slot) => requests.add(pair.requests[slot]!))
    for (const request of [...requests].sort((a, b) => a.order - b.order)) {
      endPacketsOf(pair, request)
      this.#finish(request, pair.isHeard ? EfaStatus.UNRESPONSIVE : EfaStatus.UNREACHABLE)
    }
    return true
  }

  #sendAgain(pair: Pair, psn: number, slot: number): void {
    const request = pair.requests[slot]!
    const length = pair.lengths[slot]!
    const status = this.#sendPacket(pair, request, pair.offsets[slot]!, length, psn)
    if (status === WAIT) {
      pair.sentAt[slot] = this.#now - timeoutOf(pair.tries[slot]!) + PORT_FULL_DELAY
      return
    }
    pair.sentAt[slot] = this.#now
    pair.tries[slot]!++
    this.counts.retrans_pkts++
    this.counts.retrans_bytes += length
    this.counts.retrans_timeout_events++
    if (status === OK) return
    endPacketsOf(pair, request)
    this.#finish(request, status)
  }

  // ---- packets that arrive ----

  #receivePackets(): boolean {
    const port = this.#port
    const run = this.#run
    if (!port.receive(run)) return false
    do {
      const peer = this.#sourcePeer()
      if (peer === undefined) this.counts.rx_drops += run.count
      else
        for (let i = 0; i < run.count; i++)
          this.#onPacket(peer, run.offset + i * run.packetBytes, i === run.count - 1 ? run.lastBytes : run.packetBytes)
    } while (port.receive(run))
    port.release()
    return true
  }

  /** The peer of the run; undefined if there are too many. Strangers keep their flow until the device is removed. */
  #sourcePeer(): Peer | undefined {
    const { peer: number, flowAddress } = this.#run
    const known = number < 0 ? undefined : this.#peerOfSource[number]
    if (known !== undefined && isSameAddress(known.address, flowAddress.source)) return known
    let peer = this.#peers.get(addressText(flowAddress.source))
    if (peer === undefined) {
      if (this.#strangers === MAX_STRANGERS) return undefined
      try {
        peer = this.openPeer(flowAddress.source)
      } catch {
        return undefined
      }
      this.#strangers++
    }
    const source = this.#port.peerOf(peer.address)
    if (source >= 0) {
      this.#peerOfSource[source] = peer
      peer.source = source
    }
    return peer
  }

  #onPacket(peer: Peer, at: number, length: number): void {
    const { view } = this.#port.arena
    if (checkPacket(view, at, length) !== 0) {
      this.counts.rx_drops++
      return
    }
    this.counts.rx_pkts++
    this.counts.rx_bytes += length
    const opcode = bthOpcode(view, at)
    const payload = length - payloadAt(opcode) - ICRC_BYTES - bthPadCount(view, at)
    if (opcode === UD_SEND || opcode === UD_SEND_IMM) this.#onDatagram(peer, at, opcode, payload)
    else if (opcode === Opcode.ACK) this.#onAck(peer, at)
    else if (opcode === Opcode.REFUSE) this.#onRefusal(peer, at)
    else if (opcode >= Opcode.SEND && opcode <= Opcode.READ_DATA) this.#onMessage(peer, at, opcode, payload)
    else this.counts.rx_drops++
  }

  #onDatagram(peer: Peer, at: number, opcode: number, length: number): void {
    const { arena } = this.#port
    const { view, bytes } = arena
    const deth = at + headerAt.DETH[opcode]!
    const imm = opcode === UD_SEND_IMM ? view.getUint32(at + headerAt.ImmDt[opcode]!) : undefined
    if (length > this.#mtu) return
    putGrh(this.#scratch.view, 0, length, peer.address, this.#state.gid)
    const payload = at + payloadAt(opcode)
    this.#scratch.bytes.set(bytes.subarray(payload, payload + length), GRH_BYTES)
    const source = { qpn: view.getUint32(deth + 4) & 0xff_ffff, address: peer.address, text: addressText(peer.address) }
    this.takeDatagram(this.#scratch, length, bthDestQp(view, at), view.getUint32(deth), imm, source)
  }

  #refuse(
    peer: Peer,
    qpn: number,
    sourceQpn: number,
    epoch: number,
    psn: number,
    status: number,
    message: number,
  ): void {
    const at = this.#port.reserve(REFUSE_BYTES)
    if (at < 0) return
    putRefusal(this.#port.arena.view, at, qpn, sourceQpn, epoch, psn, status, message)
    this.#commit(at, REFUSE_BYTES, peer)
  }

  #onMessage(peer: Peer, at: number, opcode: number, payload: number): void {
    const { view } = this.#port.arena
    const [psn, sourceQpn, epoch] = [bthPsn(view, at), srdSource(view, at), srdEpoch(view, at)]
    const qpn = bthDestQp(view, at)
    const isData = opcode === Opcode.READ_DATA
    const qp = isData ? this.#state.qps.get(qpn)?.state : this.#find(qpn, true, srdQkey(view, at))
    if (qp === undefined || !qp.isReliable || !receives(qp.state)) {
      this.#refuse(peer, sourceQpn, qpn, epoch, psn, EfaStatus.BAD_DESTINATION, srdMessage(view, at))
      return
    }
    // data that nobody has asked for, which needs no Q_Key, makes no state
    if (isData && !qp.sources.has(pairKey(peer, sourceQpn)) && !qp.reads.has(srdMessage(view, at))) {
      this.#refuse(peer, sourceQpn, qpn, epoch, psn, EfaStatus.BAD_DESTINATION, srdMessage(view, at))
      return
    }
    const source = this.#receivedFrom(qp, peer, sourceQpn, epoch, psn)
    if (source === undefined) {
      this.counts.rx_drops++
      return
    }
    const status = this.#takeOnce(source, psn, at, opcode, payload)
    if (status === WAIT) return
    if (status !== OK) {
      this.#refuse(peer, sourceQpn, qpn, epoch, psn, status, srdMessage(view, at))
      return
    }
    if (acknowledgeLater(source, psn)) this.#toAcknowledge.push(source)
  }

  /** As `#takePacket`, for a packet that may have come before. */
  #takeOnce(source: ReceivedFrom, psn: number, at: number, opcode: number, payload: number): number {
    if (isTaken(source, psn)) return isRefused(source, psn) ? EfaStatus.NOT_READY : OK
    const status = this.#takePacket(source, at, opcode, payload)
    if (status === OK || status === EfaStatus.NOT_READY) noteTaken(source, psn, status !== OK)
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
    source.usedAt = this.#now
    return source
  }

  /** Executes a packet. WAIT: it must come again later; OK: it is taken; otherwise why its message fails. */
  #takePacket(source: ReceivedFrom, at: number, opcode: number, payload: number): number {
    const { qp, peer } = source
    const { arena } = this.#port
    const { view } = arena
    const [message, offset, length] = [srdMessage(view, at), srdOffset(view, at), srdLength(view, at)]
    const data = at + payloadAt(opcode)
    const from = { qpn: source.qpn, address: peer.address, text: addressText(peer.address) }
    const imm = headerAt.ImmDt[opcode]! > 0 ? view.getUint32(at + headerAt.ImmDt[opcode]!) : undefined
    if (opcode === Opcode.SEND || opcode === Opcode.SEND_IMM) {
      const status = this.#takeMessage(qp, arena, data, payload, SEND, imm, from)
      return status === WAIT ? EfaStatus.NOT_READY : status
    }
    if (opcode === Opcode.READ_DATA) return this.#takeReadData(source, message, offset, data, payload)
    const reth = at + headerAt.RETH[opcode]!
    const [hi, lo, rkey] = [rethVaHi(view, reth), rethVaLo(view, reth), rethRkey(view, reth)]
    const isRead = opcode === Opcode.READ
    const access = isRead ? REMOTE_READ : REMOTE_WRITE
    const refusal = this.#refuseRdma(qp, from.text, rkey, access, hi, lo, length)
    if (refusal !== OK) return refusal
    if (isRead) return this.#respond(source, message, hi, lo, rkey, length)
    if (offset + payload > length) return EfaStatus.BAD_STATUS
    const received = (source.writes.get(message) ?? 0) + payload
    const isLast = received >= length
    if (imm !== undefined && !isLast && !source.writes.has(message) && source.writes.size >= MAX_WRITES) return WAIT
    if (!copyRange(this.#table, qp.pd, rkey, access, hi, lo, offset, false, arena, data, payload, payload, payload))
      return EfaStatus.BAD_ADDRESS
    if (imm !== undefined && isLast && this.#takeImmediate(qp, length, imm, from) === WAIT) return EfaStatus.NOT_READY
    this.counts.rdma_write_recv_bytes += payload
    if (imm === undefined) return OK
    if (isLast) source.writes.delete(message)
    else source.writes.set(message, received)
    return OK
  }

  /** Begins to send the data of a READ. */
  #respond(source: ReceivedFrom, message: number, hi: number, lo: number, rkey: number, length: number): number {
    const { qp, peer, qpn } = source
    const pair = this.#pairOf(qp, peer, qpn)
    if (pair.queue.length >= MAX_RESPONSES) return EfaStatus.NOT_READY
    this.counts.rdma_read_resp_bytes += length
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
    const { arena } = this.#port
    if (!copyElements(this.#table, qp.pd, request.elements, request.count, offset, false, arena, at, length)) {
      this.#end(request, EfaStatus.INVALID_LKEY)
      return OK
    }
    const pair = qp.pairs.get(pairKey(peer, qpn))
    if (pair !== undefined) pair.dataAt = this.#now
    request.done += length
    if (request.done >= request.length) this.#end(request, OK)
    return OK
  }

  #acknowledge(): void {
    for (let source = this.#toAcknowledge.pop(); source !== undefined; source = this.#toAcknowledge.pop()) {
      const { qp, peer, qpn, epoch, firstToAcknowledge: first, lastToAcknowledge } = source
      source.firstToAcknowledge = undefined
      if (first === undefined || qp.sources.get(pairKey(peer, qpn)) !== source) continue
      for (let psn = lastToAcknowledge; ; psn = (psn - ACKNOWLEDGED) & 0xff_ffff) {
        const at = this.#port.reserve(ACK_BYTES)
        // the sender sends the packets again, and is then answered
        if (at < 0) break
        this.#bits.fill(0)
        for (let i = 0; i < ACKNOWLEDGED; i++)
          if (isExecuted(source, (psn - i) & 0xff_ffff)) this.#bits[i >> 5]! |= 1 << (i & 31)
        putAck(this.#port.arena.view, at, qpn, qp.qpn, epoch, psn, this.#bits)
        this.#commit(at, ACK_BYTES, peer)
        if (psnDifference(psn, first) < ACKNOWLEDGED) break
      }
    }
  }

  #pairFrom(peer: Peer, at: number): Pair | undefined {
    const { view } = this.#port.arena
    const pair = this.#state.qps.get(bthDestQp(view, at))?.state.pairs.get(pairKey(peer, ackSource(view, at)))
    if (pair === undefined || ackEpoch(view, at) !== pair.epoch) return undefined
    pair.isHeard = true
    return pair
  }

  #onAck(peer: Peer, at: number): void {
    const pair = this.#pairFrom(peer, at)
    if (pair === undefined) return
    const { view } = this.#port.arena
    const psn = bthPsn(view, at)
    for (let word = 0; word < ACKNOWLEDGED / 32; word++)
      for (let bits = ackWord(view, at, word), i = 0; bits !== 0; bits >>>= 1, i++)
        if ((bits & 1) !== 0) this.#acknowledged(pair, (psn - word * 32 - i) & 0xff_ffff)
    // packets that are much older than acknowledged ones are lost
    visitPackets(pair, (old, slot) => {
      if (pair.tries[slot] === 1 && psnDifference(psn, old) > REORDERED) this.#sendAgain(pair, old, slot)
    })
  }

  #acknowledged(pair: Pair, psn: number): void {
    const request = requestOf(pair, psn)
    if (request === undefined) return
    const length = pair.lengths[slotOf(psn)]!
    endPacket(pair, psn)
    if (request.operation === RDMA_READ) return
    request.done += length
    if (request.done >= request.length && request.sent >= request.length && request.operation !== READ_DATA)
      this.#end(request, OK)
  }

  #onRefusal(peer: Peer, at: number): void {
    const { view } = this.#port.arena
    const said = refusalStatus(view, at)
    const status = said === OK || said > EfaStatus.UNREACHABLE ? EfaStatus.BAD_STATUS : said
    const message = view.getUint32(at + 20)
    const qp = this.#state.qps.get(bthDestQp(view, at))?.state
    // of a READ whose data cannot be read any more: the responder does not know the epoch
    const read = qp?.reads.get(message)
    if (read !== undefined && ackEpoch(view, at) === 0 && read.peer === peer && read.destQpn === ackSource(view, at)) {
      this.#end(read, status)
      return
    }
    const pair = this.#pairFrom(peer, at)
    const psn = bthPsn(view, at)
    const request = pair && requestOf(pair, psn)
    if (pair === undefined || request === undefined || request.message !== message) return
    if (status !== EfaStatus.NOT_READY || request.operation === READ_DATA) {
      endPacketsOf(pair, request)
      this.#finish(request, status)
      return
    }
    const { qp: sender } = request
    // a READ waits for the responder's other READs, not for a receive
    if (request.operation === RDMA_READ) request.heardAt = this.#now
    else if (request.rnrTries++ >= sender.rnrRetry && sender.rnrRetry < ENDLESS) {
      endPacketsOf(pair, request)
      this.#end(request, EfaStatus.NOT_READY)
      return
    }
    // it does not keep its place in the window, which other requests need
    const slot = slotOf(psn)
    const [offset, length] = [pair.offsets[slot]!, pair.lengths[slot]!]
    endPacket(pair, psn)
    pair.refused.push({ request, offset, length, dueAt: this.#now + NOT_READY_DELAY })
  }
}

const isExecuted = (source: ReceivedFrom, psn: number): boolean => isTaken(source, psn) && !isRefused(source, psn)

const pendingReceives = ({ receive }: QueuePair): number => (receive === undefined ? 0 : pendingElements(receive))

const timeoutOf = (tries: number): number => Math.min(FIRST_TIMEOUT * 2 ** (tries - 1), MAX_TIMEOUT)

/** A responder answers one READ after the other: data of one is a sign of life for all. */
const readTimeoutOf = ({ qp, peer, destQpn, heardAt }: Request): number =>
  Math.max(heardAt, qp.pairs.get(pairKey(peer!, destQpn))?.dataAt ?? 0) + READ_TIMEOUT

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
