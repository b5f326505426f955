/*
 * Packets that come again, or late: why they were sent again, or that nobody sent them again.
 *
 * - The path doubled a packet if it comes again sooner than any timer, and nothing asked for it: no sender repeats it. A
 *   sender without a NAK begins with the oldest packet that is not acknowledged, and goes on from there (go-back-N).
 * - A packet that was missing and comes alone took another path: a sender that repeats it repeats what follows, too.
 * - Else it is the first of a burst: after a NAK, an RNR NAK, a response that showed that another one is missing (implied
 *   NAK), or a timeout. If the answers to both, the packet and its repeat, come after a timeout, nothing was lost.
 *
 * Some of this is only known when the next packet comes; until then the packet waits.
 */
import { transportBits } from '../../../spec/wire/opcodes.ts'
import { psnDifference } from '../../../transport/wire/bth.ts'
import { AWAITED, BurstCause, Repeats, type RequestPacket } from './bursts.ts'
import type { Flow } from './flow.ts'
import type { IncastTable } from './incast.ts'

/** A packet that comes again within so many nanoseconds was doubled, also if it is the oldest one: no timer is so short. */
const DOUBLED_AT_ONCE = 20_000
/** Within this time a packet may have been doubled: adapters' timers are longer, if the connection does not say. */
const DOUBLED_WITHIN = 1e6
/** No path delays a double for longer. */
const LONGEST_DOUBLE = 20e6
/** A requester repeats a READ so soon after the response that shows that another one is missing; its timer is mostly longer. */
const IMPLIED_WITHIN = 25e6
/** Kinds of messages from this one on are answered with data: a READ, or an atomic. */
const FIRST_ANSWERED_KIND = 2
const [YES, NO, MAYBE] = [0, 1, 2] as const
/** PSNs around the first one of a burst within which it is the same burst once more. */
const SAME_HEAD = 16

/** Counts a packet that nobody sent again. */
export const countDouble = (flow: Flow, { frame, since }: Pick<RequestPacket, 'frame' | 'since'>): void => {
  if (flow.doubled++ === 0) flow.doubledFrame = frame
  if (since < 0) return
  if (since < flow.leastDoubled) flow.leastDoubled = since
  if (since > flow.mostDoubled) flow.mostDoubled = since
}

/** An answer to a PSN that was answered before. */
export const answeredAgain = (repeats: Repeats, psn: number, time: number): void => {
  if (repeats.awaitedCount === 0) return
  const at = 2 * repeats.awaitedFrom
  if (psnDifference(repeats.awaited[at + 1], psn) > 0) return
  const took = time - repeats.awaited[at]
  repeats.awaitedFrom = (repeats.awaitedFrom + 1) % AWAITED
  repeats.awaitedCount--
  repeats.spurious++
  if (took < repeats.leastAnswer) repeats.leastAnswer = took
  if (took > repeats.mostAnswer) repeats.mostAnswer = took
}

export class RepeatTracker {
  readonly #incast: IncastTable
  /** Nanoseconds of the ACK timeout of a flow's connection; 0: not known. */
  readonly #timeoutOf: (flow: Flow) => number
  /** Counts the message of a packet that comes late. */
  readonly #onFilled: (flow: Flow, packet: RequestPacket) => void

  constructor(
    incast: IncastTable,
    timeoutOf: (flow: Flow) => number,
    onFilled: (flow: Flow, packet: RequestPacket) => void,
  ) {
    this.#incast = incast
    this.#timeoutOf = timeoutOf
    this.#onFilled = onFilled
  }

  /**
   * The next request packet of the flow is `packet`, undefined: there is none. `isNew`: its PSN was not sent before. Returns
   * whether the packet that waited was sent again.
   */
  decide(flow: Flow, repeats: Repeats, packet: RequestPacket | undefined, isNew: boolean): boolean {
    const waiting = repeats.waiting!
    repeats.isWaiting = false
    const isBurst = packet !== undefined && !isNew && packet.psn === waiting.end
    if (isBurst) this.#begin(flow, repeats, waiting)
    else if (repeats.isFill) this.#late(flow, repeats, waiting)
    else this.#double(flow, repeats, waiting)
    return isBurst
  }

  /**
   * A packet whose PSN was sent before, or is missing. `isFill`: it was missing. True: it counts as sent, false: nobody has
   * sent it, or it waits.
   */
  add(flow: Flow, packet: RequestPacket, isFill: boolean): boolean {
    flow.repeats ??= new Repeats()
    const { repeats } = flow
    const { psn } = packet
    // The next one of a burst.
    if (psn === ((flow.lastPsn + 1) & 0xff_ffff) && flow.bursts > 0 && flow.lastRequestFrame === flow.lastRepeatFrame) {
      if (isFill) this.#fill(flow, packet)
      this.#count(flow, repeats, packet)
      return true
    }
    const { peer } = flow
    repeats.waitingAcked = peer?.ackedPsn ?? -1
    repeats.waitingAnswerTime = peer?.lastAnswerTime ?? -1
    repeats.waitingNaks = peer?.sequenceNaks ?? 0
    repeats.waitingRnrs = peer?.rnrs ?? 0
    repeats.waitingSince = packet.since
    repeats.isFill = isFill
    if (!isFill) {
      const doubled = this.#canBeDoubled(flow, repeats, packet)
      if (doubled === YES) this.#double(flow, repeats, packet)
      if (doubled === NO) this.#begin(flow, repeats, packet)
      if (doubled !== MAYBE) return doubled === NO
    }
    // A datagram of a service without acknowledgements is never sent again.
    if (flow.service === transportBits.UC) {
      if (isFill) this.#late(flow, repeats, packet)
      else this.#double(flow, repeats, packet)
      return false
    }
    repeats.waiting ??= { ...packet }
    Object.assign(repeats.waiting, packet)
    repeats.isWaiting = true
    return false
  }

  #canBeDoubled(flow: Flow, repeats: Repeats, packet: RequestPacket): number {
    const { peer } = flow
    const { psn, since } = packet
    const isOriginal = repeats.beganMissing && psn === flow.headPsn
    if (!packet.isSame && !isOriginal) return NO
    const isAsked =
      peer !== undefined &&
      ((repeats.waitingNaks > repeats.naks && peer.nakPsn === psn) ||
        (repeats.waitingRnrs > repeats.rnrs && peer.rnrPsn === psn))
    if (isAsked) return NO
    if (isOriginal) return MAYBE
    if (since < DOUBLED_AT_ONCE) return YES
    const isLast =
      psn === flow.lastPsn && packet.identification !== 0 && repeats.waitingAnswerTime < packet.time - since
    if (isLast) return YES
    if (flow.service !== transportBits.RC && flow.service !== transportBits.XRC && flow.service !== transportBits.UC)
      return NO
    const timeout = this.#timeoutOf(flow)
    if (since >= (timeout > 0 ? Math.min(timeout, LONGEST_DOUBLE) : DOUBLED_WITHIN)) return NO
    if (peer === undefined) return MAYBE
    const acked = repeats.waitingAcked
    return psn === (acked < 0 ? flow.firstPsn : (acked + 1) & 0xff_ffff) ? MAYBE : YES
  }

  #double(flow: Flow, repeats: Repeats, packet: RequestPacket): void {
    if (!repeats.beganMissing || packet.psn !== flow.headPsn) {
      countDouble(flow, packet)
      return
    }
    // The late original of a packet that was sent again.
    const { burstPackets, burstBytes } = repeats
    this.#takeBack(flow, repeats)
    const to = repeats.of[BurstCause.REORDERED]
    to.bursts++
    to.packets += burstPackets
    to.bytes += burstBytes
    repeats.cause = BurstCause.REORDERED
    if (flow.reordered++ === 0) flow.reorderFrame = packet.frame
  }

  /** The last burst was none of its cause. */
  #takeBack(flow: Flow, repeats: Repeats): void {
    repeats.beganMissing = false
    const from = repeats.of[repeats.cause]
    from.bursts--
    from.packets -= repeats.burstPackets
    from.bytes -= repeats.burstBytes
    from.headBytes -= flow.headLength
  }

  #fill(flow: Flow, packet: RequestPacket): void {
    flow.filled++
    this.#onFilled(flow, packet)
  }

  /** A packet that was missing, and comes alone. */
  #late(flow: Flow, repeats: Repeats, packet: RequestPacket): void {
    const { peer } = flow
    // A responder that takes packets out of order may have asked for this one alone.
    if (peer !== undefined && repeats.waitingNaks > repeats.naks && peer.nakPsn === packet.psn) {
      this.#begin(flow, repeats, packet)
      return
    }
    this.#fill(flow, packet)
    repeats.latePsn = packet.psn
    if (flow.reordered++ === 0) flow.reorderFrame = packet.frame
  }

  /** The first packet of a burst. */
  #begin(flow: Flow, repeats: Repeats, packet: RequestPacket): void {
    const { psn, bytes, frame, time } = packet
    const acked = repeats.waitingAcked
    // What came alone was the late original, and this is what the NAK asked for.
    if (
      repeats.beganMissing &&
      psn === flow.headPsn &&
      repeats.burstPackets === 1 &&
      repeats.cause === BurstCause.NAK
    ) {
      this.#takeBack(flow, repeats)
      if (flow.reordered++ === 0) flow.reorderFrame = flow.lastRepeatFrame
      repeats.latePsn = psn
      if (repeats.waitingNaks === repeats.naks) repeats.naks--
    }
    if (repeats.isFill) this.#fill(flow, packet)
    repeats.beganMissing = repeats.isFill
    repeats.burstPackets = 0
    repeats.burstBytes = 0
    repeats.cause = this.#causeOf(flow, repeats, packet)
    repeats.naks = repeats.waitingNaks
    repeats.rnrs = repeats.waitingRnrs
    repeats.of[repeats.cause].bursts++
    repeats.of[repeats.cause].headBytes += bytes
    // Times of a packet that was sent more than once say nothing.
    flow.ringCount = 0
    flow.reads = 0
    flow.bursts++
    const ahead = flow.headPsn < 0 ? 0 : psnDifference(psn, flow.headPsn)
    const isAdvance = ahead > 0 && flow.nextPsn !== repeats.nextPsn
    repeats.nextPsn = flow.nextPsn
    if (isAdvance) repeats.advances++
    // The capture lacks the first packets of the burst before.
    else if (ahead < 0) repeats.advances = 0
    const hasProgress =
      flow.headPsn < 0 || (acked >= 0 ? psnDifference(acked, flow.headPsn) >= 0 : flow.peer === undefined && isAdvance)
    if (!hasProgress && Math.abs(ahead) < SAME_HEAD) {
      flow.tries++
      if (ahead < 0) flow.headPsn = psn
      flow.headLength = bytes
    } else {
      flow.headPsn = psn
      flow.headLength = bytes
      flow.tries = 1
      flow.firstTryFrame = frame
    }
    if (flow.tries > flow.mostTries) flow.mostTries = flow.tries
    this.#count(flow, repeats, packet)
    flow.lastPsn = (packet.end - 1) & 0xff_ffff
    flow.lastRequestFrame = frame
    flow.lastRequestTime = time
  }

  #causeOf(flow: Flow, repeats: Repeats, { psn, kind, since, time }: RequestPacket): number {
    const { peer } = flow
    // What follows a packet without a receive is out of order, too.
    if (repeats.waitingRnrs > repeats.rnrs) return BurstCause.RNR
    const isNak = repeats.waitingNaks > repeats.naks
    if (isNak) return repeats.latePsn === psn ? BurstCause.REORDERED : BurstCause.NAK
    const acked = repeats.waitingAcked
    if (peer !== undefined && kind >= FIRST_ANSWERED_KIND && acked >= 0 && psnDifference(acked, psn) > 0) {
      const delay = time - (peer.missingPsn === psn ? peer.missingTime : repeats.waitingAnswerTime)
      const timeout = this.#timeoutOf(flow)
      if (delay < (timeout > 0 ? timeout : IMPLIED_WITHIN)) {
        const sent = since < 0 ? delay : since
        if (sent < repeats.leastImplied) repeats.leastImplied = sent
        if (sent > repeats.mostImplied) repeats.mostImplied = sent
        return BurstCause.IMPLIED_NAK
      }
    }
    if (since >= 0 && since < DOUBLED_WITHIN) return BurstCause.AT_ONCE
    if (since >= 0) {
      if (since < repeats.leastTimeout) repeats.leastTimeout = since
      if (since > repeats.mostTimeout) repeats.mostTimeout = since
    }
    // An answer that was here before the timeout is late, or lost, behind this point.
    if (acked < 0 || psnDifference(psn, acked) > 0) this.#await(repeats, time, psn)
    return BurstCause.TIMEOUT
  }

  #await(repeats: Repeats, time: number, psn: number): void {
    if (repeats.awaitedCount === AWAITED) repeats.awaitedFrom = (repeats.awaitedFrom + 1) % AWAITED
    else repeats.awaitedCount++
    const at = 2 * ((repeats.awaitedFrom + repeats.awaitedCount - 1) % AWAITED)
    repeats.awaited[at] = time
    repeats.awaited[at + 1] = psn
  }

  #count(flow: Flow, repeats: Repeats, { bytes, frame }: RequestPacket): void {
    if (flow.repeated++ === 0) flow.repeatFrame = frame
    flow.repeatedBytes += bytes
    flow.lastRepeatFrame = frame
    repeats.burstPackets++
    repeats.burstBytes += bytes
    const facts = repeats.of[repeats.cause]
    if (facts.packets++ === 0) facts.firstFrame = frame
    facts.bytes += bytes
    facts.lastFrame = frame
    this.#incast.trouble(flow.destination)
  }
}
