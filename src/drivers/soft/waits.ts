/*
 * Why programs wait for queues of one soft device (spec/check/waits.ts). Reads rings and the engine's state; nothing is
 * recorded while requests run.
 */

import { counted } from '../../base/text.ts'
import type { ContextWait } from '../../core/driver-contract.ts'
import { armedFor } from '../../core/events/events.ts'
import { Armed, type Context, type ContextProgram, type CoreObject } from '../../core/model.ts'
import { silentWait } from '../../core/silent-device.ts'
import { requestName } from '../../spec/check/causes.ts'
import type { Wait, WaitingRequest } from '../../spec/check/waits.ts'
import { nameIn, QpState } from '../../spec/enums.ts'
import { PostQueue } from '../../spec/session.ts'
import { isSilent } from './completion-faults.ts'
import { polledCompletions } from './completion-queue.ts'
import type { ReceiveQueue } from './queues.ts'
import type { ConnectedPeer, CqObject, QpEnd, QpObject, SoftState, SrqObject } from './state.ts'

const { INIT, RTR, RTS, SQD, SQE, ERR } = QpState.values
/** The rnr_retry that means unlimited. */
const UNLIMITED = 7
/** With fewer RNR NAKs for one request, its receive may be about to be posted. */
const MIN_RNR_NAKS = 2

/** Completions of a CQ that are looked at, the last ones. */
const MAX_LOOKED = 64

const hex = (value: number): string => `0x${value.toString(16)}`

/** A text that names the send `from` the oldest outstanding one (`SendQueue.glance`). */
const namingSend = ({ state: { send, qpn }, context }: QpObject, from: number, before: string, after: string) => {
  const { opcode, wrId } = send.glance(from)
  const around = [`${before}${requestName(opcode)} `, after] as const
  return {
    text: around.join(`${context?.device.driver.requests?.numbered ?? 'wr_id'} ${wrId}`),
    request: { queue: PostQueue.SEND, number: qpn, wrId, around },
  }
}
const OLDEST = 0
const LAST_RETIRED = -1

/** Number of completions in a CQ that the program has not polled. */
const unpolledIn = ({ state: queue }: CqObject): number => queue.completions - polledCompletions(queue)

/** The CQs of a queue pair: for sends and for receives. */
const cqsOf = ({ parents }: Pick<CoreObject, 'parents'>): CqObject[] =>
  parents.filter((parent): parent is CqObject => parent.class.name === 'cq')

/** The oldest receive that is posted and not taken. */
const oldestReceive = (qp: QpObject): WaitingRequest => {
  const { receive, qpn } = qp.state
  const srq = qp.parents.find((parent): parent is SrqObject => (parent as SrqObject).state?.queue === receive)
  return {
    queue: srq === undefined ? PostQueue.RECEIVE : PostQueue.SHARED,
    number: srq?.handle ?? qpn,
    wrId: receive.oldestId(),
  }
}

/** How many receives a queue pair has had, and how many messages came for them. */
const receiveCounts = (queue: ReceiveQueue): string => {
  const posted = counted(queue.taken + queue.pending(), 'receive')
  const taken = `${counted(queue.taken, 'message')} came for them`
  return queue.isShared
    ? `takes receives of an SRQ, to which ${posted} were posted; ${taken}`
    : `has posted ${posted}, and ${taken}`
}

/** Sends that are complete and not signaled, at the end of the queue. */
const notSignaled = (state: SoftState, qp: QpObject): Wait | undefined => {
  const { send, receive, row, qpn } = qp.state
  if (state.engine().signalsAll(row) || !send.isEmpty()) return undefined
  let count = 0
  const retired = send.retired()
  while (count < retired && !send.glance(LAST_RETIRED - count).isSignaled) count++
  const hasUnpolled = qp.parents.some(parent => parent.class.name === 'cq' && unpolledIn(parent as CqObject) > 0)
  if (count === 0 || hasUnpolled) return undefined
  const sends = count === 1 ? 'last send is' : `last ${count} sends are`
  let covered = count < retired ? 1 : 0
  while (covered > 0 && count + covered < retired && !send.glance(LAST_RETIRED - count - covered).isSignaled) covered++
  return {
    id: 'not-signaled',
    // The program may wait for the receive instead.
    ...(!receive.isEmpty() && { severity: 'note' as const }),
    ...namingSend(
      qp,
      LAST_RETIRED,
      `QP ${hex(qpn)}: its ${sends} complete and not signaled (IBV_SEND_SIGNALED), so no completion comes; the last is `,
      '',
    ),
    qpns: [qpn],
    ...(covered > 1 && {
      details: [
        `the completion before them stands for ${covered} sends: its own, and the ${covered - 1} before that were not signaled`,
      ],
    }),
  }
}

const peerObject = ({ qpn, state }: ConnectedPeer): QpObject | undefined => state?.qps[state.qpns.rowOf(qpn)]

const endlessRnr = (state: SoftState, qp: QpObject, peer: ConnectedPeer | undefined): Wait | undefined => {
  const { row, qpn } = qp.state
  const engine = state.engine()
  if (engine.query(row).rnrRetry !== UNLIMITED || engine.rnrNaks(row) < MIN_RNR_NAKS) return undefined
  const name = peer === undefined ? 'the peer' : `the peer, QP ${hex(peer.peer.qpn)},`
  const object = peer && peerObject(peer)
  const counts = object === undefined ? 'has no receive posted' : `${receiveCounts(object.state.receive)}`
  return {
    id: 'endless-rnr',
    ...namingSend(
      qp,
      OLDEST,
      `QP ${hex(qpn)}: `,
      ` waits without limit for a receive (rnr_retry 7): ${name} ${counts}`,
    ),
    qpns: [qpn, ...(peer ? [peer.peer.qpn] : [])],
  }
}

/** The wait of a queue pair of the device for a receive of its peer (`endlessRnr`). */
export const rnrWaitOf = (state: SoftState, qpn: number): ContextWait | undefined => {
  const qp = state.qps[state.qpns.rowOf(qpn)]
  if (qp?.context === undefined) return undefined
  const wait = endlessRnr(state, qp, qp.state.address === undefined ? undefined : state.failures.peerOf(qp.state.row))
  return wait && { context: qp.context, wait }
}

// ---- peers that are gone ----

/** What is known of a peer that neither sends nor answers: the end of a sentence, after the peer's name. */
interface Fate {
  readonly text: string
  /** The peer may be about to be connected. */
  readonly mayCome?: true
  /** It is or was a queue pair of the program that waits. */
  readonly isOwn?: boolean
  /** DISCONNECTED was delivered, and not read. */
  readonly isUnread?: boolean
}

const READ_DISCONNECTED =
  'read the events of the channel of the identifier (rdma_get_cm_event), and end the connection at DISCONNECTED'

const programText = (program: ContextProgram, own: ContextProgram | undefined): string =>
  program.life !== undefined && program.life === own?.life
    ? 'this program'
    : `process ${program.pid} (${program.command})`

/** Who has destroyed the queue pair, or moved it to RESET. `own`: the program that waits. */
const endText = ({ how, program }: QpEnd, own: ContextProgram | undefined): string => {
  if (how === 'remove') return 'whose device was removed'
  if (program === undefined) return how === 'reset' ? 'which was moved to RESET' : 'which was destroyed'
  const name = programText(program, own)
  if (how === 'reset') return `which ${name} has moved to RESET`
  if (how === 'call') return `which ${name} has destroyed`
  return program.life?.hasEnded === true ? `whose ${name} has ended` : `whose device ${name} has closed`
}

/**
 * Undefined: the peer is connected, or nothing is known of it. `isEventRead`: of DISCONNECTED; undefined: none came.
 */
const fateOf = (
  connected: ConnectedPeer,
  own: ContextProgram | undefined,
  isEventRead: boolean | undefined,
): Fate | undefined => {
  const fate = endOf(connected, own, isEventRead)
  return fate && { ...fate, isUnread: isEventRead === false }
}

const endOf = (
  { peer: { qpn, state: peerState }, state: peerDevice }: ConnectedPeer,
  own: ContextProgram | undefined,
  isEventRead: boolean | undefined,
): Fate | undefined => {
  if (peerState === RTR || peerState === RTS || peerState === SQD || peerState === SQE) return undefined
  const event = isEventRead === undefined ? '' : `; DISCONNECTED was delivered${isEventRead ? '' : ' and not read'}`
  if (peerState === undefined || peerDevice === undefined)
    return event === '' ? undefined : { text: `whose connection has ended${event}` }
  const end = peerDevice.qpEnds.get(qpn)
  const ended = end && endText(end, own)
  const program = end?.program ?? peerDevice.qps[peerDevice.qpns.rowOf(qpn)]?.context?.program
  const isOwn = program?.life !== undefined && program.life === own?.life
  if (peerState === 'none') return { text: `${ended ?? 'which does not exist'}${event}`, isOwn }
  const name = nameIn(QpState.values, peerState)
  if (end?.how === 'reset')
    return { text: `${ended}${peerState === INIT ? ', and which is in INIT' : ''}${event}`, isOwn }
  return { text: `which is in ${name}${event}`, isOwn, ...(peerState !== ERR && { mayCome: true as const }) }
}

const infiniteTimeout = (qp: QpObject, { peer }: ConnectedPeer, { text }: Fate, peerDevice: PeerDevice): Wait => {
  const { qpn } = qp.state
  return {
    id: 'infinite-timeout',
    severity: 'warning',
    ...namingSend(
      qp,
      OLDEST,
      `QP ${hex(qpn)}: `,
      ` waits without limit for an answer (timeout 0) of QP ${hex(peer.qpn)} at ${peer.address}, ${text}`,
    ),
    qpns: [qpn, peer.qpn],
    ...peerDevice,
  }
}

type PeerDevice = Pick<Wait, 'peerDevice'>

/** The CQs and the queues from which a queue pair takes receives: an XRC target those of the SRQs of its domain. */
const receivesOf = (state: SoftState, qp: QpObject): { readonly queues: ReceiveQueue[]; readonly cqs: CqObject[] } => {
  const { domain, receive } = qp.state
  if (domain === undefined) return { queues: [receive], cqs: cqsOf(qp) }
  const srqs = [...state.srqs.values()].filter(srq => srq.state.domain === domain)
  return { queues: srqs.map(srq => srq.state.queue), cqs: srqs.flatMap(srq => cqsOf(srq)) }
}

/** The wait with more text. */
const withEnd = (wait: Wait, end: string): Wait => {
  const { text, request } = wait
  if (request?.around === undefined) return { ...wait, text: text + end }
  const [before, after] = request.around
  return { ...wait, text: text + end, request: { ...request, around: [before, after + end] } }
}

type GoneKind = 'send' | 'receive' | 'idle'

/** The waits of one program for peers that are gone: of each kind the first, and how many there are. */
interface GoneWaits {
  readonly first: Map<GoneKind, { readonly wait: Wait; readonly mayCome: boolean; count: number }>
  /** Whether another queue pair of the program has requests. */
  hasOthers: boolean
}

/** Collects the waits of programs for peers that are gone. At most one of each kind is kept for a program. */
class GonePeers {
  readonly #state: SoftState
  readonly #disconnected: ReadonlyMap<number, boolean> | undefined
  readonly #contexts = new Map<Context, GoneWaits>()

  constructor(state: SoftState, disconnected: ReadonlyMap<number, boolean> | undefined) {
    this.#state = state
    this.#disconnected = disconnected
  }

  #of(context: Context): GoneWaits {
    let waits = this.#contexts.get(context)
    if (waits === undefined) {
      waits = { first: new Map(), hasOthers: false }
      this.#contexts.set(context, waits)
    }
    return waits
  }

  /** Whether the peer of a queue pair in RTR or RTS is gone. Returns a wait that is reported by itself. */
  look(qp: QpObject, context: Context, peer: ConnectedPeer | undefined): Wait | boolean {
    const { state } = qp
    const sends = !state.send.isEmpty()
    const fate = peer && fateOf(peer, context.program, this.#disconnected?.get(state.qpn))
    const { queues, cqs } = receivesOf(this.#state, qp)
    const receives = queues.some(queue => !queue.isEmpty())
    if (peer === undefined || fate === undefined) {
      if (sends || receives) this.#of(context).hasOthers = true
      return false
    }
    const peerDevice = peer.device === undefined ? {} : { peerDevice: peer.device }
    if (sends && this.#state.engine().query(state.row).timeout === 0) return infiniteTimeout(qp, peer, fate, peerDevice)
    if ([...cqsOf(qp), ...cqs].some(cq => unpolledIn(cq) > 0)) return true
    // A program knows what it has done with its own queue pairs: what it waits for is told by other rules.
    if (sends || receives || fate.isOwn !== true)
      this.#add(qp, context, peer, fate, sends ? 'send' : receives ? 'receive' : 'idle')
    return true
  }

  #add(qp: QpObject, context: Context, { peer, device }: ConnectedPeer, fate: Fate, kind: GoneKind): void {
    const { first } = this.#of(context)
    const known = first.get(kind)
    if (known !== undefined) {
      known.count++
      return
    }
    const { qpn, domain } = qp.state
    const of = ` QP ${hex(peer.qpn)} at ${peer.address}, ${fate.text}`
    const told = {
      send: () => namingSend(qp, OLDEST, `QP ${hex(qpn)}: `, ` waits for an answer of${of}`),
      receive: () => ({
        text: `QP ${hex(qpn)} waits for a message of${of}`,
        ...(domain === undefined && { request: oldestReceive(qp) }),
      }),
      idle: () => ({ text: `QP ${hex(qpn)} has no request outstanding, and nothing comes from${of}` }),
    }[kind]()
    first.set(kind, {
      wait: {
        id: 'peer-gone',
        ...told,
        qpns: [qpn, peer.qpn],
        ...(fate.isUnread && { advice: READ_DISCONNECTED }),
        ...(device !== undefined && { peerDevice: device }),
      },
      mayCome: fate.mayCome === true,
      count: 1,
    })
  }

  /** The waits of all programs. */
  *waits(): Generator<ContextWait> {
    for (const [context, { first, hasOthers }] of this.#contexts)
      for (const [kind, { wait, mayCome, count }] of first) {
        // A program that waits for something else leaves other queue pairs idle.
        if (kind === 'idle' && (first.size > 1 || hasOthers)) continue
        const isNote = kind === 'idle' || mayCome || (kind === 'receive' && hasOthers)
        const others = count === 1 ? '' : ` (and ${count - 1} more of its queue pairs for theirs)`
        yield { context, wait: { ...withEnd(wait, others), ...(isNote && { severity: 'note' as const }) } }
      }
  }
}

/** Whether a queue pair has receives, no sends and nothing to poll. */
const onlyReceives = (qp: QpObject): boolean =>
  qp.state.send.isEmpty() && !qp.state.receive.isEmpty() && cqsOf(qp).every(cq => unpolledIn(cq) === 0)

const bothReceive = (qp: QpObject, peer: ConnectedPeer | undefined): Wait | undefined => {
  const other = peer && peerObject(peer)
  if (other === undefined || other === qp || !onlyReceives(qp) || !onlyReceives(other)) return undefined
  if (peer?.state !== undefined && isSilent(peer.state, other.state.row)) return undefined
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

/** Whether a queue pair has requests. */
const hasRequests = ({ state: { send, receive } }: QpObject): boolean =>
  !send.isEmpty() || send.retired() > 0 || !receive.isEmpty()

const waitsOfQp = (state: SoftState, qp: QpObject, context: Context, gone: GonePeers): Wait[] => {
  const { row, send, address } = qp.state
  const silent = isSilent(state, row) && hasRequests(qp) ? silentWait(context.device, qp.state.qpn) : undefined
  if (silent !== undefined) return [silent]
  const qpState = state.engine().stateOf(row)
  if (qpState !== RTS && qpState !== RTR) return []
  const peer = address === undefined ? undefined : state.failures.peerOf(row)
  const isGone = gone.look(qp, context, peer)
  if (typeof isGone === 'object') return [isGone]
  const found =
    qpState === RTS && !send.isEmpty()
      ? [isGone ? undefined : endlessRnr(state, qp, peer)]
      : [qpState === RTS ? notSignaled(state, qp) : undefined, bothReceive(qp, peer)]
  return found.filter(wait => wait !== undefined)
}

/** The peer of a queue pair of this device, if it is in this process and has sent. */
const senderTo = (state: SoftState, qpn: number): QpObject | undefined => {
  const receiver = state.qps[state.qpns.rowOf(qpn)]
  const peer = receiver?.state.address === undefined ? undefined : state.failures.peerOf(receiver.state.row)
  const sender = peer && peerObject(peer)
  return sender?.context === undefined || sender.state.send.retired() === 0 ? undefined : sender
}

/**
 * A CQ that is armed for solicited completions only, and has messages that are not solicited. No wait if such an event
 * has come before: then the sender sets IBV_SEND_SOLICITED in some of its messages.
 */
const notSolicited = (state: SoftState, cq: CqObject, unpolled: number): Wait | undefined => {
  const qpn =
    (cq.events?.state?.completions ?? 0) > 0 ? undefined : cq.state.lastReceiver(Math.min(unpolled, MAX_LOOKED))
  if (qpn === undefined) return undefined
  const { handle } = cq
  const sender = senderTo(state, qpn)
  const text = `CQ ${handle} is armed for solicited completions only (solicited_only of ibv_req_notify_cq), and ${counted(unpolled, 'completion')} came that ${unpolled === 1 ? 'is' : 'are'} not solicited: the sender`
  const wait = { id: 'lost-wakeup', cq: handle } as const
  if (sender?.context === undefined) return { ...wait, text: `${text} sets no IBV_SEND_SOLICITED`, qpns: [qpn] }
  const number = sender.state.qpn
  const before = `${text}, QP ${hex(number)}, sets no IBV_SEND_SOLICITED (its last send is `
  const named = namingSend(sender, LAST_RETIRED, before, ')')
  return {
    ...wait,
    text: named.text,
    qpns: [qpn, number],
    request: { ...named.request, context: sender.context.id },
  }
}

/** A CQ with completions whose program waits for an event, which does not come. */
const lostWakeup = (state: SoftState, cq: CqObject): Wait | undefined => {
  const { events, handle } = cq
  const channel = events?.route.channel
  if (events === undefined || channel === undefined) return undefined
  const unpolled = unpolledIn(cq)
  if (unpolled === 0 || channel.isClosed || channel.sink.unread() > 0) return undefined
  const completions = counted(unpolled, 'unpolled completion')
  const armed = armedFor(events)
  const threshold = events.state?.threshold
  if (armed === Armed.NEXT && threshold !== undefined && threshold.completions > 0 && threshold.armedPeriod === 0)
    return {
      id: 'lost-wakeup',
      text: `CQ ${handle} has ${completions}, and was armed while ibv_modify_cq asks for one event per ${threshold.armedCount} completions (cq_count), however long they take (cq_period 0)`,
      cq: handle,
    }
  if (armed === Armed.SOLICITED) return notSolicited(state, cq, unpolled)
  return {
    id: 'lost-wakeup',
    text:
      armed === Armed.NEXT
        ? `CQ ${handle} was armed with ${completions} in it, which raise no event`
        : `CQ ${handle} has ${completions}, and is not armed (ibv_req_notify_cq), so its channel has no event`,
    cq: handle,
  }
}

/** Queues that are looked at in a step. */
const STEP = 32

/**
 * The waits of all programs for queues of a device, in no order; undefined between steps. `disconnected`: as in
 * `NetworkDevice.waits`.
 */
export function* waitsOfDevice(
  state: SoftState,
  disconnected?: ReadonlyMap<number, boolean>,
): Generator<ContextWait | undefined, void> {
  // The TypeScript library arms its CQs itself, and polls them on an event.
  const isProgram = (context: Context | undefined): context is Context =>
    context !== undefined && context.mapped?.packed === undefined
  let looked = 0
  const gone = new GonePeers(state, disconnected)
  for (let row = 0; row < state.qps.length; row++) {
    const object = state.qps[row]
    if (object?.state.row === row && isProgram(object.context))
      for (const wait of waitsOfQp(state, object, object.context, gone)) yield { context: object.context, wait }
    if (++looked % STEP === 0) yield undefined
  }
  yield* gone.waits()
  for (const cq of state.cqs.values()) {
    const wait = isProgram(cq.context) ? lostWakeup(state, cq) : undefined
    if (wait !== undefined && cq.context !== undefined) yield { context: cq.context, wait }
    if (++looked % STEP === 0) yield undefined
  }
}
