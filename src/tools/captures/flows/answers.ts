/*
 * What answers tell of the flow of their requests: what is acknowledged and refused, and how long it took.
 */
import { Verdict, verdictOf } from '../../../spec/naks.ts'
import { headers, rnrTimerMicroseconds, SYNDROME_VALUE_MASK } from '../../../spec/wire/headers.ts'
import { psnDifference } from '../../../transport/wire/bth.ts'
import type { RawPacket } from '../file.ts'
import type { Located } from '../located.ts'
import {
  type Answer,
  ENTRY,
  type Flow,
  GROUP,
  hasAeth,
  isLastOfRead,
  isReadResponse,
  RING,
  SIZE_GROUPS,
  startsMessage,
} from './flow.ts'
import type { PairTable } from './pairs.ts'
import { type RecentPackets, Sent } from './recent.ts'
import { refusedRequest } from './refused.ts'
import { answeredAgain } from './repeats.ts'

/** Answers from which on they are grouped by size: a capture may have 100,000 flows. */
const GROUPS_FROM = 64
/** Nanoseconds within which the same acknowledgement, or the same NAK, is a copy of the first. */
const COPIED_ACK = 20_000
const COPIED_NAK = 1e6

export class AnswerTracker {
  readonly #recent: RecentPackets
  readonly #pairs: PairTable
  /** Acknowledgements whose syndrome was not captured, and the frame of the first. */
  cutSyndromes = 0
  cutSyndromeFrame = 0

  constructor(recent: RecentPackets, pairs: PairTable) {
    this.#recent = recent
    this.#pairs = pairs
  }

  add(flow: Flow, packet: RawPacket, located: Located, opcode: number, psn: number, time: number): void {
    const { frame } = packet
    const { view } = packet.arena
    const at = located.at + headers.BTH.bytes
    const isCaptured = hasAeth[opcode] === 1 && located.captured > headers.BTH.bytes
    const syndrome = isCaptured ? view.getUint8(at) : 0
    const isWhole = isCaptured && located.captured >= headers.BTH.bytes + headers.AETH.bytes
    const aeth = isWhole ? view.getUint32(at) : syndrome * 2 ** 24
    const verdict = verdictOf[syndrome]
    const value = syndrome & SYNDROME_VALUE_MASK
    if (this.#isCopy(flow, located, opcode, psn, aeth, time, frame)) {
      flow.answerCopies++
      return
    }
    if (flow.peer === undefined) this.#pairs.pairByPsn(flow, psn)
    if (flow.answers++ === 0) flow.firstAnswerFrame = frame
    if (flow.answerPsn < 0 || psnDifference(psn, flow.answerPsn) > 0) flow.answerPsn = psn
    const { peer } = flow
    if (hasAeth[opcode] === 1 && !isCaptured && isReadResponse[opcode] === 0) {
      flow.cutSyndromes++
      if (this.cutSyndromes++ === 0) this.cutSyndromeFrame = frame
    }
    let answer: Answer = 'ack'
    switch (verdict) {
      case Verdict.RESERVED: {
        // A requester drops it.
        flow.reserved ??= new Map()
        const seen = flow.reserved.get(syndrome)
        if (seen === undefined) flow.reserved.set(syndrome, { count: 1, frame })
        else seen.count++
        return
      }
      case Verdict.RNR:
        answer = 'rnr'
        if (flow.rnrs++ === 0) flow.rnrFrame = frame
        flow.lastRnrFrame = frame
        flow.rnrRow = flow.rnrPsn === psn && flow.rnrRow > 0 ? flow.rnrRow + 1 : 1
        if (flow.rnrRow > flow.mostRnrRow) flow.mostRnrRow = flow.rnrRow
        flow.rnrPsn = psn
        flow.rnrWait += rnrTimerMicroseconds[value]
        break
      case Verdict.SEQUENCE:
        answer = 'sequence'
        flow.sequenceNaks++
        if (flow.nakFrame === 0) flow.nakFrame = frame
        flow.nakRow = flow.nakPsn === psn ? flow.nakRow + 1 : 1
        flow.nakPsn = psn
        break
      case Verdict.REFUSAL:
        answer = 'fatal'
        flow.fatalNaks++
        flow.fatalCode = value
        flow.fatalFrame = frame
        flow.fatalPsn = psn
        this.findRefused(flow)
        break
      default:
        answer = this.#acknowledged(flow, opcode, psn, time, frame)
        flow.isAnswerUncertain = located.hasMore
    }
    // After a fatal NAK, only what has nothing to do with it follows.
    if (flow.lastAnswer !== 'fatal' || answer === 'ack') flow.lastAnswer = answer
    flow.lastAnswerFrame = frame
    flow.lastAnswerTime = time
    if (answer === 'ack' && peer !== undefined) this.#acknowledge(flow, peer, psn, time, frame)
  }

  /** Looks for the request that a NAK refused, if it is known whose it is. */
  findRefused(flow: Flow): void {
    flow.refused = flow.peer && refusedRequest(this.#recent, flow.peer.number, flow.fatalPsn)
  }

  /** What an acknowledgement, or a response, leaves as the last answer. */
  #acknowledged(flow: Flow, opcode: number, psn: number, time: number, frame: number): Answer {
    const { peer } = flow
    const isLast = isLastOfRead[opcode] === 1
    if (isLast && peer !== undefined && peer.reads > 0) peer.reads--
    const isResponse = isReadResponse[opcode] === 1
    const ahead = flow.ackedPsn < 0 ? 1 : psnDifference(psn, flow.ackedPsn)
    if (ahead > 0) {
      if (flow.ackedPsn < 0) flow.firstAckedPsn = psn
      // Within a READ, and before what follows its first response, no PSN may be missing.
      else if (
        ahead > 1 &&
        !flow.isAnswerUncertain &&
        (flow.isResponseOpen || (isResponse && startsMessage[opcode] === 0))
      ) {
        if (flow.missingResponses === 0) flow.missingFrame = frame
        flow.missingResponses += ahead - 1
        flow.missingPsn = (flow.ackedPsn + 1) & 0xff_ffff
        flow.missingTime = time
      }
      flow.isResponseOpen = isResponse && !isLast
      flow.ackedPsn = psn
      flow.nakRow = 0
      flow.rnrRow = 0
      return 'ack'
    }
    flow.duplicateAcks++
    if (peer?.former !== undefined && !isResponse && psnDifference(psn, peer.former.lastPsn) > 0) {
      peer.former.answers++
      peer.former.answerFrame = frame
      peer.former.answerPsn = psn
    }
    if (peer?.repeats !== undefined && (isLast || !isResponse)) answeredAgain(peer.repeats, psn, time)
    // A duplicate of an acknowledgement says nothing about what follows a NAK.
    return flow.lastAnswer === 'rnr' || flow.lastAnswer === 'sequence' ? flow.lastAnswer : 'ack'
  }

  /** Whether the capture has an answer twice: no request was sent between, or nobody sends such a NAK twice. */
  #isCopy(
    flow: Flow,
    { length, identification }: Located,
    opcode: number,
    psn: number,
    aeth: number,
    time: number,
    frame: number,
  ): boolean {
    const identity =
      (Math.imul(aeth ^ psn, 0x9e37_79b1) ^ Math.imul(identification + (opcode << 16), 0x85eb_ca6b) ^ length) | 0
    const syndrome = aeth >>> 24
    const verdict = verdictOf[syndrome]
    if (verdict === Verdict.ACK) {
      const isSame = flow.lastAnswerIdentity === identity && flow.answers > 0
      flow.lastAnswerIdentity = identity
      const since = time - flow.lastAnswerTime
      return isSame && since < COPIED_ACK && (flow.peer?.lastRequestTime ?? 0) <= flow.lastAnswerTime
    }
    flow.lastAnswerIdentity = identity
    const recent = this.#recent
    const before = recent.find(flow.number, Sent.ANSWER, psn)
    const isSame = before >= 0 && recent.identityOf(before) === identity
    // The requester waits as long as an RNR NAK says; a request is refused once.
    const within =
      verdict === Verdict.RNR
        ? 1000 * rnrTimerMicroseconds[syndrome & SYNDROME_VALUE_MASK]
        : verdict === Verdict.REFUSAL && flow.fatalPsn === psn
          ? Number.POSITIVE_INFINITY
          : COPIED_NAK
    if (isSame && time - recent.timeOf(before) < within) return true
    recent.add(flow.number, Sent.ANSWER, psn, time, identity, opcode, -1, frame)
    return false
  }

  #acknowledge(flow: Flow, requester: Flow, psn: number, time: number, frame: number): void {
    const { ring } = requester
    if (ring === undefined) return
    let delay = -1
    let bytes = 0
    if (requester.sentLength > requester.ackedLength && psnDifference(psn, requester.nextPsn) === -1)
      requester.ackedLength = requester.sentLength
    while (requester.ringCount > 0) {
      const at = requester.ringFrom * ENTRY
      if (psnDifference(ring[at], psn) > 0) break
      delay = time - ring[at + 1]
      bytes = ring[at + 2]
      requester.ringFrom = (requester.ringFrom + 1) % RING
      requester.ringCount--
    }
    if (delay < 0) return
    flow.delays++
    flow.delaySum += delay
    if (delay > flow.delayMax) {
      flow.delayMax = delay
      flow.delayFrame = frame
    }
    if (flow.delays <= GROUPS_FROM) return
    const group = SIZE_GROUPS.findIndex(most => bytes <= most)
    const at = GROUP * (group < 0 ? SIZE_GROUPS.length : group)
    flow.delayBySize ??= new Float64Array(GROUP * (SIZE_GROUPS.length + 1))
    flow.delayBySize[at]++
    flow.delayBySize[at + 1] += delay
    if (delay > flow.delayBySize[at + 2]) flow.delayBySize[at + 2] = delay
  }
}
