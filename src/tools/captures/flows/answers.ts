/*
 * What answers tell of the flow of their requests: what is acknowledged and refused, and how long it took.
 */
import {
  headers,
  nakCode,
  rnrTimerMicroseconds,
  SYNDROME_KIND_MASK,
  SYNDROME_VALUE_MASK,
  syndromeKind,
} from '../../../spec/wire/headers.ts'
import { psnDifference } from '../../../transport/wire/bth.ts'
import type { RawPacket } from '../file.ts'
import type { Located } from '../locate.ts'
import { type Answer, ENTRY, type Flow, GROUP, hasAeth, isLastOfRead, RING, SIZE_GROUPS } from './flow.ts'
import type { PairTable } from './pairs.ts'

/** Answers from which on they are grouped by size: a capture may have 100,000 flows. */
const GROUPS_FROM = 64

export class AnswerTracker {
  readonly #pairs: PairTable

  constructor(pairs: PairTable) {
    this.#pairs = pairs
  }

  add(flow: Flow, packet: RawPacket, located: Located, opcode: number, psn: number, time: number): void {
    const { frame } = packet
    if (flow.peer === undefined) this.#pairs.pairByPsn(flow, psn)
    if (flow.answers++ === 0) flow.firstAnswerFrame = frame
    const isKnown = hasAeth[opcode] === 0 || located.captured >= headers.BTH.bytes + 1
    const syndrome = hasAeth[opcode] === 1 && isKnown ? packet.arena.view.getUint8(located.at + headers.BTH.bytes) : 0
    const kind = syndrome & SYNDROME_KIND_MASK
    const value = syndrome & SYNDROME_VALUE_MASK
    let answer: Answer = 'ack'
    if (isLastOfRead[opcode] === 1 && flow.peer !== undefined && flow.peer.reads > 0) flow.peer.reads--
    if (kind === syndromeKind.RNR_NAK) {
      answer = 'rnr'
      if (flow.rnrs++ === 0) flow.rnrFrame = frame
      flow.lastRnrFrame = frame
      flow.rnrRow = flow.rnrPsn === psn && flow.rnrRow > 0 ? flow.rnrRow + 1 : 1
      if (flow.rnrRow > flow.mostRnrRow) flow.mostRnrRow = flow.rnrRow
      flow.rnrPsn = psn
      flow.rnrWait += rnrTimerMicroseconds[value]
    } else if (kind === syndromeKind.NAK) {
      answer = value === nakCode.PSN_SEQUENCE ? 'sequence' : 'fatal'
      if (answer === 'fatal') {
        flow.fatalNaks++
        flow.fatalCode = value
        flow.fatalFrame = frame
        flow.fatalPsn = psn
      } else {
        flow.sequenceNaks++
        if (flow.nakFrame === 0) flow.nakFrame = frame
        flow.nakRow = flow.nakPsn === psn ? flow.nakRow + 1 : 1
        flow.nakPsn = psn
      }
    } else if (flow.ackedPsn < 0 || psnDifference(psn, flow.ackedPsn) > 0) {
      if (flow.ackedPsn < 0) flow.firstAckedPsn = psn
      flow.ackedPsn = psn
      flow.nakRow = 0
      flow.rnrRow = 0
    } else {
      flow.duplicateAcks++
      // A duplicate of an acknowledgement says nothing about what follows a NAK.
      if (flow.lastAnswer === 'rnr' || flow.lastAnswer === 'sequence') answer = flow.lastAnswer
    }
    // After a fatal NAK, only what has nothing to do with it follows.
    if (flow.lastAnswer !== 'fatal' || answer === 'ack') flow.lastAnswer = answer
    flow.lastAnswerFrame = frame
    flow.lastAnswerTime = time
    if (answer === 'ack' && flow.peer !== undefined) this.#acknowledge(flow, flow.peer, psn, time, frame)
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
