/*
 * What the messages of the connection manager show: connections that were rejected, given up, or never answered.
 */
import { counted, hex, hexBytes } from '../../../base/text.ts'
import { cmAnswered, rejectText, rejReason, sidrStatusText } from '../../../spec/wire/mad.ts'
import type { CaptureConnection, LoneReject, SeenMessage } from '../connections.ts'
import { frameList, nanoText, type ProblemList, times } from './list.ts'

/** Bytes of private data that are printed. */
const MAX_DATA = 16

const reasonText = (reason: number | undefined): string =>
  reason === undefined ? 'the reason was not captured' : rejectText(reason)

const dataText = (data: Uint8Array | undefined): string =>
  data?.length ? `, with ${counted(data.length, 'byte')} of private data: ${hexBytes(data.subarray(0, MAX_DATA))}` : ''

/** What a REJ rejects. */
const rejectedText = (message: number | undefined): string =>
  message === cmAnswered.REQ ? 'the REQ' : message === cmAnswered.REP ? 'the REP' : 'the connection'

/** `6 times in 24.2 s` */
const sentText = ({ count, time, lastTime }: SeenMessage): string =>
  `${times(count)}${count > 1 ? ` in ${nanoText(lastTime - time)}` : ''}`

/** What the connection manager's messages show. */
export const addOfConnection = (problems: ProblemList, connection: CaptureConnection): void => {
  const { messages, client, server, port, serviceId, rejectReason, rejectedBy, isDatagram } = connection
  const of = { connection }
  const service =
    port === undefined ? (serviceId === undefined ? '' : ` service ${hex(Number(serviceId))}`) : ` port ${port}`
  const [clientText, serverText] = [client, server].map(number => problems.addressText(number))
  const to = `${clientText} to ${serverText}${service}`
  const { REP, RTU, DREQ, DREP, REJ, MRA, SIDR_REP } = messages
  const request = isDatagram ? messages.SIDR_REQ : messages.REQ
  if (REJ !== undefined) {
    const [sender, other] = rejectedBy === 'client' ? [clientText, serverText] : [serverText, clientText]
    // Of the one that gives up, the last message without an answer.
    const [name, sent] = rejectedBy === 'client' ? ['REQ', request] : ['REP', REP]
    const isUnanswered = rejectedBy === 'client' ? REP === undefined : RTU === undefined
    if (rejectReason === rejReason.TIMEOUT && sent !== undefined && isUnanswered && RTU === undefined)
      problems.add(
        'cm-no-answer',
        `${to}: ${sender} sent the ${name} ${sentText(sent)}, and gave up ${nanoText(REJ.time - sent.lastTime)} after ${sent.count > 1 ? 'the last one' : 'it'} with a REJ (${reasonText(rejectReason)}); ${
          MRA === undefined
            ? `${other} never answered`
            : `${other} answered with an MRA only: its program did not accept`
        }`,
        frameList(sent.frame, sent.lastFrame, REJ.frame),
        sent.count,
        of,
      )
    else
      problems.add(
        'cm-rejected',
        `${to}: ${sender} rejected ${rejectedText(connection.rejectedMessage)}: ${reasonText(rejectReason)}${dataText(connection.rejectData)}`,
        frameList(request?.frame ?? 0, REJ.frame),
        1,
        of,
      )
    return
  }
  if (isDatagram && SIDR_REP !== undefined && (rejectReason ?? 0) !== 0) {
    problems.add(
      'cm-rejected',
      `${to}: ${serverText} rejected the SIDR_REQ: ${sidrStatusText(rejectReason ?? 0)}`,
      frameList(request?.frame ?? 0, SIDR_REP.frame),
      1,
      of,
    )
    return
  }
  const answered = REP ?? SIDR_REP ?? MRA
  if (request !== undefined && answered === undefined && RTU === undefined && DREQ === undefined)
    // A single one without its answer may be all that the capture has of a connection.
    problems.add(
      request.count > 1 ? 'cm-no-answer' : 'unanswered',
      `${to}: ${clientText} sent the ${isDatagram ? 'SIDR_REQ' : 'REQ'} ${sentText(request)}, ${serverText} never answered, and the capture ends ${nanoText(problems.analysis.end - request.time)} after the first`,
      frameList(request.frame, request.lastFrame),
      request.count,
      of,
    )
  const unanswered = (name: string, sender: string, seen: SeenMessage, answer: string): void =>
    problems.add(
      'cm-no-answer',
      `${to}: ${sender} sent the ${name} ${sentText(seen)}, without ${answer}`,
      frameList(seen.frame, seen.lastFrame),
      seen.count,
      of,
    )
  if (REP !== undefined && RTU === undefined && REP.count > 1) unanswered('REP', serverText, REP, 'an RTU')
  if (DREQ !== undefined && DREP === undefined && DREQ.count > 1)
    unanswered('DREQ', connection.closedBy === 'client' ? clientText : serverText, DREQ, 'a DREP')
}

/** A REJ of a connection that the capture does not have. */
export const addOfLoneReject = (problems: ProblemList, { source, destination, ...reject }: LoneReject): void => {
  const [from, to] = [source, destination].map(number => problems.addressText(number))
  problems.add(
    'cm-rejected-alone',
    `${from} sent ${to} a REJ of ${rejectedText(reject.message)}${reject.count > 1 ? `, ${sentText(reject)}` : ''}: ${reasonText(reject.reason)}${dataText(reject.data)}`,
    frameList(reject.frame, reject.lastFrame),
    reject.count,
    {},
  )
}
