/*
 * The engine of an EFA device: takes sends from rings, executes them, and completes them (docs/decisions/efa.md,
 * docs/decisions/srd.md). Queue pairs of the same process get messages directly, from memory to memory; others by
 * packets of SRD, which need no order, or of UD. Does no I/O of its own; times are microseconds.
 */

import { type InjectedCompletion, ScanScope } from '../../core/driver-contract.ts'
import type { Bytes } from '../../core/memory/address-space.ts'
import type { Device } from '../../core/model.ts'
import { causeOfRule } from '../../spec/check/causes.ts'
import { CompletionEntry, CompletionFlag, EfaOperation, EfaStatus } from '../../spec/drivers/efa-queues.ts'
import { AccessFlags, QpState } from '../../spec/enums.ts'
import { ICRC_BYTES } from '../../spec/wire/headers.ts'
import { timerFactor } from '../../spec/work.ts'
import type { Memory } from '../../transport/engine/types.ts'
import { emptyRun, type Port } from '../../transport/phy/port.ts'
import { addressText, isSameAddress } from '../../transport/wire/address.ts'
import { bthOpcode, bthPadCount } from '../../transport/wire/bth.ts'
import { checkPacket } from '../../transport/wire/packet.ts'
import { regionMemory } from '../soft/memory.ts'
import type { Torment } from '../soft/torment/torment.ts'
import { Limits } from './attributes.ts'
import { beginEntry, efaStatusOf, endEntry, readCqDoorbell, WC_SEND, WC_WRITE, wcStatusOf } from './completions.ts'
import { Delivery } from './delivery.ts'
import { loadDoorbell } from './doorbells.ts'
import { ENDLESS, HOP_LIMIT, NOT_READY_DELAY, pendingReceives, UD_SEND, UD_SEND_IMM, WAIT } from './engine-common.ts'
import { forgetQueuePair, reportFlush, reportSend } from './failures.ts'
import { elementsGranted } from './memory.ts'
import {
  copyRequest,
  emptyReceive,
  emptyRequest,
  idOf,
  NO_INLINE,
  pendingSends,
  postedReceive,
  postedSend,
  readSend,
  takeReceive,
} from './requests.ts'
import { QueueScan } from './scan.ts'
import { Opcode, payloadAt } from './srd/packets.ts'
import { endPacketsOf } from './srd/pairs.ts'
import { Receiving } from './srd/receiving.ts'
import { Sending } from './srd/sending.ts'
import {
  type CqObject,
  type EfaState,
  type Element,
  type EngineCalls,
  type Pair,
  type Peer,
  pairKey,
  type QpObject,
  type QueuePair,
  type Request,
} from './state.ts'
import { EfaTorment } from './torment.ts'

const { SEND, RDMA_READ, RDMA_WRITE } = EfaOperation
const { LOCAL_WRITE } = AccessFlags.values
const { RTS, ERR } = QpState.values
const { OK } = EfaStatus

/** Sends of one queue pair that one poll executes. */
const MAX_SENDS = 256
/** Microseconds without data after which a READ fails. */
const READ_TIMEOUT = 3_000_000
/** Sources of packets that have no address handle here; with one more, the oldest without requests is forgotten. */
const MAX_STRANGERS = 4096
/** Microseconds after which an idle pair is forgotten: no packet is in flight so long. */
const IDLE_TIME = 60_000_000
/** The UDP source port of all packets. */
const SOURCE_PORT = 4791

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

/** A responder answers one READ after the other: data of one is a sign of life for all. */
const readTimeoutOf = ({ qp, peer, destQpn, heardAt }: Request): number =>
  Math.max(heardAt, qp.pairs.get(pairKey(peer!, destQpn))?.dataAt ?? 0) + READ_TIMEOUT * timerFactor

const isQp = (queue: QpObject | CqObject): queue is QpObject => 'qpn' in queue.state

export class Engine implements EngineCalls {
  readonly counts = createCounts()
  readonly state: EfaState
  readonly device: () => Device<EfaState>
  readonly port: Port
  readonly scratch: Bytes
  /** Bytes of a packet's payload. */
  readonly mtu: number
  /** The send that is being executed. */
  #request: Request | undefined
  #memory: Memory | undefined
  /** With `--torment`. */
  torment: EfaTorment | undefined
  readonly range: Element = { hi: 0, lo: 0, length: 0, key: 0, written: 0 }
  readonly receive = emptyReceive()
  readonly #run = emptyRun()
  /** By text of the address. */
  readonly peers = new Map<string, Peer>()
  /** Numbers of closed peers. */
  readonly #freePeers: number[] = []
  /** By the port's number of the source address. */
  readonly #peerOfSource: (Peer | undefined)[] = []
  /** Sources of packets that nobody has a handle of, and when a packet came last. Oldest first. */
  readonly #strangers = new Map<Peer, number>()
  /** Long READs and WRITEs within the process. */
  readonly #transfers: Request[] = []
  /** Requests to try again at `dueAt`. */
  readonly #waiting = new Set<Request>()
  /** READs that wait for data. */
  readonly reading = new Set<Request>()
  /** Pairs with packets to send, or unacknowledged. */
  readonly pairs = new Set<Pair>()
  now = 0
  #forgetAt = 0
  readonly #scan = new QueueScan<QpObject | CqObject>(queue =>
    isQp(queue) ? this.#readDoorbells(queue.state) : readCqDoorbell(queue),
  )
  readonly delivery = new Delivery(this)
  readonly sending = new Sending(this)
  readonly receiving = new Receiving(this)

  constructor(state: Omit<EfaState, 'engine' | 'scan'>, device: () => Device<EfaState>, scratch: Bytes, mtu: number) {
    this.state = Object.assign(state, { scan: this.#scan, engine: this })
    this.device = device
    this.port = state.port
    this.scratch = scratch
    this.mtu = mtu
    this.port.receiver = this
  }

  /** Created with the first access: the device is registered after its engine. */
  get memory(): Memory {
    this.#memory ??= regionMemory(this.device().memory)
    return this.#memory
  }

  /** After the device is registered, before its first poll. `now`: the clock of `poll`. */
  attachTorment(torment: Torment, now: () => number): void {
    this.torment = new EfaTorment(torment, this.device(), this.memory, now, {
      startSends: qpn => this.#startSends(qpn),
      acknowledge: () => {
        this.receiving.acknowledge()
        this.port.flush()
      },
    })
    this.#memory = this.torment.memory
  }

  endTorment(): void {
    this.torment?.close()
  }

  get lateEvent() {
    const { torment } = this
    return torment && ((cq: CqObject): void => torment.notify(cq))
  }

  get taps() {
    return this.device().taps.requests
  }

  /** Opens a flow to an address. Throws as `Port.openFlow`. */
  openPeer(address: Uint8Array): Peer {
    const text = addressText(address)
    let peer = this.peers.get(text)
    if (peer === undefined) {
      const flow = this.port.openFlow({
        source: this.state.gid,
        destination: address,
        sourcePort: SOURCE_PORT,
        trafficClass: 0,
        hopLimit: HOP_LIMIT,
        flowLabel: 0,
      })
      const number = this.#freePeers.pop() ?? this.peers.size
      peer = { number, address: address.slice(), text, flow, uses: 0, ahs: new Map(), source: -1, heardAt: this.now }
      this.peers.set(text, peer)
    }
    peer.uses++
    return peer
  }

  closePeer(peer: Peer): void {
    if (--peer.uses > 0) return
    this.peers.delete(peer.text)
    this.#freePeers.push(peer.number)
    if (this.#peerOfSource[peer.source] === peer) this.#peerOfSource[peer.source] = undefined
    this.port.closeFlow(peer.flow)
  }

  /** RESET: forgets everything, without completions. */
  reset(qp: QueuePair): void {
    this.#endAll(qp)
    for (const request of qp.waiters) request.dueAt = this.now
    qp.waiters.clear()
    for (const source of qp.sources.values()) this.receiving.closeSource(source)
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
    this.taps?.reset(qp.object)
    forgetQueuePair(this.device(), qp)
  }

  /** ERR: all requests complete as flushed. */
  fail(qp: QueuePair): void {
    const active = [...qp.active.values()].sort((a, b) => a.order - b.order)
    this.#endAll(qp)
    for (const request of active) this.end(request, EfaStatus.FLUSHED)
    this.#flush(qp, active.length)
  }

  /** Completes everything that is in the rings as flushed. `active`: number of sends that were flushed before. */
  #flush(qp: QueuePair, active: number): void {
    const sends = qp.send === undefined ? 0 : pendingSends(qp.send)
    for (let left = sends; left > 0; left--) this.end(this.#load(qp), EfaStatus.FLUSHED)
    reportFlush(this.device(), qp, 'send', active + sends)
    if (qp.receive === undefined) return
    let receives = 0
    // no more than there are now: the program may ring without end meanwhile
    for (
      let left = pendingReceives(qp);
      left > 0 && takeReceive(this.device().memory, qp.receive, this.receive);
      left--
    ) {
      this.taps?.taken(qp.object, qp.object, postedReceive(this.receive))
      this.delivery.completeReceive(qp, EfaStatus.FLUSHED, 0, SEND, undefined, undefined)
      receives++
    }
    reportFlush(this.device(), qp, 'receive', receives)
  }

  /** Nothing is executed any more. */
  #endAll(qp: QueuePair): void {
    for (const request of qp.active.values()) this.#forget(request)
    for (const pair of qp.pairs.values()) {
      this.pairs.delete(pair)
      this.closePeer(pair.peer)
    }
    qp.pairs.clear()
    qp.reads.clear()
  }

  /** Removes a request from all lists but `active`. */
  #forget(request: Request): void {
    this.#waiting.delete(request)
    this.reading.delete(request)
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

  poll(now: number, scope: ScanScope = ScanScope.ALL): boolean {
    this.now = now
    let hasWorked = this.#scan.scan(scope)
    if (this.torment?.poll(now)) hasWorked = true
    if (now >= this.port.nextTimeout()) this.port.onTimeout(now)
    if (this.#receivePackets()) hasWorked = true
    if (this.#transfers.length > 0) {
      hasWorked = true
      for (const request of [...this.#transfers]) this.#retry(request)
    }
    if (this.#onTimeout(now)) hasWorked = true
    for (const pair of this.pairs) if (this.sending.transmit(pair)) hasWorked = true
    this.receiving.acknowledge()
    this.port.flush()
    if (now >= this.#forgetAt) this.#forgetIdle(now)
    return hasWorked
  }

  /** Forgets destinations and sources that were idle for long: a program may talk to many queue pairs, each once. */
  #forgetIdle(now: number): void {
    this.#forgetAt = now + IDLE_TIME / 4
    for (const peer of this.#strangers.keys())
      if (peer.uses === 1 && now >= peer.heardAt + IDLE_TIME) this.#forgetStranger(peer)
    for (const { state: qp } of this.state.qps.values()) {
      for (const [key, pair] of qp.pairs)
        if (!this.pairs.has(pair) && now >= pair.usedAt + IDLE_TIME) {
          qp.pairs.delete(key)
          this.closePeer(pair.peer)
        }
      for (const [key, source] of qp.sources)
        if (now >= source.usedAt + IDLE_TIME) {
          qp.sources.delete(key)
          this.receiving.closeSource(source)
        }
    }
  }

  nextTimeout(): number {
    let due = Math.min(this.port.nextTimeout(), this.torment?.nextTimeout() ?? Number.POSITIVE_INFINITY)
    for (const { dueAt } of this.#waiting) due = Math.min(due, dueAt)
    for (const request of this.reading) due = Math.min(due, readTimeoutOf(request))
    for (const pair of this.pairs) {
      if (pair.refused.length > 0) due = Math.min(due, this.sending.dueOfRefused(pair))
      if (pair.inFlight > 0) due = Math.min(due, pair.dueAt)
    }
    return due
  }

  #readDoorbells(qp: QueuePair): boolean {
    const { send, receive } = qp
    const hasSent = send !== undefined && pendingSends(send) > 0 && this.#mayTakeSends(qp)
    if (receive === undefined) return hasSent
    const posted = loadDoorbell(receive.doorbell)
    if (posted === receive.seenDoorbell) return hasSent
    receive.seenDoorbell = posted
    this.taps?.receivesPosted(qp.object, qp.object)
    if (qp.state === ERR) this.#flush(qp, 0)
    // a request that finds no receive any more waits again
    for (const request of [...qp.waiters]) if (pendingReceives(qp) > 0) this.#wake(qp, request)
    return true
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
    readSend(this.device().memory, qp, qp.send!, this.#request)
    const request = this.#request
    this.taps?.loaded(qp.object, postedSend(request, this.state.ahs.get(request.ah)?.peer.address))
    return request
  }

  /** Takes sends now or, with torment, perhaps later. True if any was taken. */
  #mayTakeSends(qp: QueuePair): boolean {
    if (this.torment === undefined) return this.#takeSends(qp)
    const before = qp.loaded
    this.torment.ring(qp.qpn)
    return qp.loaded !== before
  }

  /** For torment: a poll takes what is left then. */
  #startSends(qpn: number): void {
    const object = this.state.qps.get(qpn)
    if (object?.state.send !== undefined && this.#takeSends(object.state) && pendingSends(object.state.send) > 0)
      this.#scan.recheck(object)
  }

  #takeSends(qp: QueuePair): boolean {
    if (qp.state === ERR) {
      this.#flush(qp, 0)
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
      this.end(loaded, status)
      return
    }
    const { qp } = loaded
    loaded.message = qp.nextMessage++ >>> 0
    const target = this.#local(loaded)
    if (!qp.isReliable) this.end(loaded, this.delivery.sendDatagram(loaded, target))
    else if (target === undefined) this.sending.sendPackets(this.#keep(loaded))
    else {
      const result = target.delivery.deliver(this, loaded)
      if (result !== WAIT) this.end(loaded, result)
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
    const handle = this.state.ahs.get(ah)
    if (handle === undefined || handle.pd !== qp.pd) return EfaStatus.INVALID_AH
    request.peer = handle.peer
    if (operation !== SEND && (operation > RDMA_WRITE || !qp.isReliable)) return EfaStatus.UNSUPPORTED_OPERATION
    if (inlineLength !== NO_INLINE && inlineLength < length) return EfaStatus.LOCAL_LENGTH
    if (operation === SEND && length > this.mtu) return EfaStatus.LOCAL_LENGTH
    if (operation !== SEND && (length > Limits.maxRdmaBytes || length !== remoteLength)) return EfaStatus.LOCAL_LENGTH
    const access = operation === RDMA_READ ? LOCAL_WRITE : 0
    return elementsGranted(this.memory, qp, elements, count, access) ? OK : EfaStatus.INVALID_LKEY
  }

  /** The engine of this process that receives what is sent to a peer; undefined: packets are needed. */
  #local({ peer }: Request): Engine | undefined {
    const receiver = this.port.receiverOf?.(peer!.flow)
    return receiver instanceof Engine ? receiver : undefined
  }

  /** Completes a send. While somebody watches requests, sends end in order. */
  end(request: Request, status: number): void {
    const { qp, order } = request
    const kept = qp.active.get(order)
    if (kept !== undefined) {
      this.#forget(kept)
      qp.active.delete(order)
      this.closePeer(kept.peer!)
    }
    const { ended } = qp
    if (this.taps === undefined && ended.size === 0) {
      this.#completeSend(request, status)
      return
    }
    ended.set(order, { request: request === this.#request ? copyRequest(request) : request, status })
    // requests are kept in their order. A program that posts beyond its queue does not get that order
    const isFull = ended.size > qp.send!.depth
    const oldest = this.taps === undefined || isFull ? qp.loaded : (qp.active.keys().next().value ?? qp.loaded)
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
    const { decideCompletion } = this.device().taps
    const opcode = operation === RDMA_WRITE ? WC_WRITE : WC_SEND
    const fault = executed === OK ? decideCompletion?.(qp.object, opcode, idOf(request)) : undefined
    const status = fault === undefined ? executed : efaStatusOf(fault.status)
    this.#count(request, status)
    if (status !== OK && status !== EfaStatus.FLUSHED) this.#report(request, status, fault)
    const cq = qp.sendCq
    this.taps?.retired(qp.object, 1, status === EfaStatus.FLUSHED)
    const { destQpn } = request
    if (this.torment === undefined) this.#writeSend(qp, cq, status, opcode, operation, length, id, id1, id2, id3)
    else
      this.torment.pushSend(cq, qp.qpn, destQpn, () =>
        this.#writeSend(qp, cq, status, opcode, operation, length, id, id1, id2, id3),
      )
  }

  #writeSend(
    qp: QueuePair,
    cq: CqObject,
    status: number,
    opcode: number,
    operation: number,
    length: number,
    id: number,
    id1: number,
    id2: number,
    id3: number,
  ): void {
    const fields = status === OK ? undefined : this.torment?.undefinedFields(qp.qpn)
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
      endEntry(cq, at, id, status, SEND_QUEUE | (((fields?.operation ?? operation) & 7) << OPERATION_SHIFT))
    }
    this.tapCompleted(qp, cq, at, status, opcode, length, 0)
  }

  #report(request: Request, status: number, rule: InjectedCompletion | undefined): void {
    reportSend(this.device(), request, status, rule && causeOfRule(rule), this.mtu)
  }

  tapCompleted(
    qp: QueuePair,
    cq: CqObject,
    at: number,
    status: number,
    opcode: number,
    bytes: number,
    sourceQpn: number,
  ): void {
    const position = at < 0 ? 0 : cq.state.produced
    this.taps?.completed(qp.object, cq, {
      status: wcStatusOf(status),
      opcode,
      bytes,
      sourceQpn,
      solicited: false,
      position,
    })
  }

  /** Microseconds after which a request without receive is tried again. */
  notReadyDelay({ qpn }: QueuePair): number {
    return this.torment?.notReadyDelay(qpn) ?? NOT_READY_DELAY
  }

  /** No receive is posted. */
  wait(request: Request, destination: QueuePair): number {
    const kept = this.#keep(request)
    destination.object.context?.device.taps.requests?.notReady(destination.object)
    if (kept.rnrTries++ >= kept.qp.rnrRetry && kept.qp.rnrRetry < ENDLESS) return EfaStatus.NOT_READY
    kept.dueAt = this.now + this.notReadyDelay(kept.qp)
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
      this.sending.sendPackets(request)
      return
    }
    const result = target.delivery.deliver(this, request)
    if (result !== WAIT) this.end(request, result)
  }

  continueLater(request: Request): number {
    const kept = this.#keep(request)
    if (!this.#transfers.includes(kept)) this.#transfers.push(kept)
    return WAIT
  }

  commit(at: number, bytes: number, { flow }: Peer): void {
    this.port.commit(at, bytes, 1, bytes, flow)
    this.counts.tx_pkts++
    this.counts.tx_bytes += bytes
  }

  #onTimeout(now: number): boolean {
    let hasWorked = false
    for (const request of this.#waiting)
      if (now >= request.dueAt) {
        hasWorked = true
        this.#retry(request)
      }
    for (const request of this.reading)
      if (now >= readTimeoutOf(request)) {
        hasWorked = true
        this.counts.unresponsive_remote_events++
        this.end(request, EfaStatus.UNRESPONSIVE)
      }
    for (const pair of this.pairs)
      if (pair.inFlight > 0 && now >= pair.dueAt && this.sending.resend(pair, now)) hasWorked = true
    return hasWorked
  }

  #receivePackets(): boolean {
    const port = this.port
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

  #forgetStranger(peer: Peer): void {
    this.#strangers.delete(peer)
    this.closePeer(peer)
  }

  /** Forgets the oldest stranger without requests; false if all have some. */
  #forgetOldest(): boolean {
    // those that were heard since the last time stay
    for (const [peer, heardAt] of this.#strangers)
      if (peer.heardAt !== heardAt) {
        this.#strangers.delete(peer)
        this.#strangers.set(peer, peer.heardAt)
      } else if (peer.uses === 1) {
        this.#forgetStranger(peer)
        return true
      }
    return false
  }

  /** The peer of the run; undefined if there are too many that have sent requests. */
  #sourcePeer(): Peer | undefined {
    const { peer: number, flowAddress } = this.#run
    const known = number < 0 ? undefined : this.#peerOfSource[number]
    if (known !== undefined && isSameAddress(known.address, flowAddress.source)) {
      known.heardAt = this.now
      return known
    }
    let peer = this.peers.get(addressText(flowAddress.source))
    if (peer === undefined) {
      if (this.#strangers.size >= MAX_STRANGERS && !this.#forgetOldest()) return undefined
      try {
        peer = this.openPeer(flowAddress.source)
      } catch {
        return undefined
      }
      this.#strangers.set(peer, this.now)
    }
    peer.heardAt = this.now
    const source = this.port.peerOf(peer.address)
    if (source >= 0) {
      this.#peerOfSource[source] = peer
      peer.source = source
    }
    return peer
  }

  #onPacket(peer: Peer, at: number, length: number): void {
    const { view } = this.port.arena
    if (checkPacket(view, at, length) !== 0) {
      this.counts.rx_drops++
      return
    }
    this.counts.rx_pkts++
    this.counts.rx_bytes += length
    const opcode = bthOpcode(view, at)
    const payload = length - payloadAt(opcode) - ICRC_BYTES - bthPadCount(view, at)
    if (opcode === UD_SEND || opcode === UD_SEND_IMM) this.delivery.onDatagram(peer, at, opcode, payload)
    else if (opcode === Opcode.ACK) this.sending.onAck(peer, at)
    else if (opcode === Opcode.REFUSE) this.sending.onRefusal(peer, at)
    else if (opcode >= Opcode.SEND && opcode <= Opcode.READ_DATA) this.receiving.onMessage(peer, at, opcode, payload)
    else this.counts.rx_drops++
  }
}
