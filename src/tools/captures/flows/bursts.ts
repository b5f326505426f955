/*
 * What is known of packets of a flow that came again or late (repeats.ts).
 */

/**
 * Why packets were sent again. TIMEOUT: no answer in the capture asked for them. AT_ONCE: nor is any timer so short;
 * copies, or the capture lacks the answer.
 */
export const BurstCause = { NAK: 0, TIMEOUT: 1, IMPLIED_NAK: 2, RNR: 3, REORDERED: 4, AT_ONCE: 5 } as const

const CAUSES = Object.keys(BurstCause).length
/** Bursts after timeouts of which answers are awaited. */
export const AWAITED = 8

/** What is asked of a request packet. The tracker uses one object for all packets. */
export interface RequestPacket {
  opcode: number
  kind: number
  psn: number
  /** The PSN after it: a READ has one for each response. */
  end: number
  /** Of the transport packet. */
  bytes: number
  payload: number
  /** Bytes of the message, as its RETH says; -1: it has none, or it was not captured. */
  length: number
  identification: number
  /** Equal for a packet and its repetition. */
  identity: number
  /** As `identity`, of data that the packet brings. */
  content: number
  time: number
  frame: number
  /** Nanoseconds since its PSN was sent, or the READ one of whose responses has it; -1: not known. */
  since: number
  /** A packet with its PSN was sent; and the last one was the same. */
  isKnown: boolean
  isSame: boolean
  /** The last packet with its PSN had another opcode, or other data behind its headers. */
  isChanged: boolean
}

export interface BurstFacts {
  bursts: number
  packets: number
  bytes: number
  /** Of the first packets of the bursts: what was lost, at least. */
  headBytes: number
  firstFrame: number
  lastFrame: number
}

/**
 * Of bursts that began with a missing packet, and of packets that came late or are left out, the last ones are kept.
 */
export const KEPT = 32

/** A burst whose first packet was missing before: its original may come late. */
export interface MissingBurst {
  readonly psn: number
  readonly cause: number
  packets: number
  bytes: number
  readonly headBytes: number
}

/** What a flow has of packets that came again or late. Times are nanoseconds, frames those of the capture. */
export class Repeats {
  /** By BurstCause. */
  readonly of: readonly BurstFacts[] = Array.from({ length: CAUSES }, () => ({
    bursts: 0,
    packets: 0,
    bytes: 0,
    headBytes: 0,
    firstFrame: 0,
    lastFrame: 0,
  }))
  /** Bursts that begin behind the one before, after new packets: what lies between was acknowledged. */
  advances = 0
  /** The next new PSN at the last burst. */
  nextPsn = -1
  /** From a packet to its repeat after a timeout. */
  leastTimeout = Number.POSITIVE_INFINITY
  mostTimeout = 0
  /** From a READ or atomic to its repeat after an implied NAK. */
  leastImplied = Number.POSITIVE_INFINITY
  mostImplied = 0
  /** Bursts after timeouts whose packets were answered twice: they had not been lost. */
  spurious = 0
  /** From a burst to its answer, of those. */
  leastAnswer = Number.POSITIVE_INFINITY
  mostAnswer = 0

  /** The packet that waits, and what was known when it came. */
  waiting: RequestPacket | undefined
  isWaiting = false
  waitingAcked = -1
  waitingAnswerTime = 0
  waitingNaks = 0
  waitingRnrs = 0
  /** It fills a hole. */
  isFill = false
  /** It is behind the last packet of a burst. */
  isWithin = false
  /** A NAK or RNR NAK had come that no burst has answered. */
  isAsked = false
  /** It came again sooner than a timer ends. */
  isSoon = false

  // The burst that was last.
  cause: number = BurstCause.TIMEOUT
  /** If it began with a packet that was missing before. */
  burst: MissingBurst | undefined
  /** The last ones of these. */
  readonly missing: MissingBurst[] = []
  /** The last packets that came late, alone. */
  readonly late: number[] = []
  /** The last PSNs that bursts left out, or filled: their originals may come late. */
  readonly leftOut: number[] = []
  /** Sequence NAKs and RNR NAKs of the peer that have led to a burst. */
  naks = 0
  rnrs = 0
  /** The last one of them whose PSN a burst has begun with. */
  answeredNak = 0
  /** Time and first PSN of bursts after timeouts. */
  readonly awaited = new Float64Array(2 * AWAITED)
  awaitedFrom = 0
  awaitedCount = 0

  /** The time of an awaited burst, from the oldest, 0, on. */
  awaitedAt(number: number): number {
    return this.awaited[2 * ((this.awaitedFrom + number) % AWAITED)]
  }
}
