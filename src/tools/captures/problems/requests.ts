/*
 * Whether the requests of a flow failed, by their answers or by their silence.
 */
import { counted, hex } from '../../../base/text.ts'
import type { CaptureCause } from '../../../spec/captures.ts'
import { refusalOf } from '../../../spec/naks.ts'
import { nakCode } from '../../../spec/wire/headers.ts'
import { FULL_MEMBER } from '../../../spec/wire/subnet.ts'
import { psnDifference } from '../../../transport/wire/bth.ts'
import { type Flow, messageKinds } from '../flows/flow.ts'
import type { Refused } from '../flows/refused.ts'
import { frameList, nanoText, type ProblemList, times } from './list.ts'

/** rnr_retry 7 is without limit. */
const ENDLESS = 7
/** Least difference of two path MTUs. */
const MTU_STEP = 128

/**
 * A message cannot begin within another one: a responder that expects a later PSN takes the packets before as old ones.
 * Only if nothing before was acknowledged.
 */
const isPsnInDoubt = (answers: Flow, { position }: Refused): boolean =>
  answers.fatalCode === nakCode.INVALID_REQUEST &&
  (position === 'middle' || position === 'last') &&
  (answers.ackedPsn < 0 || answers.ackedPsn === ((answers.fatalPsn - 1) & 0xff_ffff))

/** Why the packets may not have come over a router; empty: nothing of it is seen. */
const routingText = (problems: ProblemList, { destination, isRoceV1 }: Flow): string => {
  const text = problems.addressText(destination)
  if (isRoceV1)
    return '; the frames are of RoCE v1 (ethertype 0x8915), which no router forwards, and adapters drop where they expect v2: choose the index of a RoCE v2 GID on both ends (NCCL_IB_GID_INDEX)'
  return /^fe[89ab]/i.test(text)
    ? `; ${text} is a link-local address, which no router forwards: if the ends are in different subnets, both need GIDs of IP addresses (NCCL_IB_GID_INDEX)`
    : ''
}

/** A NAK that refuses a request. `flow`: of the requests, undefined: the capture does not show whose it is. */
const addRefusal = (problems: ProblemList, answers: Flow, flow: Flow | undefined): void => {
  const { fatalCode, fatalPsn, fatalFrame, refused } = answers
  const { captureCause } = refusalOf[fatalCode]!
  const parts = [
    `the responder refused PSN ${hex(fatalPsn)}`,
    ...(flow === undefined ? ['the request is not in the capture'] : []),
    ...(flow !== undefined && refused !== undefined && isPsnInDoubt(answers, refused)
      ? [
          `it is the ${refused.position.toUpperCase()} packet of a message, and its PSN is ${psnDifference(fatalPsn, flow.firstPsn)} above the first one of these requests: a responder whose PSN is so much above refuses it as the first packet that it expects`,
        ]
      : []),
  ]
  const about = flow ?? answers
  problems.add(
    captureCause,
    parts.join('; '),
    frameList(
      flow !== undefined && flow.lastRequestFrame < fatalFrame ? flow.lastRequestFrame : (refused?.frame ?? 0),
      fatalFrame,
    ),
    about.requests,
    { flow: about, ...(refused !== undefined && { refused }) },
  )
}

/** `3 SEND, 12 WRITE`. */
const messagesOf = ({ messages }: Flow): string =>
  messageKinds
    .map((kind, i) => `${messages?.[i] ?? 0} ${kind}`)
    .filter(text => !text.startsWith('0 '))
    .join(', ')

/** Requests whose answers the capture lacks, as it lacks all packets from there. False: they may have failed. */
const addOneWayRequests = (problems: ProblemList, flow: Flow): boolean => {
  const { source, destination, repeats, headPsn, tries, lastRepeatFrame, lastRequestFrame } = flow
  const advances = repeats?.advances ?? 0
  const messages = flow.messages?.reduce((sum, count) => sum + count, 0) ?? 0
  if (tries > 0 ? advances === 0 : messages < 2) return false
  const parts = [
    `the capture has no packet from ${problems.addressText(destination)} to ${problems.addressText(source)}`,
    `${messagesOf(flow) || counted(flow.requests, 'request packet')} sent`,
    ...(tries === 0
      ? ['none was sent again']
      : [
          `packets were sent again in ${counted(flow.bursts, 'burst')}, each from a later PSN on, so that what is before PSN ${hex(headPsn)} was acknowledged`,
          tries > 1 && lastRepeatFrame >= lastRequestFrame
            ? `the last ones from there on were sent again ${times(tries)}`
            : `what follows was ${lastRepeatFrame < lastRequestFrame ? 'not sent again' : 'sent again once'}`,
        ]),
  ]
  problems.add(
    'one-direction',
    parts.join('; '),
    frameList(flow.requestFrame, tries > 0 ? flow.firstTryFrame : 0, lastRequestFrame),
    flow.requests,
    { flow, absent: destination },
  )
  return true
}

/** What answers say whose requests the capture does not have, or does not join with them. */
export const addOfAnswers = (problems: ProblemList, flow: Flow): void => {
  const { source, destination, ackedPsn, rnrs, sequenceNaks, lastAnswer } = flow
  const about = { flow }
  if (flow.fatalCode >= 0) addRefusal(problems, flow, undefined)
  if (rnrs > 0) {
    const text = `${counted(rnrs, 'RNR NAK')}, at most ${flow.mostRnrRow} in a row`
    const frames = frameList(flow.rnrFrame, flow.lastRnrFrame)
    if (lastAnswer === 'rnr') problems.add('rnr-last', `${text}, and no other answer after them`, frames, rnrs, about)
    else problems.add('rnr-waits', text, frames, flow.rnrWait, about)
  }
  if (sequenceNaks > 0) {
    const isLast = lastAnswer === 'sequence' && flow.nakRow > 1
    problems.add(
      isLast ? 'sequence-repeats' : 'loss',
      isLast
        ? `the responder asked for PSN ${hex(flow.nakPsn)} ${times(flow.nakRow)}, and nothing else was answered then`
        : `the responder asked for packets again ${times(sequenceNaks)} (NAK): they had not come to it in order`,
      frameList(flow.nakFrame, isLast ? flow.lastAnswerFrame : 0),
      sequenceNaks,
      about,
    )
  }
  if (problems.isOneWay(flow)) {
    const acked =
      ackedPsn < 0
        ? 'none acknowledges a request'
        : `they acknowledge ${ackedPsn === flow.firstAckedPsn ? `PSN ${hex(ackedPsn)}` : `PSNs ${hex(flow.firstAckedPsn)} to ${hex(ackedPsn)}`}`
    problems.add(
      'one-direction',
      `the capture has no packet from ${problems.addressText(destination)} to ${problems.addressText(source)}; of ${counted(flow.answers, 'answer')}, ${acked}`,
      frameList(flow.firstAnswerFrame, flow.lastAnswerFrame),
      flow.packets,
      { flow, absent: destination },
    )
    return
  }
  // Requests that nobody answers have a problem of their own.
  problems.add(
    'unpaired',
    `${counted(flow.packets, 'packet')} to queue pair ${hex(flow.qpn)}`,
    frameList(flow.firstFrame),
    flow.packets,
    about,
  )
}

/** Whether requests failed. */
export const addFailures = (problems: ProblemList, flow: Flow): void => {
  const { peer } = flow
  const last = (flow.nextPsn - 1) & 0xff_ffff
  const of = { flow }
  const weight = flow.requests
  const add = (cause: CaptureCause, evidence: string, ...frames: number[]): void =>
    problems.add(cause, evidence, frameList(...frames), weight, of)

  if (peer !== undefined && peer.fatalCode >= 0) {
    addRefusal(problems, peer, flow)
    return
  }
  const { former } = flow
  if (former !== undefined && former.answers > 0) {
    add(
      'psn-mismatch',
      `${counted(former.count, 'packet')} from PSN ${hex(former.psn)} on, which was acknowledged before, ${former.count === 1 ? 'was' : 'were'} sent with other data, and the responder answers ${times(former.answers)} as to duplicates, with PSN ${hex(former.answerPsn)}: the requester has begun anew, the responder has not, and these requests have no effect`,
      former.frame,
      former.answerFrame,
    )
    return
  }
  const acked = peer?.ackedPsn ?? -1
  // All acknowledgements are of PSNs that were never sent; later ones may be of requests that the capture misses.
  const isBeyond = acked >= 0 && !flow.isNextUncertain && psnDifference(peer!.firstAckedPsn, last) > 0
  const isAnswered = acked >= 0 && !(isBeyond && flow.tries > 0) && psnDifference(last, acked) <= 0
  if (isAnswered) return
  const connected = problems.connectionOf(flow)
  const retries = connected?.connection.retryCount
  const repeated = `PSN ${hex(flow.headPsn)} was sent again ${times(flow.tries)}${
    retries === undefined ? '' : retries === 7 ? '' : `; the connection's retry count is ${retries}`
  }`
  const tries = frameList(flow.requestFrame, flow.firstTryFrame, flow.lastRequestFrame)

  if (peer !== undefined && peer.lastAnswer === 'rnr') {
    const rnrRetry =
      connected === undefined
        ? undefined
        : connected.isClient
          ? connected.connection.clientRnrRetry
          : connected.connection.serverRnrRetry
    const isFollowed = flow.lastRequestFrame > peer.lastRnrFrame
    const isKnown = rnrRetry !== undefined && rnrRetry < ENDLESS
    const row = `${counted(peer.rnrRow, 'RNR NAK')} in a row for PSN ${hex(peer.rnrPsn)}`
    if (isKnown && peer.rnrRow > rnrRetry)
      add('rnr-exhausted', `${row}; rnr_retry of the connection is ${rnrRetry}`, peer.rnrFrame, peer.lastRnrFrame)
    else if (!isFollowed || peer.rnrRow > ENDLESS)
      add(
        'rnr-last',
        `${row}, ${isFollowed ? 'the last one answered by a request' : 'and no request after the last one'}${peer.rnrRow > ENDLESS ? '; more than rnr_retry allows unless it is 7, without limit' : ''}`,
        peer.rnrFrame,
        peer.lastRnrFrame,
      )
    else if (flow.tries > peer.rnrRow)
      add(
        'answers-stop',
        `${repeated}; the last answer is an RNR NAK in frame ${peer.lastRnrFrame}`,
        ...tries,
        peer.lastRnrFrame,
      )
    else
      add(
        'unanswered',
        `the last answer is an RNR NAK for PSN ${hex(peer.rnrPsn)}, ${isFollowed ? 'after which the request was sent again' : 'and the capture shows no request after it'}`,
        peer.lastRnrFrame,
        flow.lastRequestFrame,
      )
    return
  }
  const isSilent = peer === undefined || peer.answers === 0
  if (isSilent && peer === undefined && flow.tries > 0) {
    const stray = strayFor(problems, flow)
    if (stray !== undefined) {
      add(
        'answer-elsewhere',
        `requests of ${problems.addressText(flow.source)} are answered to ${problems.addressText(stray.destination)}`,
        ...tries,
        stray.firstAnswerFrame,
      )
      return
    }
  }
  if (peer !== undefined && !isSilent && flow.tries > 0) {
    const isNakUnsent = peer.nakPsn >= 0 && !wasSent(flow, peer.nakPsn)
    if ((peer.lastAnswer === 'sequence' && isNakUnsent) || (isBeyond && flow.jumps === 0)) {
      add(
        'psn-mismatch',
        isBeyond
          ? `the responder acknowledges PSN ${hex(acked)}, and the requests end at ${hex(last)}`
          : `the responder expects PSN ${hex(peer.nakPsn)}, and the requests are ${hex(flow.firstPsn)} to ${hex(last)}`,
        ...tries,
        peer.nakFrame || peer.lastAnswerFrame,
      )
      return
    }
    if (peer.lastAnswer === 'sequence' && peer.nakRow > 1) {
      add(
        'sequence-repeats',
        `the responder asked for PSN ${hex(peer.nakPsn)} ${times(peer.nakRow)}; ${repeated}`,
        peer.nakFrame,
        flow.lastRequestFrame,
      )
      return
    }
  }
  if (isSilent && problems.isOneWay(flow) && addOneWayRequests(problems, flow)) return
  if (flow.tries > 0 && isSilent) {
    const { addresses, flows } = problems.analysis
    const { destination } = flow
    const lid = addresses.lidOf(destination)
    // `lid-zero` says it.
    if (lid === 0) return
    const why =
      peer === undefined && problems.answersFrom(destination).length > 0
        ? `; other queue pairs of ${problems.addressText(destination)} answer`
        : lid !== undefined && flows.every(({ source }) => source !== destination)
          ? `; no packet of the capture comes from ${problems.addressText(destination)}`
          : ''
    if (lid !== undefined && flow.pkey >= 0 && flow.pkey < FULL_MEMBER)
      add(
        'pkey-limited',
        `P_Key ${hex(flow.pkey)}${flow.pkey === 0 ? ', that of an empty entry of the table' : ''}; ${repeated}${why}`,
        ...tries,
      )
    else add('no-answer', `${repeated}${why}${routingText(problems, flow)}`, ...tries)
  } else if (flow.tries > 0 && flow.lastRepeatFrame > peer!.lastAnswerFrame)
    add(
      'answers-stop',
      `the last answer acknowledges ${acked < 0 ? 'nothing' : `PSN ${hex(acked)}`}, in frame ${peer!.lastAnswerFrame}; then ${repeated}${
        acked >= 0 && flow.ackedLength > 0 && flow.headLength > flow.ackedLength + MTU_STEP
          ? `; no packet above ${flow.ackedLength} bytes was ever acknowledged, and this one has ${flow.headLength}: compare the MTU of the path and of the queue pairs`
          : ''
      }`,
      peer!.lastAnswerFrame,
      ...tries,
    )
  else if (isSilent || psnDifference(last, acked) > 0) {
    const closed = connected?.connection.messages.DREQ
    const wait = problems.analysis.end - flow.lastRequestTime
    if (closed !== undefined && closed.frame > flow.requestFrame && !isSilent)
      add(
        'disconnected-outstanding',
        `the ${connected?.connection.closedBy} sent a DREQ, and PSN ${hex(last)} has no acknowledgement`,
        flow.lastRequestFrame,
        closed.frame,
      )
    else
      add(
        'unanswered',
        `PSN ${hex(last)} in frame ${flow.lastRequestFrame} has no answer; the capture ends ${nanoText(Math.max(0, wait))} later`,
        flow.lastRequestFrame,
      )
  }
}

/** Whether a PSN is among those that the flow sent, as far as the capture shows. */
const wasSent = (flow: Flow, psn: number): boolean =>
  psnDifference(psn, flow.firstPsn) >= 0 && psnDifference(flow.nextPsn, psn) >= 0

/** A flow of answers from the responder's address to another address than the requester's, for PSNs that it sent. */
const strayFor = (problems: ProblemList, flow: Flow): Flow | undefined =>
  problems
    .answersFrom(flow.destination)
    .find(stray => stray.destination !== flow.source && stray.ackedPsn >= 0 && wasSent(flow, stray.ackedPsn))
