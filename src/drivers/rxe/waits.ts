/*
 * Why programs wait for queues of one soft device (spec/check/waits.ts). Reads rings and the engine's state; nothing is
 * recorded while requests run.
 */

import type { ContextWait } from '../../core/driver-contract.ts'
import { elementAt, loadProducer } from '../../core/memory/rings.ts'
import { Armed, type Context } from '../../core/model.ts'
import { requestName } from '../../spec/check/causes.ts'
import type { Wait, WaitingRequest } from '../../spec/check/waits.ts'
import { CqKind, nameIn, QpState } from '../../spec/enums.ts'
import { joinWords } from '../../spec/memory.ts'
import { PostQueue } from '../../spec/session.ts'
import { counted } from '../../spec/text.ts'
import { SendFlags, WcStatus } from '../../spec/work.ts'
import { polledCompletions } from './rings/completion-ring.ts'
import { pendingReceives, type ReceiveQueue } from './rings/receive-queue.ts'
import type { SendQueue } from './rings/work-source.ts'
import type { ConnectedPeer, CqObject, QpObject, RxeState, SrqObject } from './state.ts'

const { RTR, RTS, SQD } = QpState.values
/** The rnr_retry that means unlimited. */
const UNLIMITED = 7
/** With fewer RNR NAKs for one request, its receive may be about to be posted. */
const MIN_RNR_NAKS = 2

/** The bit of ibv_wc_opcode that all receives have. */
const RECEIVED = 1 << 7
/** Completions of a CQ that are looked at, the last ones. */
const MAX_LOOKED = 64

const hex = (value: number): string => `0x${value.toString(16)}`

const pendingSends = ({ ring, retiredIndex }: SendQueue): number => (loadProducer(ring) - retiredIndex) & ring.wrap

/** The send in slot `index`. */
const sendAt = ({ ring }: SendQueue, index: number) => {
  const { words } = ring.area
  const { send } = ring.layout
  const wqe = elementAt(ring, index)
  return {
    opcode: words[(wqe + send.OPCODE) >> 2]! >>> 0,
    isSignaled: (words[(wqe + send.FLAGS) >> 2]! & SendFlags.values.SIGNALED) !== 0,
    wrId: joinWords(words[(wqe + send.WR_ID + 4) >> 2]!, words[(wqe + send.WR_ID) >> 2]!),
  }
}

const sendText = (queue: SendQueue, index: number): string => {
  const { opcode, wrId } = sendAt(queue, index)
  return `${requestName(opcode)} wr_id ${wrId}`
}

/** Number of completions in a CQ that the program has not polled. */
const unpolledIn = ({ state: ring }: CqObject): number => ring.completions - polledCompletions(ring)

/** The CQs of a queue pair: for sends and for receives. */
const cqsOf = ({ parents }: QpObject): CqObject[] =>
  parents.filter((parent): parent is CqObject => parent.class.name === 'cq')

/** The oldest receive that is posted and not taken. */
const oldestReceive = (qp: QpObject): WaitingRequest => {
  const { receive, qpn } = qp.state
  const srq = qp.parents.find((parent): parent is SrqObject => (parent as SrqObject).state?.queue === receive)
  const { ring, takenIndex } = receive
  const at = (elementAt(ring, takenIndex) + ring.layout.receive.WR_ID) >> 2
  return {
    queue: srq === undefined ? PostQueue.RECEIVE : PostQueue.SHARED,
    number: srq?.handle ?? qpn,
    wrId: joinWords(ring.area.words[at + 1]!, ring.area.words[at]!),
  }
}

/** How many receives a queue pair has had, and how many messages came for them. */
const receiveCounts = (queue: ReceiveQueue): string => {
  const posted = counted(queue.taken + pendingReceives(queue), 'receive')
  const taken = `${counted(queue.taken, 'message')} came for them`
  return queue.isShared
    ? `takes receives of an SRQ, to which ${posted} were posted; ${taken}`
    : `has posted ${posted}, and ${taken}`
}

/** Sends that are complete and not signaled, at the end of the queue. */
const notSignaled = (state: RxeState, { state: qp, parents }: QpObject): Wait | undefined => {
  const { send, receive, row, qpn } = qp
  if (state.engine().signalsAll(row) || pendingSends(send) > 0) return undefined
  let count = 0
  // Older requests are in the slots behind index 0, but so are those before a RESET.
  while (count < send.retiredIndex && count < send.ring.capacity) {
    if (sendAt(send, send.retiredIndex - 1 - count).isSignaled) break
    count++
  }
  const hasUnpolled = parents.some(parent => parent.class.name === 'cq' && unpolledIn(parent as CqObject) > 0)
  if (count === 0 || hasUnpolled) return undefined
  const last = send.retiredIndex - 1
  const sends = count === 1 ? 'last send is' : `last ${count} sends are`
  return {
    id: 'not-signaled',
    // The program may wait for the receive instead.
    ...(pendingReceives(receive) > 0 && { severity: 'note' as const }),
    text: `QP ${hex(qpn)}: its ${sends} complete and not signaled (IBV_SEND_SIGNALED), so no completion comes; the last is ${sendText(send, last)}`,
    qpns: [qpn],
    request: { queue: PostQueue.SEND, number: qpn, wrId: sendAt(send, last).wrId },
  }
}

const peerObject = ({ peer, state }: ConnectedPeer): QpObject | undefined => state?.qps[state.qpns.rowOf(peer.qpn)]

const endlessRnr = (state: RxeState, { state: qp }: QpObject, peer: ConnectedPeer | undefined): Wait | undefined => {
  const { row, qpn, send } = qp
  const engine = state.engine()
  if (engine.query(row).rnrRetry !== UNLIMITED || engine.rnrNaks(row) < MIN_RNR_NAKS) return undefined
  const name = peer === undefined ? 'the peer' : `the peer, QP ${hex(peer.peer.qpn)},`
  const object = peer && peerObject(peer)
  const counts = object === undefined ? 'has no receive posted' : `${receiveCounts(object.state.receive)}`
  return {
    id: 'endless-rnr',
    text: `QP ${hex(qpn)}: ${sendText(send, send.retiredIndex)} waits without limit for a receive (rnr_retry 7): ${name} ${counts}`,
    qpns: [qpn, ...(peer ? [peer.peer.qpn] : [])],
    request: { queue: PostQueue.SEND, number: qpn, wrId: sendAt(send, send.retiredIndex).wrId },
  }
}

const peerGone = (state: RxeState, { state: qp }: QpObject, peer: ConnectedPeer | undefined): Wait | undefined => {
  const { row, qpn, send } = qp
  if (state.engine().query(row).timeout !== 0 || peer?.peer.state === undefined) return undefined
  const { qpn: peerQpn, address, state: peerState } = peer.peer
  if (peerState === RTR || peerState === RTS || peerState === SQD) return undefined
  const where = `QP ${hex(peerQpn)} at ${address}`
  const why = peerState === 'none' ? `there is no ${where}` : `${where} is in ${nameIn(QpState.values, peerState)}`
  return {
    id: 'infinite-timeout',
    severity: 'warning',
    text: `QP ${hex(qpn)}: ${sendText(send, send.retiredIndex)} waits without limit for an answer (timeout 0): ${why}`,
    qpns: [qpn, peerQpn],
    request: { queue: PostQueue.SEND, number: qpn, wrId: sendAt(send, send.retiredIndex).wrId },
  }
}

/** Whether a queue pair has receives, no sends and nothing to poll. */
const onlyReceives = (qp: QpObject): boolean =>
  pendingSends(qp.state.send) === 0 &&
  pendingReceives(qp.state.receive) > 0 &&
  cqsOf(qp).every(cq => unpolledIn(cq) === 0)

const bothReceive = (qp: QpObject, peer: ConnectedPeer | undefined): Wait | undefined => {
  const other = peer && peerObject(peer)
  if (other === undefined || other === qp || !onlyReceives(qp) || !onlyReceives(other)) return undefined
  // Once for a program that has both ends.
  if (other.context === qp.context && other.state.qpn < qp.state.qpn) return undefined
  // The peer's own peer.
  if (peer?.state?.engine().query(other.state.row).destQpn !== qp.state.qpn) return undefined
  return {
    id: 'both-receive',
    text: `QP ${hex(qp.state.qpn)} and its peer, QP ${hex(other.state.qpn)}, both have receives posted, and neither has a send outstanding`,
    qpns: [qp.state.qpn, other.state.qpn],
    request: oldestReceive(qp),
  }
}

const waitsOfQp = (state: RxeState, qp: QpObject): Wait[] => {
  const { row, send, address } = qp.state
  const qpState = state.engine().stateOf(row)
  if (qpState !== RTS && qpState !== RTR) return []
  const peer = address === undefined ? undefined : state.failures.peerOf(row)
  const found =
    qpState === RTS && pendingSends(send) > 0
      ? [endlessRnr(state, qp, peer), peerGone(state, qp, peer)]
      : [qpState === RTS ? notSignaled(state, qp) : undefined, bothReceive(qp, peer)]
  return found.filter(wait => wait !== undefined)
}

/** The number of a queue pair one of whose messages is among the last `unpolled` completions of a CQ. */
const receiverIn = ({ state: { ring, producer, kind } }: CqObject, unpolled: number): number | undefined => {
  if (kind === CqKind.values.COUNTING) return undefined
  const { words } = ring.area
  const { wc } = ring.layout
  for (let i = 1; i <= Math.min(unpolled, ring.capacity, MAX_LOOKED); i++) {
    const at = elementAt(ring, producer - i)
    if ((words[(at + wc.OPCODE) >> 2]! & RECEIVED) !== 0 && words[(at + wc.STATUS) >> 2] === WcStatus.values.SUCCESS)
      return words[(at + wc.QP_NUM) >> 2]! >>> 0
  }
  return undefined
}

/** The last send of the peer of a queue pair of this device, if that sender is in this process. */
const lastSendTo = (state: RxeState, qpn: number) => {
  const receiver = state.qps[state.qpns.rowOf(qpn)]
  const peer = receiver?.state.address === undefined ? undefined : state.failures.peerOf(receiver.state.row)
  const sender = peer && peerObject(peer)
  if (sender?.context === undefined || sender.state.send.retiredIndex === 0) return undefined
  const { send, qpn: number } = sender.state
  const last = send.retiredIndex - 1
  const { wrId } = sendAt(send, last)
  return {
    text: `, QP ${hex(number)}, sets no IBV_SEND_SOLICITED (its last send is ${sendText(send, last)})`,
    qpn: number,
    request: { queue: PostQueue.SEND, number, wrId, context: sender.context.id },
  }
}

/**
 * A CQ that is armed for solicited completions only, and has messages that are not solicited. No wait if such an event
 * has come before: then the sender sets IBV_SEND_SOLICITED in some of its messages.
 */
const notSolicited = (state: RxeState, cq: CqObject, unpolled: number): Wait | undefined => {
  const qpn = (cq.events?.state?.completions ?? 0) > 0 ? undefined : receiverIn(cq, unpolled)
  if (qpn === undefined) return undefined
  const { handle } = cq
  const sender = lastSendTo(state, qpn)
  return {
    id: 'lost-wakeup',
    text: `CQ ${handle} is armed for solicited completions only (solicited_only of ibv_req_notify_cq), and ${counted(unpolled, 'completion')} came that ${unpolled === 1 ? 'is' : 'are'} not solicited: the sender${sender?.text ?? ' sets no IBV_SEND_SOLICITED'}`,
    qpns: [qpn, ...(sender ? [sender.qpn] : [])],
    cq: handle,
    ...(sender && { request: sender.request }),
  }
}

/** A CQ with completions whose program waits for an event, which does not come. */
const lostWakeup = (state: RxeState, cq: CqObject): Wait | undefined => {
  const { events, handle } = cq
  const channel = events?.route.channel
  if (channel === undefined) return undefined
  const unpolled = unpolledIn(cq)
  if (unpolled === 0 || channel.isClosed || channel.sink.unread() > 0) return undefined
  const completions = counted(unpolled, 'unpolled completion')
  if (events?.armed === Armed.SOLICITED) return notSolicited(state, cq, unpolled)
  return {
    id: 'lost-wakeup',
    text:
      events?.armed === Armed.NEXT
        ? `CQ ${handle} was armed with ${completions} in it, which raise no event`
        : `CQ ${handle} has ${completions}, and is not armed (ibv_req_notify_cq), so its channel has no event`,
    cq: handle,
  }
}

/** Queues that are looked at in a step. */
const STEP = 32

/** The waits of all programs for queues of a device, in no order; undefined between steps. */
export function* waitsOfDevice(state: RxeState): Generator<ContextWait | undefined, void> {
  // The TypeScript library arms its CQs itself, and polls them on an event.
  const isProgram = (context: Context | undefined): context is Context =>
    context !== undefined && context.mapped?.packed === undefined
  let looked = 0
  for (let row = 0; row < state.qps.length; row++) {
    const object = state.qps[row]
    if (object !== undefined && isProgram(object.context))
      for (const wait of waitsOfQp(state, object)) yield { context: object.context, wait }
    if (++looked % STEP === 0) yield undefined
  }
  for (const cq of state.cqs.values()) {
    const wait = isProgram(cq.context) ? lostWakeup(state, cq) : undefined
    if (wait !== undefined && cq.context !== undefined) yield { context: cq.context, wait }
    if (++looked % STEP === 0) yield undefined
  }
}
