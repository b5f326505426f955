/*
 * Why the requests of a flow took long.
 */

import { counted } from '../../../base/text.ts'
import { durationText } from '../../../spec/duration.ts'
import { BurstCause, type BurstFacts, type Repeats } from '../flows/bursts.ts'
import type { Flow } from '../flows/flow.ts'
import { copiesIn, frameList, nanoText, type ProblemList, rangeText } from './list.ts'

/** Acknowledged requests from which a mean says something. */
const MIN_MESSAGES = 32
/**
 * A pause of a requester is one that is this long, and so many times as long as the whole of its other time per
 * message.
 */
const MIN_PAUSE = 10e6
const PAUSE_RATIO = 100
/** Share of READs that were sent with as many outstanding as ever. */
const MOST_READS_SHARE = 0.75

const NOTHING: BurstFacts = { bursts: 0, packets: 0, bytes: 0, headBytes: 0, firstFrame: 0, lastFrame: 0 }

/** Bursts of several causes together. */
const sumOf = (facts: readonly BurstFacts[]): BurstFacts =>
  facts
    .filter(({ packets }) => packets > 0)
    .reduce(
      (sum, one) => ({
        bursts: sum.bursts + one.bursts,
        packets: sum.packets + one.packets,
        bytes: sum.bytes + one.bytes,
        headBytes: sum.headBytes + one.headBytes,
        firstFrame: sum.firstFrame === 0 ? one.firstFrame : Math.min(sum.firstFrame, one.firstFrame),
        lastFrame: Math.max(sum.lastFrame, one.lastFrame),
      }),
      NOTHING,
    )

/** What a flow has sent again because it was lost, and why other bursts were not for a loss. */
export const lossesOf = ({ analysis }: ProblemList, flow: Flow, repeats: Repeats) => {
  const [naks, timeouts, atOnce] = [BurstCause.NAK, BurstCause.TIMEOUT, BurstCause.AT_ONCE].map(
    cause => repeats.of[cause],
  )
  // Of the last ones, the second answer may come after the end of the capture.
  let undecided = 0
  for (let i = 0; i < repeats.awaitedCount; i++)
    if (analysis.end - repeats.awaitedAt(i) < 2 * repeats.mostAnswer) undecided++
  const isLate = repeats.spurious > 0 && 2 * repeats.spurious >= timeouts.bursts - undecided
  const isCopied = copiesIn(flow).doubled > flow.doubled
  const lost = sumOf([naks, ...(isLate ? [] : [timeouts]), ...(isCopied ? [] : [atOnce])])
  return { isLate, isCopied, lost }
}

/** What was sent again, and why: lost, or not. */
const addRepeats = (problems: ProblemList, flow: Flow, repeats: Repeats): void => {
  const { peer } = flow
  const isAnswered = peer !== undefined && peer.answers > 0
  if (!isAnswered && !(problems.isOneWay(flow) && repeats.advances > 0)) return
  const [naks, timeouts, implied, atOnce] = [
    BurstCause.NAK,
    BurstCause.TIMEOUT,
    BurstCause.IMPLIED_NAK,
    BurstCause.AT_ONCE,
  ].map(cause => repeats.of[cause])
  const share = ({ bytes }: BurstFacts): string =>
    `${((100 * bytes) / Math.max(1, flow.bytes)).toFixed(1)} % of the bytes`
  const sent = (facts: BurstFacts): string =>
    `${counted(facts.packets, 'packet')} in ${counted(facts.bursts, 'burst')} (${share(facts)}) sent again`
  const waited = repeats.mostTimeout > 0 ? ` of ${rangeText(repeats.leastTimeout, repeats.mostTimeout)}` : ''
  const about = { flow }

  const { isLate, isCopied, lost } = lossesOf(problems, flow, repeats)
  if (isLate)
    problems.add(
      'late-acknowledgements',
      `${sent(timeouts)}, after timeouts${waited}; an answer took ${rangeText(repeats.leastAnswer, repeats.mostAnswer)}; ${repeats.spurious} of the bursts were answered as well as what they repeated, which had not been lost`,
      frameList(timeouts.firstFrame, timeouts.lastFrame),
      timeouts.bytes,
      about,
    )
  if (implied.packets > 0)
    problems.add(
      'implied-nak',
      `${sent(implied)}, ${rangeText(repeats.leastImplied, repeats.mostImplied)} after the first time, at a response to a later PSN and not after a timeout; ${
        peer !== undefined && peer.missingResponses > 0
          ? `${counted(peer.missingResponses, 'response')} ${peer.missingResponses === 1 ? 'is' : 'are'} missing here, the first before frame ${peer.missingFrame}`
          : 'all responses had passed here before, so they were lost behind the capture point'
      }`,
      frameList(peer?.missingFrame ?? 0, implied.firstFrame, implied.lastFrame),
      implied.bytes,
      about,
    )
  if (lost.packets === 0) return
  const before = flow.filled - flow.reordered
  const where =
    before > 0
      ? `${before} of them were missing here before, so they were lost between the sender and the capture point, or the capture missed them`
      : 'all had passed here before, so they, or their answers, were lost behind the capture point'
  const after = [
    ...(naks.bursts > 0 ? [counted(naks.bursts, 'NAK')] : []),
    ...(!isLate && timeouts.bursts > 0 ? [`${counted(timeouts.bursts, 'timeout')}${waited}`] : []),
    ...(!isCopied && atOnce.bursts > 0 ? ['NAKs that the capture lacks'] : []),
  ]
  const hidden =
    (peer?.cutSyndromes ?? 0) > 0
      ? 'the syndromes were not captured'
      : isAnswered
        ? ''
        : 'the answers are not in the capture'
  problems.add(
    'loss',
    `${sent(lost)}, after ${hidden === '' ? after.join(' and ') : `NAKs or timeouts, as ${hidden}`}; ${where}; ${(lost.bytes / Math.max(1, lost.headBytes)).toFixed(1)} bytes were sent again for each byte that was lost, if each burst was for one packet`,
    frameList(lost.firstFrame, isAnswered ? peer.nakFrame : 0, lost.lastFrame),
    lost.bytes,
    about,
  )
}

/** Why requests took long. `isMismatched`: no path can help. */
export const addSlowness = (problems: ProblemList, flow: Flow, isMismatched: boolean): void => {
  const { peer } = flow
  const of = { flow }
  if (peer !== undefined && peer.rnrs > 0)
    problems.add(
      'rnr-waits',
      `${counted(peer.rnrs, 'RNR NAK')}, at most ${peer.mostRnrRow} in a row, which asked to wait for ${durationText(peer.rnrWait)} in all`,
      frameList(peer.rnrFrame, peer.lastRnrFrame),
      peer.rnrWait,
      of,
    )
  if (flow.repeats !== undefined && !isMismatched) addRepeats(problems, flow, flow.repeats)
  if (peer === undefined || peer.delays < MIN_MESSAGES) return
  const mean = peer.delaySum / peer.delays
  const rest = (flow.lastTime - flow.firstTime - flow.idle) / peer.delays
  if (flow.idle > MIN_PAUSE && flow.idle > PAUSE_RATIO * rest)
    problems.add(
      'sender-paused',
      `${nanoText(flow.idle)} before frame ${flow.idleFrame}; without it, a message took ${nanoText(rest)} in the mean`,
      frameList(flow.idleFrame),
      flow.idle,
      of,
    )
  const connected = problems.connectionOf(flow)
  const allowed = connected?.isClient ? connected.connection.clientReads : connected?.connection.serverReads
  const isOften = flow.readRequests >= MIN_MESSAGES && flow.readsAtMost > MOST_READS_SHARE * flow.readRequests
  if (isOften && flow.mostReads > 1 && (allowed === undefined || allowed === flow.mostReads))
    problems.add(
      'reads-limited',
      `${counted(flow.readRequests, 'request')}, never more than ${flow.mostReads} outstanding${allowed === undefined ? '' : ', which is what the connection allows'}; an answer took ${nanoText(mean)} in the mean`,
      frameList(flow.requestFrame),
      flow.readRequests,
      of,
    )
  if (flow.mostOutstanding === 1)
    problems.add(
      'one-in-flight',
      `${counted(peer.delays, 'request')} with one outstanding; an answer took ${nanoText(mean)} in the mean`,
      frameList(flow.requestFrame),
      peer.delays,
      of,
    )
  if (peer.delayMax > 20 * mean && peer.delayMax > 1e6)
    problems.add(
      'slow-answers',
      `the longest took ${nanoText(peer.delayMax)}, and the mean is ${nanoText(mean)}`,
      frameList(peer.delayFrame),
      peer.delayMax,
      of,
    )
}
