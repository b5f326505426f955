/*
 * What two queue pairs know of each other's packets (docs/decisions/srd.md). A sender numbers the packets to each
 * destination, and sends each again until it is answered; a receiver knows its answers to the last numbers.
 * Nothing depends on the order of packets.
 */

import { EfaStatus } from '../../../spec/drivers/efa-queues.ts'
import { psnDifference } from '../../../transport/wire/bth.ts'
import type { EfaState } from '../device-state.ts'
import { timeoutOf } from '../engine-common.ts'
import {
  NO_TIMER,
  type Pair,
  type Peer,
  pairKey,
  type QueuePair,
  type ReceivedFrom,
  type Request,
  randomEpoch,
  type Window,
} from '../state.ts'

/** Packets that may be unacknowledged, a power of two. */
export const WINDOW = 512
/** Packet numbers that a receiver remembers: more than a sender has in its window. */
const REMEMBERED = 1024
/** Bits of an acknowledgement. */
export const ACKNOWLEDGED = 128
const PSN_MASK = 0xff_ffff
/** Earlier epochs of a source that are remembered. */
const MAX_EARLIER = 8

const createWindow = (length: number): Window => ({
  requests: new Array<Request | undefined>(length).fill(undefined),
  offsets: new Uint32Array(length),
  lengths: new Uint32Array(length),
  sentAt: new Float64Array(length),
  tries: new Uint8Array(length),
})

/**
 * Of pairs without unacknowledged packets: a window has 13 KB, and a program may send to 65536 queue pairs per address.
 */
const NO_WINDOW = createWindow(0)
const freeWindows: Window[] = []
const MAX_FREE_WINDOWS = 64

/** No packet is unacknowledged: gives the window back. */
export const closeWindow = (pair: Pair): void => {
  if (pair.requests.length === 0) return
  const { requests, offsets, lengths, sentAt, tries } = pair
  if (freeWindows.length < MAX_FREE_WINDOWS) freeWindows.push({ requests, offsets, lengths, sentAt, tries })
  Object.assign(pair, NO_WINDOW)
}

const createPair = (qp: QueuePair, peer: Peer, qpn: number, epoch: number): Pair => ({
  qp,
  peer,
  qpn,
  epoch,
  nextPsn: 0,
  oldest: 0,
  inFlight: 0,
  inFlightBytes: 0,
  dueAt: Number.POSITIVE_INFINITY,
  ...NO_WINDOW,
  queue: [],
  dataAt: 0,
  refused: [],
  usedAt: 0,
  responses: 0,
  isHeard: false,
  isBlocked: false,
  timer: NO_TIMER,
})

/** The pair of a queue pair and a destination, which is about to send. */
export const pairOf = (efa: EfaState, qp: QueuePair, peer: Peer, qpn: number): Pair => {
  const key = pairKey(peer, qpn)
  let pair = qp.pairs.get(key)
  if (pair === undefined) {
    peer.uses++
    pair = createPair(qp, peer, qpn, randomEpoch(efa.device().core))
    qp.pairs.set(key, pair)
  }
  pair.usedAt = efa.now
  efa.ready.add(pair)
  return pair
}

/** Nothing is to be sent, and everything is acknowledged. */
export const isIdle = ({ queue, refused, inFlight }: Pair): boolean =>
  queue.length === 0 && refused.length === 0 && inFlight === 0

export const slotOf = (psn: number): number => psn & (WINDOW - 1)

export const nextPsnOf = (psn: number): number => (psn + 1) & PSN_MASK

/** Packets that the window permits. */
export const room = ({ nextPsn, oldest }: Pair): number => WINDOW - ((nextPsn - oldest) & PSN_MASK)

/** Notes a sent packet; returns its PSN. */
export const notePacket = (pair: Pair, request: Request, offset: number, length: number, now: number): number => {
  if (pair.requests.length === 0) Object.assign(pair, freeWindows.pop() ?? createWindow(WINDOW))
  const psn = pair.nextPsn
  const slot = slotOf(psn)
  pair.nextPsn = (psn + 1) & PSN_MASK
  pair.requests[slot] = request
  pair.offsets[slot] = offset
  pair.lengths[slot] = length
  pair.sentAt[slot] = now
  pair.tries[slot] = 1
  const dueAt = now + timeoutOf(1)
  if (pair.inFlight === 0 || dueAt < pair.dueAt) pair.dueAt = dueAt
  pair.inFlight++
  pair.inFlightBytes += length
  return psn
}

/** The request of an unacknowledged packet. */
export const requestOf = (pair: Pair, psn: number): Request | undefined =>
  ((pair.nextPsn - 1 - psn) & PSN_MASK) < ((pair.nextPsn - pair.oldest) & PSN_MASK)
    ? pair.requests[slotOf(psn)]
    : undefined

/** The packet is acknowledged or given up. */
export const endPacket = (pair: Pair, psn: number): void => {
  const slot = slotOf(psn)
  if (pair.requests[slot] === undefined) return
  pair.requests[slot] = undefined
  pair.inFlight--
  pair.inFlightBytes -= pair.lengths[slot]!
  while (pair.oldest !== pair.nextPsn && pair.requests[slotOf(pair.oldest)] === undefined)
    pair.oldest = (pair.oldest + 1) & PSN_MASK
}

/** Gives up the packets of a request. */
export const endPacketsOf = (efa: EfaState, pair: Pair, request: Request): void => {
  const { queue, refused, requests } = pair
  const at = queue.indexOf(request)
  if (at >= 0) queue.splice(at, 1)
  for (let i = refused.length - 1; i >= 0; i--) if (refused[i]!.request === request) refused.splice(i, 1)
  for (let psn = pair.oldest, end = pair.nextPsn; psn !== end; psn = nextPsnOf(psn))
    if (requests[slotOf(psn)] === request) endPacket(pair, psn)
  efa.ready.add(pair)
}

export const createReceivedFrom = (
  qp: QueuePair,
  peer: Peer,
  qpn: number,
  epoch: number,
  psn: number,
  before?: ReceivedFrom,
): ReceivedFrom => ({
  qp,
  peer,
  qpn,
  epoch,
  earlierEpochs: before === undefined ? [] : [before.epoch, ...before.earlierEpochs].slice(0, MAX_EARLIER),
  usedAt: 0,
  highest: (psn - 1) & PSN_MASK,
  answers: new Uint8Array(REMEMBERED),
  writes: new Map(),
  hasToAcknowledge: false,
  firstToAcknowledge: 0,
  lastToAcknowledge: 0,
})

/** The status with which a packet was answered; undefined: it is new. One so old that it must have been taken: OK. */
export const answerOf = ({ highest, answers }: ReceivedFrom, psn: number): number | undefined => {
  const distance = psnDifference(psn, highest)
  if (distance > 0) return undefined
  if (distance <= -REMEMBERED) return EfaStatus.OK
  const answer = answers[psn & (REMEMBERED - 1)]!
  return answer === 0 ? undefined : answer - 1
}

/** The packet is answered with `status`, now and whenever it comes again: it is executed once. */
export const noteAnswer = (source: ReceivedFrom, psn: number, status: number): void => {
  const { answers } = source
  const distance = psnDifference(psn, source.highest)
  if (distance >= REMEMBERED) answers.fill(0)
  else for (let i = 1; i <= distance; i++) answers[(source.highest + i) & (REMEMBERED - 1)] = 0
  if (distance > 0) source.highest = psn
  answers[psn & (REMEMBERED - 1)] = status + 1
}

/** Asks for an acknowledgement of a taken packet. True if none was due before. */
export const acknowledgeLater = (source: ReceivedFrom, psn: number): boolean => {
  const isFirst = !source.hasToAcknowledge
  source.hasToAcknowledge = true
  if (isFirst || psnDifference(psn, source.firstToAcknowledge) < 0) source.firstToAcknowledge = psn
  if (isFirst || psnDifference(psn, source.lastToAcknowledge) > 0) source.lastToAcknowledge = psn
  return isFirst
}
