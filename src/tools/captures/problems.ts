/*
 * What went wrong in a capture, worst first: rows of spec/captures.ts with the evidence and the frames. A problem is
 * named only if the packets show it; what they leave open is said to be unknown.
 */
import { type CaptureCause, captureCause, severityOrder } from '../../spec/captures.ts'
import { counted, hex } from '../../spec/text.ts'
import { nakCode } from '../../spec/wire/headers.ts'
import { rejectText } from '../../spec/wire/mad.ts'
import { transportBits } from '../../spec/wire/opcodes.ts'
import { psnDifference } from '../../transport/wire/bth.ts'
import { durationText } from '../trace/duration.ts'
import type { CaptureAnalysis } from './analysis.ts'
import type { CaptureConnection } from './connections.ts'
import { type Flow, isMtu } from './flows/flow.ts'
import type { IcmpError } from './locate.ts'

export interface CaptureProblem {
  readonly cause: CaptureCause
  /** The flow whose requests, or packets, have the problem. */
  readonly flow?: Flow
  readonly connection?: CaptureConnection
  /** What the packets show: a sentence without its full stop. */
  readonly evidence: string
  /** Frames that show it, as Wireshark counts. */
  readonly frames: readonly number[]
  /** Of equal causes, the one with the larger weight comes first. */
  readonly weight: number
}

/** Problems beyond are counted by cause only. */
const MAX_PROBLEMS = 10_000
/** Acknowledged requests from which a mean says something. */
const MIN_MESSAGES = 32
/** rnr_retry 7 is without limit. */
const ENDLESS = 7
/** A pause of a requester is one that is this long, and so many times as long as the whole of its other time per message. */
const MIN_PAUSE = 10e6
const PAUSE_RATIO = 100
/** Share of READs that were sent with as many outstanding as ever. */
const MOST_READS_SHARE = 0.75
/** A rate that changed by less than this is not worth a word. */
const RATE_RATIO = 1.5

/** RFC 792 and 4443. */
const icmpText = ({ isIpv6, type, code, mtu }: IcmpError): string => {
  const isBig = isIpv6 ? type === 2 : type === 3 && code === 4
  if (isBig) return `packet too big${mtu > 0 ? `, the next link takes ${mtu} bytes` : ''}`
  if (type === (isIpv6 ? 3 : 11)) return code === 0 ? 'time exceeded (hop limit)' : 'time exceeded (fragments)'
  if (isIpv6 ? type === 4 : type === 12) return 'a header that it does not understand'
  const names: Readonly<Record<number, string>> = isIpv6
    ? { 0: 'no route', 1: 'prohibited', 3: 'address unreachable', 4: 'port unreachable' }
    : { 0: 'network unreachable', 1: 'host unreachable', 2: 'protocol unreachable', 3: 'port unreachable' }
  const isProhibited = isIpv6 ? code === 5 || code === 6 : code === 9 || code === 10 || code === 13
  return names[code] ?? (isProhibited ? 'prohibited' : `destination unreachable, code ${code}`)
}

const times = (count: number): string => (count === 1 ? 'once' : count === 2 ? 'twice' : `${count} times`)
/** Least difference of two path MTUs. */
const MTU_STEP = 128
const nanoText = (nanoseconds: number): string => durationText(nanoseconds / 1000)
const isReliable = ({ service }: Flow): boolean => service === transportBits.RC || service === transportBits.XRC
const frameList = (...frames: number[]): number[] =>
  [...new Set(frames.filter(frame => frame > 0))].sort((a, b) => a - b)

const fatalCauses: Readonly<Record<number, CaptureCause>> = {
  [nakCode.INVALID_REQUEST]: 'invalid-request',
  [nakCode.REMOTE_ACCESS]: 'remote-access',
  [nakCode.REMOTE_OPERATION]: 'remote-operation',
  [nakCode.INVALID_RD_REQUEST]: 'invalid-rd-request',
}

/** How the rate changed, if it did; slices at the ends may be parts. */
const ratesText = ({ slices, sliceWidth, slicesFrom, lastTime }: Flow): string[] => {
  if (slices === undefined) return []
  const from = Math.floor(slicesFrom / sliceWidth) + 1
  const whole = [...slices.subarray(from, Math.floor(lastTime / sliceWidth))]
  if (whole.length < 2) return []
  const rates = whole.map(bytes => (8 * bytes) / sliceWidth)
  const [least, most] = [Math.min(...rates), Math.max(...rates)]
  if (most < RATE_RATIO * least) return []
  const at = (rate: number): string => nanoText((from + rates.indexOf(rate)) * sliceWidth)
  return [`its rate was ${most.toFixed(3)} Gb/s at ${at(most)} and ${least.toFixed(3)} at ${at(least)}`]
}

class Problems {
  readonly list: CaptureProblem[] = []
  readonly counts = new Map<CaptureCause, number>()
  readonly #analysis: CaptureAnalysis
  /** Flows of answers without a peer, by the address that they come from. */
  readonly #strayAnswers = new Map<number, Flow[]>()

  constructor(analysis: CaptureAnalysis) {
    this.#analysis = analysis
    for (const flow of analysis.flows) {
      if (flow.peer !== undefined || flow.answers === 0) continue
      const strays = this.#strayAnswers.get(flow.source)
      if (strays === undefined) this.#strayAnswers.set(flow.source, [flow])
      else if (strays.length < 64) strays.push(flow)
    }
  }

  #add(
    cause: CaptureCause,
    evidence: string,
    frames: readonly number[],
    weight: number,
    of: Pick<CaptureProblem, 'flow' | 'connection'>,
  ): void {
    this.counts.set(cause, (this.counts.get(cause) ?? 0) + 1)
    if (this.list.length < MAX_PROBLEMS) this.list.push({ cause, evidence, frames, weight, ...of })
  }

  /** The connection of a flow's queue pairs, and whether the flow's requests are the client's. */
  #connectionOf(flow: Flow): { readonly connection: CaptureConnection; readonly isClient: boolean } | undefined {
    const connection = this.#analysis.connectionTable.ofQp(flow.destination, flow.qpn)
    if (connection === undefined) return undefined
    return { connection, isClient: connection.serverQpn === flow.qpn && connection.server === flow.destination }
  }

  ofFlow(flow: Flow): void {
    const before = this.counts.get('psn-mismatch')
    if (isReliable(flow) && flow.requests > 0) this.#ofRequests(flow)
    // Repeats that no path can help are no loss.
    const isMismatched = this.counts.get('psn-mismatch') !== before
    this.#ofPackets(flow)
    if (isReliable(flow) && flow.requests > 0) this.#slowness(flow, isMismatched)
  }

  /** Whether requests failed. */
  #ofRequests(flow: Flow): void {
    const { peer } = flow
    const last = (flow.nextPsn - 1) & 0xff_ffff
    const of = { flow }
    const weight = flow.requests
    const add = (cause: CaptureCause, evidence: string, ...frames: number[]): void =>
      this.#add(cause, evidence, frameList(...frames), weight, of)

    if (peer !== undefined && peer.fatalCode >= 0) {
      const cause = fatalCauses[peer.fatalCode] ?? 'invalid-request'
      add(
        cause,
        `the responder refused PSN ${hex(peer.fatalPsn)}`,
        flow.lastRequestFrame < peer.fatalFrame ? flow.lastRequestFrame : 0,
        peer.fatalFrame,
      )
      return
    }
    const acked = peer?.ackedPsn ?? -1
    // All acknowledgements are of PSNs that were never sent; later ones may be of requests that the capture misses.
    const isBeyond = acked >= 0 && !flow.isNextUncertain && psnDifference(peer!.firstAckedPsn, last) > 0
    const isAnswered = acked >= 0 && !(isBeyond && flow.tries > 0) && psnDifference(last, acked) <= 0
    if (isAnswered) return
    const connected = this.#connectionOf(flow)
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
      const stray = this.#strayFor(flow)
      if (stray !== undefined) {
        add(
          'answer-elsewhere',
          `requests of ${this.#analysis.addresses.text(flow.source)} are answered to ${this.#analysis.addresses.text(stray.destination)}`,
          ...tries,
          stray.firstAnswerFrame,
        )
        return
      }
    }
    if (peer !== undefined && !isSilent && flow.tries > 0) {
      const isNakUnsent = peer.nakPsn >= 0 && !this.#wasSent(flow, peer.nakPsn)
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
    if (flow.tries > 0 && isSilent) {
      const why =
        peer === undefined && this.#answersTo(flow) > 0
          ? `; other queue pairs of ${this.#analysis.addresses.text(flow.destination)} answer`
          : ''
      add('no-answer', `${repeated}${why}`, ...tries)
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
      const wait = this.#analysis.end - flow.lastRequestTime
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
  #wasSent(flow: Flow, psn: number): boolean {
    return psnDifference(psn, flow.firstPsn) >= 0 && psnDifference(flow.nextPsn, psn) >= 0
  }

  /** A flow of answers from the responder's address to another address than the requester's, for PSNs that it sent. */
  #strayFor(flow: Flow): Flow | undefined {
    return this.#strayAnswers
      .get(flow.destination)
      ?.find(stray => stray.destination !== flow.source && stray.ackedPsn >= 0 && this.#wasSent(flow, stray.ackedPsn))
  }

  #answersTo(flow: Flow): number {
    return this.#strayAnswers.get(flow.destination)?.length ?? 0
  }

  /** What packets themselves show. */
  #ofPackets(flow: Flow): void {
    const of = { flow }
    if (flow.icrcWrong > 0)
      this.#add(
        'icrc-wrong',
        `${flow.icrcWrong} of ${flow.icrcChecked} checked packets have an ICRC that does not match their bytes`,
        frameList(flow.icrcFrame),
        flow.icrcWrong,
        of,
      )
    if (flow.malformed > 0)
      this.#add(
        'malformed',
        `${counted(flow.malformed, 'packet')}, the first: ${flow.malformedReason}`,
        frameList(flow.malformedFrame),
        flow.malformed,
        of,
      )
    if (flow.zeroQkeys > 0)
      this.#add('qkey-zero', counted(flow.zeroQkeys, 'datagram'), frameList(flow.zeroQkeyFrame), flow.zeroQkeys, of)
    if (flow.ghosts > 0)
      this.#add(
        'ghosts',
        `${counted(flow.ghosts, 'packet')} with PSNs from before the jump in frame ${flow.jumpFrame}`,
        frameList(flow.jumpFrame, flow.ghostFrame),
        flow.ghosts,
        of,
      )
    if (flow.afterClose > 0)
      this.#add(
        'after-disconnect',
        `${counted(flow.afterClose, 'packet')} after the DREP`,
        frameList(flow.closedFrame, flow.afterCloseFrame),
        flow.afterClose,
        of,
      )
    if (flow.doubled > 0)
      this.#add('doubled', counted(flow.doubled, 'packet'), frameList(flow.doubledFrame), flow.doubled, of)
    if (flow.jumps > 0)
      this.#add('psn-jump', `${times(flow.jumps)}, by more than ${1 << 16}`, frameList(flow.jumpFrame), flow.jumps, of)
    if (flow.marked > 0 || flow.cnps > 0)
      this.#add(
        'congestion',
        [
          ...(flow.marked > 0 ? [`${flow.marked} of ${counted(flow.packets, 'packet')} are marked`] : []),
          ...(flow.cnps > 0 ? [`${counted(flow.cnps, 'CNP')} ask queue pair ${hex(flow.qpn)} to slow down`] : []),
          ...ratesText(flow.marked > 0 ? flow : (this.#cnpSender(flow) ?? flow)),
        ].join('; '),
        frameList(flow.firstMarkedFrame, flow.firstCnpFrame),
        flow.marked + flow.cnps,
        of,
      )
    const { peer } = flow
    if (peer === undefined) {
      // Requests that nobody answers have a problem of their own.
      if (isReliable(flow) && flow.answers > 0)
        this.#add(
          'unpaired',
          `${counted(flow.packets, 'packet')} to queue pair ${hex(flow.qpn)}`,
          frameList(flow.firstFrame),
          flow.packets,
          of,
        )
      return
    }
    // Once for both directions.
    if (flow.number > peer.number) return
    if (flow.pkey >= 0 && peer.pkey >= 0 && ((flow.pkey ^ peer.pkey) & 0x7fff) !== 0)
      this.#add(
        'pkey-differs',
        `${hex(flow.pkey)} and ${hex(peer.pkey)}`,
        frameList(flow.firstFrame, peer.firstFrame),
        flow.packets,
        of,
      )
    if (isMtu(flow.mtu) && isMtu(peer.mtu) && flow.mtu !== peer.mtu)
      this.#add(
        'mtu-differs',
        `packets to ${hex(flow.qpn)} carry ${flow.mtu} bytes, those to ${hex(peer.qpn)} ${peer.mtu}`,
        frameList(flow.firstFrame, peer.firstFrame),
        flow.packets,
        of,
      )
  }

  /** The flow that CNPs to a queue pair are about. They are of no service of their own. */
  #cnpSender({ source, destination, qpn }: Flow): Flow | undefined {
    return this.#analysis.table.find(source, destination, qpn, transportBits.RC, 0)?.peer
  }

  #slowness(flow: Flow, isMismatched: boolean): void {
    const { peer } = flow
    const of = { flow }
    if (peer !== undefined && peer.rnrs > 0)
      this.#add(
        'rnr-waits',
        `${counted(peer.rnrs, 'RNR NAK')}, at most ${peer.mostRnrRow} in a row, which asked to wait for ${durationText(peer.rnrWait)} in all`,
        frameList(peer.rnrFrame, peer.lastRnrFrame),
        peer.rnrWait,
        of,
      )
    const naks = peer?.sequenceNaks ?? 0
    const hasOtherReason = peer !== undefined && peer.rnrs > 0 && peer.rnrs >= flow.bursts
    if (
      flow.repeated > 0 &&
      peer !== undefined &&
      peer.answers > 0 &&
      !hasOtherReason &&
      !isMismatched &&
      flow.bursts > 0
    ) {
      const before = flow.filled - flow.reordered
      const where =
        before > 0
          ? `${before} of them were missing here before, so they were lost between the sender and the capture point, or the capture missed them`
          : 'all had passed here before, so they, or their answers, were lost behind the capture point'
      const share = ((100 * flow.repeatedBytes) / Math.max(1, flow.bytes)).toFixed(1)
      this.#add(
        'loss',
        `${counted(flow.repeated, 'packet')} in ${counted(flow.bursts, 'burst')} (${share} % of the bytes) sent again, ${naks > 0 ? `after ${counted(naks, 'NAK')}` : 'after timeouts'}; ${where}; ${(flow.repeatedBytes / Math.max(1, flow.headBytes)).toFixed(1)} bytes were sent again for each byte that was lost, if each burst was for one packet`,
        frameList(flow.repeatFrame, peer.nakFrame, flow.lastRepeatFrame),
        flow.repeatedBytes,
        of,
      )
    }
    if (flow.reordered > 0)
      this.#add('reordered', counted(flow.reordered, 'packet'), frameList(flow.reorderFrame), flow.reordered, of)
    if (peer === undefined || peer.delays < MIN_MESSAGES) return
    const mean = peer.delaySum / peer.delays
    const rest = (flow.lastTime - flow.firstTime - flow.idle) / peer.delays
    if (flow.idle > MIN_PAUSE && flow.idle > PAUSE_RATIO * rest)
      this.#add(
        'sender-paused',
        `${nanoText(flow.idle)} before frame ${flow.idleFrame}; without it, a message took ${nanoText(rest)} in the mean`,
        frameList(flow.idleFrame),
        flow.idle,
        of,
      )
    const connected = this.#connectionOf(flow)
    const allowed = connected?.isClient ? connected.connection.clientReads : connected?.connection.serverReads
    const isOften = flow.readRequests >= MIN_MESSAGES && flow.readsAtMost > MOST_READS_SHARE * flow.readRequests
    if (isOften && flow.mostReads > 1 && (allowed === undefined || allowed === flow.mostReads))
      this.#add(
        'reads-limited',
        `${counted(flow.readRequests, 'request')}, never more than ${flow.mostReads} outstanding${allowed === undefined ? '' : ', which is what the connection allows'}; an answer took ${nanoText(mean)} in the mean`,
        frameList(flow.requestFrame),
        flow.readRequests,
        of,
      )
    if (flow.mostOutstanding === 1)
      this.#add(
        'one-in-flight',
        `${counted(peer.delays, 'request')} with one outstanding; an answer took ${nanoText(mean)} in the mean`,
        frameList(flow.requestFrame),
        peer.delays,
        of,
      )
    if (peer.delayMax > 20 * mean && peer.delayMax > 1e6)
      this.#add(
        'slow-answers',
        `the longest took ${nanoText(peer.delayMax)}, and the mean is ${nanoText(mean)}`,
        frameList(peer.delayFrame),
        peer.delayMax,
        of,
      )
  }

  /** What belongs to no queue pair. */
  ofPath(): void {
    const { errors, otherPorts, addresses, table, fragments } = this.#analysis
    if (fragments.packets > 0)
      this.#add(
        'fragmented',
        `${counted(fragments.packets, 'packet')} in fragments${fragments.incomplete > 0 ? `; of ${fragments.incomplete} some are missing` : ''}`,
        frameList(fragments.firstFrame, fragments.incompleteFrame),
        fragments.packets,
        {},
      )
    for (const error of errors.values()) {
      const { reporter, source, destination, qpn, count, frame } = error
      const what = `${addresses.text(reporter)} says of packets from ${addresses.text(source)} to ${addresses.text(destination)}${qpn < 0 ? '' : ` QP ${hex(qpn)}`}: ${icmpText(error)}`
      this.#add('icmp-refused', `${what}, ${times(count)}`, frameList(frame), count, {})
    }
    for (const [port, frame] of otherPorts) this.#add('other-port', `port ${port}`, frameList(frame), 1, {})
    for (const { destination, senders, bytes, time, trouble, troubleOfMany } of table.incast.list)
      if (trouble > 0 && 2 * troubleOfMany > trouble)
        this.#add(
          'incast',
          `${senders} hosts sent ${bytes} bytes to ${addresses.text(destination)} within a millisecond, at ${nanoText(time)}; ${troubleOfMany} of its ${trouble} marks, CNPs and repeats are in such milliseconds`,
          [],
          troubleOfMany,
          {},
        )
  }

  ofConnection(connection: CaptureConnection): void {
    const { messages, client, server, port, serviceId, rejectReason, isDatagram } = connection
    const { addresses } = this.#analysis
    const of = { connection }
    const service =
      port === undefined ? (serviceId === undefined ? '' : ` service ${hex(Number(serviceId))}`) : ` port ${port}`
    const to = `${addresses.text(client)} to ${addresses.text(server)}${service}`
    const request = isDatagram ? messages.SIDR_REQ : messages.REQ
    const reject = messages.REJ
    if (reject !== undefined || (isDatagram && (rejectReason ?? 0) !== 0)) {
      const answer = reject ?? messages.SIDR_REP!
      const reason =
        rejectReason === undefined
          ? 'the reason was not captured'
          : isDatagram
            ? `status ${rejectReason}`
            : rejectText(rejectReason)
      const data = connection.rejectData?.length
        ? `, with ${counted(connection.rejectData.length, 'byte')} of private data: ${[...connection.rejectData.subarray(0, 16)].map(byte => byte.toString(16).padStart(2, '0')).join('')}`
        : ''
      this.#add('cm-rejected', `${to}: ${reason}${data}`, frameList(request?.frame ?? 0, answer.frame), 1, of)
      return
    }
    const answered = messages.REP ?? messages.SIDR_REP ?? messages.MRA
    const { RTU, DREQ, DREP } = messages
    if (request !== undefined && answered === undefined && RTU === undefined && DREQ === undefined) {
      const what = `${to}: the ${isDatagram ? 'SIDR_REQ' : 'REQ'} was sent ${times(request.count)}, and the capture ends ${nanoText(this.#analysis.end - request.time)} after the first`
      // A single one without its answer may be all that the capture has of a connection.
      this.#add(
        request.count > 1 ? 'cm-no-answer' : 'unanswered',
        what,
        frameList(request.frame, request.lastFrame),
        request.count,
        of,
      )
    }
    const { REP } = messages
    if (REP !== undefined && RTU === undefined && REP.count > 1)
      this.#add(
        'cm-no-answer',
        `${to}: the REP was sent ${times(REP.count)}, without an RTU`,
        frameList(REP.frame, REP.lastFrame),
        REP.count,
        of,
      )
    if (DREQ !== undefined && DREP === undefined && DREQ.count > 1)
      this.#add(
        'cm-no-answer',
        `${to}: the DREQ was sent ${times(DREQ.count)}, without a DREP`,
        frameList(DREQ.frame, DREQ.lastFrame),
        DREQ.count,
        of,
      )
  }
}

/** The problems of a finished analysis, worst first, and their counts. */
export const problemsOf = (
  analysis: CaptureAnalysis,
): { readonly problems: readonly CaptureProblem[]; readonly counts: ReadonlyMap<CaptureCause, number> } => {
  const found = new Problems(analysis)
  found.ofPath()
  for (const connection of analysis.connections) found.ofConnection(connection)
  for (const flow of analysis.flows) found.ofFlow(flow)
  const order = ({ cause }: CaptureProblem): number => {
    const { severity, rank } = captureCause(cause)
    return 1000 * severityOrder[severity] + rank
  }
  found.list.sort((a, b) => order(b) - order(a) || b.weight - a.weight)
  return { problems: found.list, counts: found.counts }
}
