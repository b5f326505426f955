/*
 * Packets that come again, or late: why they were sent again, or that nobody sent them again.
 *
 * - The path doubled a packet if it comes again sooner than any timer, and nothing asked for it: no sender repeats it.
 *   A sender without a NAK begins with the oldest packet that is not acknowledged, and goes on from there (go-back-N).
 * - A packet that was missing and comes alone took another path: a sender that repeats it repeats what follows, too.
 * - Else it is the first of a burst: after a NAK, an RNR NAK, a response that showed that another one is missing
 *   (implied NAK), or a timeout. If the answers to both, the packet and its repeat, come after a timeout, nothing was
 *   lost.
 *
 * Some of this is only known when the next packet comes; until then the packet waits.
 */
import { transportBits } from '../../../spec/wire/opcodes.ts'
import { psnDifference } from '../../../transport/wire/bth.ts'
import { AWAITED, BurstCause, KEPT, type MissingBurst, Repeats, type RequestPacket } from './bursts.ts'
import type { Flow } from './flow.ts'
import type { IncastTable } from './incast.ts'

/**
 * A packet that comes again within so many nanoseconds was doubled, also if it is the oldest one: no timer is so short.
 */
const DOUBLED_AT_ONCE = 20_000
/** Within this time a packet may have been doubled: adapters' timers are longer, if the connection does not say. */
const DOUBLED_WITHIN = 1e6
/** Also where the connection says how long its timer is. */
const LONGEST_DOUBLE = 20e6
/** A double that is not the oldest packet may be so late: the requester's timer would repeat the oldest. */
const LONGEST_LATE = 1e9
/**
 * A requester repeats a READ so soon after the response that shows that another one is missing; its timer is mostly
 * longer.
 */
const IMPLIED_WITHIN = 25e6
/** Kinds of messages from this one on are answered with data: a READ, or an atomic. */
const FIRST_ANSWERED_KIND = 2
/** Packets in a row that a burst left out, and that may come late. */
const MOST_LATE = 8
const [DOUBLED, AGAIN, WAITS] = [0, 1, 2] as const
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

/** The last NAK asked for this PSN, and no burst has begun with it since: two NAKs may lead to two bursts. */
const isAnswerToNak = ({ peer }: Flow, { waitingNaks, answeredNak }: Repeats, psn: number): boolean =>
  peer !== undefined && peer.nakPsn === psn && waitingNaks > answeredNak

/** The last request packet was one of a burst. */
const isInBurst = (flow: Flow): boolean => flow.bursts > 0 && flow.lastRequestFrame === flow.lastRepeatFrame

/** Adds to the last ones of a list. */
const keep = <T>(list: T[], one: T): void => {
  list.push(one)
  if (list.length > KEPT) list.shift()
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
   * The next request packet of the flow is `packet`, undefined: there is none. `isNew`: its PSN was not sent before.
   * Returns whether the packet that waited was sent again.
   */
  decide(flow: Flow, repeats: Repeats, packet: RequestPacket | undefined, isNew: boolean): boolean {
    const waiting = repeats.waiting!
    repeats.isWaiting = false
    // After an answer and a pause, it is another burst that begins there.
    const isOther =
      packet !== undefined &&
      packet.time - waiting.time > DOUBLED_WITHIN &&
      (flow.peer?.lastAnswerTime ?? -1) > waiting.time
    // What a NAK asked for may lack packets, as everything else; but one late packet may follow another.
    const isNext =
      packet !== undefined &&
      (packet.psn === waiting.end ||
        (repeats.isAsked &&
          psnDifference(packet.psn, waiting.psn) > 0 &&
          packet.isKnown &&
          !repeats.leftOut.includes(packet.psn)))
    const isFollowed = isNext && !isNew && !isOther
    if (!isFollowed) {
      if (repeats.isFill) return this.#late(flow, repeats, waiting)
      const burst = repeats.missing.find(({ psn }) => psn === waiting.psn)
      if (burst !== undefined) return this.#lateOriginal(flow, repeats, burst, waiting)
      if (repeats.leftOut.includes(waiting.psn)) return this.#reordered(flow, repeats, waiting)
      // A requester that sends the last packet again has none to follow it.
      if (repeats.isSoon || waiting.end !== flow.nextPsn) return this.#double(flow, waiting)
    }
    if (isFollowed && repeats.isWithin) return this.#goOn(flow, repeats, waiting)
    return this.#begin(flow, repeats, waiting)
  }

  /** The next packet of a burst; the capture may lack some of it. */
  #goOn(flow: Flow, repeats: Repeats, packet: RequestPacket): boolean {
    if (repeats.isFill) {
      this.#fill(flow, packet)
      keep(repeats.leftOut, packet.psn)
    }
    this.#leaveOut(flow, repeats, packet.psn)
    this.#count(flow, repeats, packet)
    flow.lastPsn = (packet.end - 1) & 0xff_ffff
    flow.lastRequestFrame = packet.frame
    flow.lastRequestTime = packet.time
    return true
  }

  /**
   * A packet whose PSN was sent before, or is missing. `isFill`: it was missing. True: it counts as sent, false: nobody
   * has sent it, or it waits.
   */
  add(flow: Flow, packet: RequestPacket, isFill: boolean): boolean {
    flow.repeats ??= new Repeats()
    const { repeats, peer } = flow
    const { psn } = packet
    repeats.waitingAcked = peer?.ackedPsn ?? -1
    repeats.waitingAnswerTime = peer?.lastAnswerTime ?? -1
    repeats.waitingNaks = peer?.sequenceNaks ?? 0
    repeats.waitingRnrs = peer?.rnrs ?? 0
    repeats.isFill = isFill
    const ahead = psnDifference(psn, flow.lastPsn)
    repeats.isWithin = isInBurst(flow) && ahead > 0
    // What was alone until a NAK asks for the next packet came late.
    const isSecond = repeats.burst?.packets === 1 && isAnswerToNak(flow, repeats, psn)
    if (repeats.isWithin && !isSecond && (ahead === 1 || !(isFill || repeats.leftOut.includes(psn))))
      return this.#goOn(flow, repeats, packet)
    repeats.isAsked = repeats.waitingNaks > repeats.naks || repeats.waitingRnrs > repeats.rnrs
    const { UC } = transportBits
    const state = isFill ? WAITS : this.#stateOf(flow, repeats, packet)
    // A packet of a service without acknowledgements is never sent again.
    if (state === DOUBLED || (flow.service === UC && !isFill)) return this.#double(flow, packet)
    if (flow.service === UC) return this.#late(flow, repeats, packet)
    if (state === AGAIN) return this.#begin(flow, repeats, packet)
    repeats.waiting ??= { ...packet }
    Object.assign(repeats.waiting, packet)
    repeats.isWaiting = true
    return false
  }

  /** A new packet, in order: a burst is over. */
  onNew(flow: Flow, repeats: Repeats, psn: number): void {
    if (isInBurst(flow)) this.#leaveOut(flow, repeats, psn)
  }

  /** The burst goes on with `psn`: what lies between is missing, or comes late. */
  #leaveOut(flow: Flow, repeats: Repeats, psn: number): void {
    const missing = psnDifference(psn, flow.lastPsn) - 1
    for (let i = Math.max(1, missing - KEPT + 1); i <= missing; i++)
      keep(repeats.leftOut, (flow.lastPsn + i) & 0xff_ffff)
  }

  /** What a packet is that was sent before: doubled, or sent again; or the next packet tells. */
  #stateOf(flow: Flow, repeats: Repeats, packet: RequestPacket): number {
    const { peer, service } = flow
    const { psn, since } = packet
    const timeout = this.#timeoutOf(flow)
    repeats.isSoon = since < (timeout > 0 ? Math.min(timeout, LONGEST_DOUBLE) : DOUBLED_WITHIN)
    if (repeats.leftOut.includes(psn) || repeats.missing.some(burst => burst.psn === psn)) return WAITS
    if (isAnswerToNak(flow, repeats, psn) || (repeats.isAsked && peer?.rnrPsn === psn)) return AGAIN
    if (!packet.isSame) return AGAIN
    if (since < DOUBLED_AT_ONCE) return DOUBLED
    // A later response since it was sent may have asked for it (implied NAK).
    const isBehind = repeats.waitingAcked >= 0 && psnDifference(repeats.waitingAcked, psn) > 0
    const isImplied = packet.kind >= FIRST_ANSWERED_KIND && isBehind
    if (isImplied && repeats.waitingAnswerTime > packet.time - since) return AGAIN
    if (service !== transportBits.RC && service !== transportBits.XRC && service !== transportBits.UC) return AGAIN
    if (repeats.isAsked) return WAITS
    const isLast = psn === flow.lastPsn && packet.identification !== 0
    if (isLast && repeats.waitingAnswerTime < packet.time - since) return DOUBLED
    // Without the answers, a NAK may have asked for it.
    if (peer === undefined || peer.cutSyndromes > 0) return since < LONGEST_LATE ? WAITS : AGAIN
    const acked = repeats.waitingAcked
    const isOldest = psn === (acked < 0 ? flow.firstPsn : (acked + 1) & 0xff_ffff)
    if (isOldest) return repeats.isSoon ? WAITS : AGAIN
    if (repeats.isSoon) return DOUBLED
    return since < LONGEST_LATE ? WAITS : AGAIN
  }

  /** Each of these returns whether the packet was sent again. */
  #double(flow: Flow, packet: RequestPacket): boolean {
    countDouble(flow, packet)
    return false
  }

  /** The late original of a packet that was missing, and with which a burst began. */
  #lateOriginal(flow: Flow, repeats: Repeats, burst: MissingBurst, packet: RequestPacket): boolean {
    this.#takeBack(repeats, burst)
    const to = repeats.of[BurstCause.REORDERED]
    to.bursts++
    to.packets += burst.packets
    to.bytes += burst.bytes
    return this.#reordered(flow, repeats, packet)
  }

  #reordered(flow: Flow, repeats: Repeats, { psn, frame }: Pick<RequestPacket, 'psn' | 'frame'>): boolean {
    keep(repeats.late, psn)
    if (flow.reordered++ === 0) flow.reorderFrame = frame
    return false
  }

  /** A burst was none of its cause. */
  #takeBack(repeats: Repeats, burst: MissingBurst): void {
    const from = repeats.of[burst.cause]
    from.bursts--
    from.packets -= burst.packets
    from.bytes -= burst.bytes
    from.headBytes -= burst.headBytes
    repeats.missing.splice(repeats.missing.indexOf(burst), 1)
    if (repeats.burst !== burst) return
    repeats.burst = undefined
    repeats.cause = BurstCause.REORDERED
  }

  #fill(flow: Flow, packet: RequestPacket): void {
    flow.filled++
    this.#onFilled(flow, packet)
  }

  /** A packet that was missing, and comes alone. */
  #late(flow: Flow, repeats: Repeats, packet: RequestPacket): boolean {
    const { peer } = flow
    // A responder that takes packets out of order may have asked for this one alone.
    if (peer !== undefined && repeats.waitingNaks > repeats.naks && peer.nakPsn === packet.psn)
      return this.#begin(flow, repeats, packet)
    this.#fill(flow, packet)
    return this.#reordered(flow, repeats, packet)
  }

  /** The first packet of a burst. */
  #begin(flow: Flow, repeats: Repeats, packet: RequestPacket): boolean {
    const { psn, bytes, frame, time } = packet
    const acked = repeats.waitingAcked
    const before = repeats.burst
    // What came alone was the late original, and this is what the NAK asked for, or one for the next packet.
    const after = before === undefined ? -1 : psnDifference(psn, before.psn)
    if (before?.packets === 1 && before.cause === BurstCause.NAK && (after === 0 || after === 1)) {
      this.#takeBack(repeats, before)
      this.#reordered(flow, repeats, { psn: before.psn, frame: flow.lastRepeatFrame })
      if (repeats.waitingNaks === repeats.naks) repeats.naks--
    }
    repeats.cause = this.#causeOf(flow, repeats, packet)
    repeats.burst = undefined
    if (repeats.isFill) {
      this.#fill(flow, packet)
      repeats.burst = { psn, cause: repeats.cause, packets: 0, bytes: 0, headBytes: bytes }
      keep(repeats.missing, repeats.burst)
    }
    // The requester begins with what the NAK asked for.
    const { peer } = flow
    if (peer !== undefined && repeats.waitingNaks > repeats.naks) {
      const missing = psnDifference(psn, peer.nakPsn)
      if (missing <= MOST_LATE) for (let i = missing; i > 0; i--) keep(repeats.leftOut, (psn - i) & 0xff_ffff)
    }
    if (peer?.nakPsn === psn) repeats.answeredNak = repeats.waitingNaks
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
    return true
  }

  #causeOf(flow: Flow, repeats: Repeats, { psn, kind, since, time }: RequestPacket): number {
    const { peer } = flow
    // What follows a packet without a receive is out of order, too.
    if (repeats.waitingRnrs > repeats.rnrs) return BurstCause.RNR
    // A responder drops what follows a late packet: it asks for that, or for the next one, or waits for it.
    if (repeats.late.includes(psn) || repeats.late.includes((psn - 1) & 0xff_ffff)) return BurstCause.REORDERED
    if (repeats.waitingNaks > repeats.naks || isAnswerToNak(flow, repeats, psn)) return BurstCause.NAK
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
    if (repeats.burst !== undefined) {
      repeats.burst.packets++
      repeats.burst.bytes += bytes
    }
    const facts = repeats.of[repeats.cause]
    if (facts.packets++ === 0) facts.firstFrame = frame
    facts.bytes += bytes
    facts.lastFrame = frame
    this.#incast.trouble(flow.destination)
  }
}
