/*
 * The sending half of SRD (docs/decisions/srd.md): packets of requests, until they are acknowledged, refused or given
 * up.
 */

import { EfaOperation, EfaStatus } from '../../../spec/drivers/efa-queues.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import { timerFactor } from '../../../spec/work.ts'
import { bthDestQp, bthPsn, psnDifference } from '../../../transport/wire/bth.ts'
import { setDeadline } from '../deadlines.ts'
import type { EfaState } from '../device-state.ts'
import { endSend, notReadyDelay } from '../ending.ts'
import { ENDLESS, MAX_TRANSFER, timeoutOf, WAIT } from '../engine-common.ts'
import { copyRange, gather, memoryOf, setRange } from '../memory.ts'
import { commit } from '../peers.ts'
import { type Pair, type Peer, pairKey, type Request } from '../state.ts'
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
  endPacket,
  endPacketsOf,
  isIdle,
  nextPsnOf,
  notePacket,
  pairOf,
  requestOf,
  room,
  slotOf,
  WINDOW,
} from './pairs.ts'
import { endResponses, refuse } from './receiving.ts'

const { RDMA_READ } = EfaOperation
const { REMOTE_READ } = AccessFlags.values
const { OK } = EfaStatus

/** Tries after which a destination is given up. */
const MAX_TRIES = 14
/** A packet for which the port has no room is tried again after this time. */
const PORT_FULL_DELAY = 100
/** A packet is lost if one that is so much later was acknowledged. */
const REORDERED = 64
/** Microseconds without data after which a READ fails. */
const READ_TIMEOUT = 3_000_000
/** `psn` of a packet that is sent for the first time. */
const NEW = -1

/** Queues a request for `transmit`. */
export const sendPackets = (efa: EfaState, request: Request): void => {
  const { qp, peer, destQpn, operation } = request
  pairOf(efa, qp, peer!, destQpn).queue.push(request)
  if (operation !== RDMA_READ) return
  request.heardAt = efa.now
  qp.reads.set(request.message, request)
  setDeadline(efa, request, efa.now + READ_TIMEOUT * timerFactor)
}

/**
 * The time of a READ is over, unless data has come. A responder answers one after the other: data of one is a sign of
 * life for all.
 */
export const onReadTimeout = (efa: EfaState, request: Request): void => {
  const { qp, peer, destQpn, heardAt } = request
  const due = Math.max(heardAt, qp.pairs.get(pairKey(peer!, destQpn))?.dataAt ?? 0) + READ_TIMEOUT * timerFactor
  if (efa.now < due) {
    setDeadline(efa, request, due)
    return
  }
  efa.counts.unresponsive_remote_events++
  endSend(efa, request, EfaStatus.UNRESPONSIVE)
}

/**
 * Sends what the windows of ready pairs permit, and sets their timers; true if anything was sent. A pair stays ready
 * only if the port is full.
 */
export const transmitReady = (efa: EfaState): boolean => {
  let hasSent = false
  for (const pair of efa.ready) {
    pair.isBlocked = false
    if (transmit(efa, pair)) hasSent = true
    if (!pair.isBlocked) efa.ready.delete(pair)
    if (isIdle(pair)) closeWindow(pair)
    setDeadline(efa, pair, dueOf(pair))
  }
  return hasSent
}

/** When something of the pair is to be sent, if no acknowledgement comes before. */
const dueOf = (pair: Pair): number => {
  const { inFlight, dueAt, refused } = pair
  const again = inFlight > 0 ? dueAt : Number.POSITIVE_INFINITY
  // while the window is full, acknowledgements and timeouts come before
  return refused.length === 0 || room(pair) <= WINDOW / 2 ? again : Math.min(again, refused[0]!.dueAt)
}

const transmit = (efa: EfaState, pair: Pair): boolean => {
  const { queue } = pair
  const window = efa.port.windowBytes ?? MAX_TRANSFER
  let hasSent = transmitRefused(efa, pair)
  while (queue.length > 0 && room(pair) > 0 && pair.inFlightBytes < window) {
    const request = queue[0]!
    const length = request.operation === RDMA_READ ? 0 : Math.min(request.length - request.sent, efa.mtu)
    const status = sendPacket(efa, pair, request, request.sent, length, NEW)
    if (status === WAIT) break
    hasSent = true
    if (status !== OK) {
      giveUp(efa, pair, request, status)
      continue
    }
    request.sent += length
    if (request.operation === RDMA_READ || request.sent === request.length) queue.shift()
  }
  return hasSent
}

/** Sends due packets that were refused, as new ones. Half of the window is left to other requests. */
const transmitRefused = (efa: EfaState, pair: Pair): boolean => {
  const { refused } = pair
  let hasSent = false
  for (;;) {
    const [first] = refused
    if (first === undefined || efa.now < first.dueAt || room(pair) <= WINDOW / 2) return hasSent
    const { request, offset, length } = first
    const status = sendPacket(efa, pair, request, offset, length, NEW)
    if (status === WAIT) return hasSent
    hasSent = true
    refused.shift()
    if (status !== OK) giveUp(efa, pair, request, status)
  }
}

/** Sends one packet; `psn`: again. WAIT: the port is full. */
const sendPacket = (
  efa: EfaState,
  pair: Pair,
  request: Request,
  offset: number,
  length: number,
  psn: number,
): number => {
  const { port } = efa
  const opcode = opcodeOf(request)
  const bytes = packetBytes(opcode, length)
  const at = port.reserve(bytes)
  if (at < 0) {
    pair.isBlocked = true
    return WAIT
  }
  const { arena } = port
  const data = at + payloadAt(opcode)
  const status =
    request.operation === READ_DATA
      ? gatherResponse(efa, request, offset, data, length)
      : gather(memoryOf(efa), request, offset, arena, data, length)
  if (status !== OK) return status
  const number = psn === NEW ? notePacket(pair, request, offset, length, efa.now) : psn
  putHeaders(arena.view, at, opcode, request, pair.epoch, number, offset, length)
  commit(efa, at, bytes, pair.peer)
  return OK
}

const gatherResponse = (efa: EfaState, request: Request, offset: number, at: number, length: number): EfaStatus => {
  const { qp, rkey, remoteHi, remoteLo } = request
  const range = setRange(efa.range, remoteHi, remoteLo, rkey, length)
  return copyRange(memoryOf(efa), qp, REMOTE_READ, range, offset, efa.port.arena, at, length)
    ? OK
    : EfaStatus.BAD_ADDRESS
}

/** Ends a request of packets. The data of a READ is no request of a program: its requester is told. */
const giveUp = (efa: EfaState, pair: Pair, request: Request, status: number): void => {
  endPacketsOf(efa, pair, request)
  if (request.operation !== READ_DATA) {
    endSend(efa, request, status)
    return
  }
  endResponses(efa, pair, 1)
  if (status === EfaStatus.BAD_ADDRESS)
    refuse(efa, request.peer!, request.destQpn, request.qp.qpn, 0, 0, status, request.message)
}

/** Sends overdue packets again, and gives up a destination that does not answer; true if anything was done. */
export const resend = (efa: EfaState, pair: Pair): boolean => {
  const { now } = efa
  efa.ready.add(pair)
  if (pair.inFlight === 0 || now < pair.dueAt) return false
  let hasSent = false
  pair.dueAt = Number.POSITIVE_INFINITY
  for (let psn = pair.oldest, end = pair.nextPsn; psn !== end; psn = nextPsnOf(psn)) {
    const slot = slotOf(psn)
    if (pair.requests[slot] === undefined) continue
    if (now >= pair.sentAt[slot]! + timeoutOf(pair.tries[slot]!)) {
      hasSent = true
      if (pair.tries[slot]! >= MAX_TRIES) {
        giveUpAll(efa, pair)
        return true
      }
      sendAgain(efa, pair, psn, slot, true)
    }
    pair.dueAt = Math.min(pair.dueAt, pair.sentAt[slot]! + timeoutOf(pair.tries[slot]!))
  }
  return hasSent
}

const giveUpAll = (efa: EfaState, pair: Pair): void => {
  efa.counts.unresponsive_remote_events++
  const requests = new Set(pair.queue)
  for (const { request } of pair.refused) requests.add(request)
  for (const request of pair.requests) if (request !== undefined) requests.add(request)
  const status = pair.isHeard ? EfaStatus.UNRESPONSIVE : EfaStatus.UNREACHABLE
  for (const request of [...requests].sort((a, b) => a.order - b.order)) giveUp(efa, pair, request, status)
}

/** `isOverdue`: it was not acknowledged in time; otherwise later ones were acknowledged. */
const sendAgain = (efa: EfaState, pair: Pair, psn: number, slot: number, isOverdue: boolean): void => {
  const { counts, now } = efa
  const request = pair.requests[slot]!
  const length = pair.lengths[slot]!
  const status = sendPacket(efa, pair, request, pair.offsets[slot]!, length, psn)
  if (status === WAIT) {
    pair.sentAt[slot] = now - timeoutOf(pair.tries[slot]!) + PORT_FULL_DELAY
    pair.dueAt = Math.min(pair.dueAt, now + PORT_FULL_DELAY)
    return
  }
  pair.sentAt[slot] = now
  pair.tries[slot]!++
  counts.retrans_pkts++
  counts.retrans_bytes += length
  if (isOverdue) counts.retrans_timeout_events++
  if (status !== OK) giveUp(efa, pair, request, status)
}

const pairFrom = (efa: EfaState, peer: Peer, at: number): Pair | undefined => {
  const { view } = efa.port.arena
  const pair = efa.qps.get(bthDestQp(view, at))?.state.pairs.get(pairKey(peer, ackSource(view, at)))
  if (pair === undefined || ackEpoch(view, at) !== pair.epoch) return undefined
  pair.isHeard = true
  efa.ready.add(pair)
  return pair
}

export const onAck = (efa: EfaState, peer: Peer, at: number): void => {
  const pair = pairFrom(efa, peer, at)
  if (pair === undefined) return
  const { view } = efa.port.arena
  const highest = bthPsn(view, at)
  for (let word = 0; word < ACKNOWLEDGED / 32; word++)
    for (let bits = ackWord(view, at, word), i = 0; bits !== 0; bits >>>= 1, i++)
      if ((bits & 1) !== 0) onAcknowledged(efa, pair, (highest - word * 32 - i) & 0xff_ffff)
  // packets that are much older than acknowledged ones are lost
  for (let psn = pair.oldest, end = pair.nextPsn; psn !== end; psn = nextPsnOf(psn)) {
    if (psnDifference(highest, psn) <= REORDERED) return
    const slot = slotOf(psn)
    if (pair.requests[slot] !== undefined && pair.tries[slot] === 1) sendAgain(efa, pair, psn, slot, false)
  }
}

const onAcknowledged = (efa: EfaState, pair: Pair, psn: number): void => {
  const request = requestOf(pair, psn)
  if (request === undefined) return
  const length = pair.lengths[slotOf(psn)]!
  endPacket(pair, psn)
  if (request.operation === RDMA_READ) return
  request.done += length
  if (request.done < request.length || request.sent < request.length) return
  if (request.operation === READ_DATA) endResponses(efa, pair, 1)
  else endSend(efa, request, OK)
}

export const onRefusal = (efa: EfaState, peer: Peer, at: number): void => {
  const { view } = efa.port.arena
  const said = refusalStatus(view, at)
  const status = said === OK || said > EfaStatus.UNREACHABLE ? EfaStatus.BAD_STATUS : said
  const message = view.getUint32(at + 20)
  const qp = efa.qps.get(bthDestQp(view, at))?.state
  // of a READ whose data cannot be read any more: the responder does not know the epoch
  const read = qp?.reads.get(message)
  if (read !== undefined && ackEpoch(view, at) === 0 && read.peer === peer && read.destQpn === ackSource(view, at)) {
    endSend(efa, read, status)
    return
  }
  const pair = pairFrom(efa, peer, at)
  const psn = bthPsn(view, at)
  const request = pair && requestOf(pair, psn)
  if (pair === undefined || request === undefined || request.message !== message) return
  if (status !== EfaStatus.NOT_READY || request.operation === READ_DATA) {
    giveUp(efa, pair, request, status)
    return
  }
  const { qp: sender } = request
  // a READ waits for the responder's other READs, not for a receive
  if (request.operation === RDMA_READ) request.heardAt = efa.now
  else if (request.rnrTries++ >= sender.rnrRetry && sender.rnrRetry < ENDLESS) {
    giveUp(efa, pair, request, EfaStatus.NOT_READY)
    return
  }
  // it does not keep its place in the window, which other requests need
  const slot = slotOf(psn)
  const [offset, length] = [pair.offsets[slot]!, pair.lengths[slot]!]
  endPacket(pair, psn)
  // oldest first, also if torment makes a wait longer
  const before = pair.refused.at(-1)?.dueAt ?? 0
  const dueAt = Math.max(before, efa.now + notReadyDelay(efa, request))
  pair.refused.push({ request, offset, length, dueAt })
}
