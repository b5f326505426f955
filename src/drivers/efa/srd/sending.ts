/*
 * The sending half of SRD (docs/decisions/srd.md): packets of requests, until they are acknowledged, refused or given up.
 */
import { EfaOperation, EfaStatus } from '../../../spec/drivers/efa-queues.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import { bthDestQp, bthPsn, psnDifference } from '../../../transport/wire/bth.ts'
import { ENDLESS, MAX_TRANSFER, timeoutOf, WAIT } from '../engine-common.ts'
import type { EngineParts } from '../engine-parts.ts'
import { copyRange, Direction, gather, setRange } from '../memory.ts'
import { type Pair, type Peer, pairKey, type QueuePair, type Request, randomEpoch } from '../state.ts'
import {
  ackEpoch,
  ackSource,
  ackWord,
  opcodeOf,
  packetBytes,
  payloadAt,
  putHeaders,
  READ_DATA,
  refusalStatus,
} from './packets.ts'
import {
  ACKNOWLEDGED,
  closeWindow,
  createPair,
  endPacket,
  endPacketsOf,
  notePacket,
  requestOf,
  room,
  slotOf,
  visitPackets,
  WINDOW,
} from './pairs.ts'

const { RDMA_READ } = EfaOperation
const { REMOTE_READ } = AccessFlags.values
const { OK } = EfaStatus

/** Tries after which a destination is given up. */
const MAX_TRIES = 14
/** A packet for which the port has no room is tried again after this time. */
const PORT_FULL_DELAY = 100
/** A packet is lost if one that is so much later was acknowledged. */
const REORDERED = 64

export class Sending {
  readonly #engine: EngineParts

  constructor(engine: EngineParts) {
    this.#engine = engine
  }

  /** The first of them is due first. While the window is full, acknowledgements and timeouts come before. */
  dueOfRefused(pair: Pair): number {
    return room(pair) <= WINDOW / 2 ? Number.POSITIVE_INFINITY : pair.refused[0]!.dueAt
  }

  pairOf(qp: QueuePair, peer: Peer, qpn: number): Pair {
    const key = pairKey(peer, qpn)
    let pair = qp.pairs.get(key)
    if (pair === undefined) {
      peer.uses++
      pair = createPair(qp, peer, qpn, randomEpoch(this.#engine.device().core))
      qp.pairs.set(key, pair)
    }
    pair.usedAt = this.#engine.now
    this.#engine.pairs.add(pair)
    return pair
  }

  /** Queues a request for `#transmit`. */
  sendPackets(request: Request): void {
    const { qp, peer, destQpn, operation } = request
    this.pairOf(qp, peer!, destQpn).queue.push(request)
    if (operation !== RDMA_READ) return
    request.heardAt = this.#engine.now
    qp.reads.set(request.message, request)
    this.#engine.reading.add(request)
  }

  /** Sends what the window permits; true if anything was sent. */
  transmit(pair: Pair): boolean {
    const { queue, refused } = pair
    if (queue.length === 0 && refused.length === 0) {
      if (pair.inFlight === 0) {
        this.#engine.pairs.delete(pair)
        closeWindow(pair)
      }
      return false
    }
    const window = this.#engine.port.windowBytes ?? MAX_TRANSFER
    let hasSent = this.#transmitRefused(pair)
    while (queue.length > 0 && room(pair) > 0 && pair.inFlightBytes < window) {
      const request = queue[0]!
      const length = request.operation === RDMA_READ ? 0 : Math.min(request.length - request.sent, this.#engine.mtu)
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
      if (first === undefined || this.#engine.now < first.dueAt || room(pair) <= WINDOW / 2) return hasSent
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
    const at = this.#engine.port.reserve(bytes)
    if (at < 0) return WAIT
    const { arena } = this.#engine.port
    const status =
      request.operation === READ_DATA
        ? this.#gatherResponse(request, offset, at + payloadAt(opcode), length)
        : gather(this.#engine.memory, request, offset, arena, at + payloadAt(opcode), length)
    if (status !== OK) return status
    const number = psn ?? notePacket(pair, request, offset, length, this.#engine.now)
    putHeaders(arena.view, at, opcode, request, pair.epoch, number, offset, length)
    this.#engine.commit(at, bytes, pair.peer)
    return OK
  }

  #gatherResponse({ qp, rkey, remoteHi, remoteLo }: Request, offset: number, at: number, length: number): EfaStatus {
    const { arena } = this.#engine.port
    const { memory, range } = this.#engine
    setRange(range, remoteHi, remoteLo, rkey, length)
    return copyRange(memory, qp, REMOTE_READ, range, offset, Direction.READ, arena, at, length)
      ? OK
      : EfaStatus.BAD_ADDRESS
  }

  /** Ends a request of packets. The data of a READ is no request of a program: its requester is told. */
  #finish(request: Request, status: number): void {
    if (request.operation !== READ_DATA) this.#engine.end(request, status)
    else if (status === EfaStatus.BAD_ADDRESS)
      this.#engine.receiving.refuse(request.peer!, request.destQpn, request.qp.qpn, 0, 0, status, request.message)
  }

  /** Sends overdue packets again, and gives up a destination that does not answer. */
  resend(pair: Pair, now: number): boolean {
    let hasSent = false
    let isGone = false
    pair.dueAt = Number.POSITIVE_INFINITY
    visitPackets(pair, (psn, slot) => {
      if (isGone) return
      if (now >= pair.sentAt[slot]! + timeoutOf(pair.tries[slot]!)) {
        hasSent = true
        if (pair.tries[slot]! >= MAX_TRIES) isGone = true
        else this.#sendAgain(pair, psn, slot, true)
      }
      pair.dueAt = Math.min(pair.dueAt, pair.sentAt[slot]! + timeoutOf(pair.tries[slot]!))
    })
    if (!isGone) return hasSent
    this.#engine.counts.unresponsive_remote_events++
    const requests = new Set([...pair.queue, ...pair.refused.map(({ request }) => request)])
    visitPackets(pair, (_psn, slot) => requests.add(pair.requests[slot]!))
    for (const request of [...requests].sort((a, b) => a.order - b.order)) {
      endPacketsOf(pair, request)
      this.#finish(request, pair.isHeard ? EfaStatus.UNRESPONSIVE : EfaStatus.UNREACHABLE)
    }
    return true
  }

  /** `isOverdue`: it was not acknowledged in time; otherwise later ones were acknowledged. */
  #sendAgain(pair: Pair, psn: number, slot: number, isOverdue: boolean): void {
    const request = pair.requests[slot]!
    const length = pair.lengths[slot]!
    const status = this.#sendPacket(pair, request, pair.offsets[slot]!, length, psn)
    if (status === WAIT) {
      pair.sentAt[slot] = this.#engine.now - timeoutOf(pair.tries[slot]!) + PORT_FULL_DELAY
      pair.dueAt = Math.min(pair.dueAt, this.#engine.now + PORT_FULL_DELAY)
      return
    }
    pair.sentAt[slot] = this.#engine.now
    pair.tries[slot]!++
    this.#engine.counts.retrans_pkts++
    this.#engine.counts.retrans_bytes += length
    if (isOverdue) this.#engine.counts.retrans_timeout_events++
    if (status === OK) return
    endPacketsOf(pair, request)
    this.#finish(request, status)
  }

  #pairFrom(peer: Peer, at: number): Pair | undefined {
    const { view } = this.#engine.port.arena
    const pair = this.#engine.state.qps.get(bthDestQp(view, at))?.state.pairs.get(pairKey(peer, ackSource(view, at)))
    if (pair === undefined || ackEpoch(view, at) !== pair.epoch) return undefined
    pair.isHeard = true
    return pair
  }

  onAck(peer: Peer, at: number): void {
    const pair = this.#pairFrom(peer, at)
    if (pair === undefined) return
    const { view } = this.#engine.port.arena
    const psn = bthPsn(view, at)
    for (let word = 0; word < ACKNOWLEDGED / 32; word++)
      for (let bits = ackWord(view, at, word), i = 0; bits !== 0; bits >>>= 1, i++)
        if ((bits & 1) !== 0) this.#acknowledged(pair, (psn - word * 32 - i) & 0xff_ffff)
    // packets that are much older than acknowledged ones are lost
    visitPackets(pair, (old, slot) => {
      if (pair.tries[slot] === 1 && psnDifference(psn, old) > REORDERED) this.#sendAgain(pair, old, slot, false)
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
      this.#engine.end(request, OK)
  }

  onRefusal(peer: Peer, at: number): void {
    const { view } = this.#engine.port.arena
    const said = refusalStatus(view, at)
    const status = said === OK || said > EfaStatus.UNREACHABLE ? EfaStatus.BAD_STATUS : said
    const message = view.getUint32(at + 20)
    const qp = this.#engine.state.qps.get(bthDestQp(view, at))?.state
    // of a READ whose data cannot be read any more: the responder does not know the epoch
    const read = qp?.reads.get(message)
    if (read !== undefined && ackEpoch(view, at) === 0 && read.peer === peer && read.destQpn === ackSource(view, at)) {
      this.#engine.end(read, status)
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
    if (request.operation === RDMA_READ) request.heardAt = this.#engine.now
    else if (request.rnrTries++ >= sender.rnrRetry && sender.rnrRetry < ENDLESS) {
      endPacketsOf(pair, request)
      this.#engine.end(request, EfaStatus.NOT_READY)
      return
    }
    // it does not keep its place in the window, which other requests need
    const slot = slotOf(psn)
    const [offset, length] = [pair.offsets[slot]!, pair.lengths[slot]!]
    endPacket(pair, psn)
    // oldest first, also if torment makes a wait longer
    const before = pair.refused.at(-1)?.dueAt ?? 0
    const dueAt = Math.max(before, this.#engine.now + this.#engine.notReadyDelay(sender))
    pair.refused.push({ request, offset, length, dueAt })
  }
}
