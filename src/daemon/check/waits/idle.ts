/*
 * What a program waits for of which no other rule knows a reason: the first rule that applies to the requests, queues
 * and completions of its context says why none of them can complete, or what is outstanding. For devices of any driver.
 */
import { counted, hex } from '../../../base/text.ts'
import {
  type ContextWait,
  isQueuePair,
  type QueuePairObject,
  type RequestReader,
} from '../../../core/driver-contract.ts'
import type { Context, CoreObject } from '../../../core/model.ts'
import type { Wait } from '../../../spec/check/waits.ts'
import { isSrqClass } from '../../../spec/classes/ids.ts'
import { nameIn, QpState } from '../../../spec/enums.ts'
import { cqsOf, isCq } from '../../context/queues.ts'
import { type DaemonDevice, type Devices, devicesWith } from '../../devices/devices.ts'

const { RESET, INIT, RTR, RTS, SQD, ERR } = QpState.values

/** Queues of a context that are counted. */
const MAX_QUEUES = 256

interface QueuePair {
  readonly name: string
  readonly object: QueuePairObject
  /** `QpState`; undefined: unknown. */
  readonly state: number | undefined
  readonly sends: number
  /** `RequestReader.unannouncedSends` */
  readonly unannounced: number
  /** Receives of its own. */
  readonly receives: number
  /** The shared receive queue that it takes receives from, and how many there are. */
  readonly shared: { readonly handle: number; readonly receives: number } | undefined
}

interface Cq {
  readonly handle: number
  readonly written: number
  readonly unpolled: number
}

/** What the queues of a context have. */
interface Facts {
  readonly queuePairs: readonly QueuePair[]
  /** Receives of all queues. */
  readonly receives: number
  readonly sends: number
  /** With at least one. */
  readonly cqs: readonly Cq[]
  readonly written: number
  /** Unread asynchronous events of the context. */
  readonly unreadEvents: number
  /** Of a connected queue pair: what its peer has; undefined: unknown. */
  peerOf(qp: QueuePair): string | undefined
  /** How often the transport timer of a queue pair has expired since the last answer. */
  timeoutsOf(qp: QueuePair): number
}

const is = (count: number, one: string, many: string): string => (count === 1 ? one : many)
const isSrq = ({ class: { name } }: CoreObject): boolean => isSrqClass(name)

/** The queue pair that a queue pair is connected to, and who has it; undefined: none, or none of this daemon. */
const peerText = (devices: Devices, { object }: QueuePair, requests: RequestReader): string | undefined => {
  const peer = requests.peerOf?.(object)
  if (peer === undefined) return undefined
  for (const { device, network } of devicesWith(devices, peer.gid)) {
    const found = network?.queues?.qpOfNumber(peer.qpn)
    if (found === undefined || !isQueuePair(found) || found === object) continue
    const sends = device.driver.requests?.pendingSends?.(found)
    const owner = found.context?.program
    const whose = owner === undefined ? '' : ` of process ${owner.pid} (${owner.command})`
    if (sends === 0) return `its peer, QP ${hex(peer.qpn)}${whose}, has no send outstanding`
  }
  return undefined
}

const factsOf = (devices: Devices, { network }: DaemonDevice, context: Context): Facts | undefined => {
  const { requests } = context.device.driver
  if (requests?.queuesOf === undefined || requests.completions === undefined) return undefined
  const receivesOf = (queue: CoreObject): number => requests.receives?.(queue, 0).length ?? 0
  const objects = new Set<CoreObject>()
  const queuePairs: QueuePair[] = []
  let receives = 0
  let looked = 0
  for (const queue of requests.queuesOf(context)) {
    if (looked++ === MAX_QUEUES) return undefined
    const own = receivesOf(queue)
    receives += own
    for (const parent of queue.parents) if (isCq(parent)) objects.add(parent)
    if (!isQueuePair(queue)) continue
    const { qpn } = queue.state
    const srq = queue.parents.find(isSrq)
    queuePairs.push({
      name: `QP ${hex(qpn)}`,
      object: queue,
      state: network?.queues?.qp(queue)?.state,
      sends: requests.pendingSends?.(queue) ?? 0,
      unannounced: requests.unannouncedSends?.(queue) ?? 0,
      receives: own,
      shared: srq && { handle: srq.handle, receives: receivesOf(srq) },
    })
  }
  for (const cq of cqsOf(context)) objects.add(cq)
  const cqs = [...objects].map(cq => {
    const { written = 0, polled = 0 } = requests.completions?.(cq) ?? {}
    return { handle: cq.handle, written, unpolled: written - polled }
  })
  if (cqs.length === 0) return undefined
  return {
    queuePairs,
    receives,
    sends: queuePairs.reduce((sum, { sends }) => sum + sends, 0),
    cqs,
    written: cqs.reduce((sum, { written }) => sum + written, 0),
    unreadEvents: context.asyncFd?.isClosed === false ? context.asyncFd.sink.unread() : 0,
    peerOf: qp => peerText(devices, qp, requests),
    timeoutsOf: ({ object }) => requests.timeouts?.(object) ?? 0,
  }
}

// ---- why nothing can complete ----

/** A sentence without its full stop, and what to do, where these facts tell it. */
type Reason = Pick<Wait, 'text' | 'details' | 'advice'> & Pick<ContextWait, 'key'>

/** Undefined: the rule does not apply. */
type Rule = (facts: Facts) => Reason | undefined

const hasUnpolled = ({ cqs }: Facts): boolean => cqs.some(({ unpolled }) => unpolled > 0)

/** An error without a completion of its own: that of a responder, or of a receiver of UC. */
const unreadError: Rule = facts => {
  const qp = facts.queuePairs.find(({ state, sends }) => state === ERR && sends === 0)
  if (qp === undefined || facts.unreadEvents === 0 || hasUnpolled(facts)) return undefined
  return {
    text: `${qp.name} is in ERR, and ${counted(facts.unreadEvents, 'asynchronous event')} of its context ${is(facts.unreadEvents, 'was', 'were')} delivered and not read (ibv_get_async_event): only an event tells of the refused access of a peer`,
    advice:
      'read the asynchronous events of the context (ibv_get_async_event), and end the wait when one tells of the end of the connection',
  }
}

const notConnected: Rule = facts => {
  const qp = facts.queuePairs.find(({ state, receives }) => (state === RESET || state === INIT) && receives > 0)
  if (qp?.state === undefined || hasUnpolled(facts)) return undefined
  return {
    text: `${qp.name} is in ${nameIn(QpState.values, qp.state)}, so no message comes for its ${counted(qp.receives, 'receive')}: it was not moved to RTR (ibv_modify_qp)`,
    advice: 'connect the queue pair before the wait',
  }
}

const noneConnected: Rule = ({ queuePairs, written }) => {
  const [first] = queuePairs
  if (first?.state === undefined || written > 0) return undefined
  if (!queuePairs.every(({ state }) => state === RESET || state === INIT)) return undefined
  const count = queuePairs.length
  return {
    text: `${first.name}${count === 1 ? '' : ` and all its queue pairs, ${count},`} ${is(count, 'is', 'are')} in ${nameIn(QpState.values, first.state)}: ${is(count, 'it was not', 'none was')} connected (ibv_modify_qp, rdma_connect), and no completion can come`,
    advice: 'connect a queue pair before the wait',
  }
}

/** An adapter fetches what the doorbell tells it, whatever lies in the queue. */
const unannounced: Rule = facts => {
  const qp = facts.queuePairs.find(one => one.state === RTS && one.unannounced > 0)
  if (qp === undefined || hasUnpolled(facts)) return undefined
  const many = qp.unannounced
  return {
    text: `${counted(many, 'request')} ${is(many, 'lies', 'lie')} in the send queue of ${qp.name}, and its doorbell record does not count ${is(many, 'it', 'them')}: the device was not told of ${is(many, 'it', 'them')}`,
    advice:
      'after the blocks are written, write their number to the doorbell record (dbrec[MLX5_SND_DBR]), and then store to the doorbell register (bf.reg)',
  }
}

/** Sends in SQD begin when the queue pair is in RTS again (IBA 10.3.1.5). */
const drained: Rule = ({ queuePairs }) => {
  const qp = queuePairs.find(({ state, sends }) => state === SQD && sends > 0)
  return (
    qp && {
      text: `${qp.name} is in SQD, so ${counted(qp.sends, 'send')} that ${is(qp.sends, 'was', 'were')} posted ${is(qp.sends, 'does', 'do')} not begin before it is in RTS again (ibv_modify_qp)`,
      advice: 'move the queue pair to RTS after the event SQ_DRAINED, before the wait',
    }
  )
}

/** Receives of an SRQ belong to no queue pair, so none is flushed (IBA 10.2.9.3). */
const notFlushed: Rule = facts => {
  const qp = facts.queuePairs.find(({ state, shared }) => state === ERR && shared !== undefined && shared.receives > 0)
  if (qp?.shared === undefined || hasUnpolled(facts)) return undefined
  const { handle, receives } = qp.shared
  return {
    text: `${qp.name} is in ERR, and the ${counted(receives, 'receive')} of SRQ ${handle}, from which it takes them, ${is(receives, 'stays', 'stay')} posted: a queue pair flushes none of an SRQ (the event LAST_WQE_REACHED says that it takes no more)`,
    advice: 'wait for the event LAST_WQE_REACHED in place of flushed receives',
  }
}

/** A queue pair that gets no messages any more, and no other one has requests. */
const inError: Rule = facts => {
  const qp = facts.queuePairs.find(({ state }) => state === ERR)
  if (qp === undefined || hasUnpolled(facts) || facts.sends > 0 || facts.receives > 0) return undefined
  const polled = facts.written === 0 ? '' : `, and the program has polled all completions, ${facts.written}`
  return {
    text: `${qp.name} is in ERR, where it gets no message, no other request is outstanding${polled}: no further completion comes`,
  }
}

const unpolled: Rule = ({ cqs }) => {
  const waiting = cqs.filter(one => one.unpolled > 0)
  const [first] = waiting
  if (first === undefined) return undefined
  const total = waiting.reduce((sum, one) => sum + one.unpolled, 0)
  const others = cqs.filter(one => one.unpolled === 0 && one.written > 0)
  const rest = others
    .slice(0, 2)
    .map(({ handle, written }) => `; of CQ ${handle} all ${written} were polled, and none is outstanding`)
  const which = is(waiting.length, `CQ ${first.handle}`, `${waiting.length} CQs`)
  return {
    text: `${counted(total, 'completion')} of ${which} ${is(total, 'is', 'are')} not polled${rest.join('')}`,
    advice: `poll ${waiting.length === 1 ? which : `CQ ${first.handle} and the others`} in the wait: only a poll tells the program of completions`,
  }
}

const outstanding: Rule = ({ sends, written, queuePairs, timeoutsOf }) => {
  if (sends === 0) return undefined
  const waiting = queuePairs.filter(qp => qp.sends > 0)
  const [first] = waiting
  const details = waiting.flatMap(qp => {
    const timeouts = timeoutsOf(qp)
    return timeouts === 0
      ? []
      : [`the oldest send of ${qp.name} was sent ${timeouts + 1} times, and no answer of the peer has come`]
  })
  const after = written === 0 ? '' : ` after ${counted(written, 'completion')}`
  return {
    text: `${counted(sends, 'send')} of it ${is(sends, 'is', 'are')} outstanding${first ? ` (${first.name})` : ''}, and none ends${after}`,
    details,
  }
}

const nothing: Rule = facts => {
  const { queuePairs, receives, written } = facts
  const count = queuePairs.length
  const owned =
    count === 0
      ? 'it has no queue pair'
      : `its ${counted(count, 'queue pair')} ${is(count, 'has', 'have')} no send outstanding`
  const polled = written === 0 ? '' : `, and the program has polled all completions of its CQs, ${written}`
  const connected = queuePairs.filter(({ state }) => state === RTR || state === RTS)
  const peer = connected.length === 1 ? facts.peerOf(connected[0]!) : undefined
  const and = peer === undefined ? '' : `; ${peer}`
  const text =
    receives > 0
      ? `${owned}${polled}: only a message for one of its ${counted(receives, 'receive')} brings a completion, and none comes`
      : `${owned}${count === 0 ? '' : ' and no receive posted'}${polled}: no completion can come`
  // A peer that goes on without messages has sends outstanding now and then.
  return { text: `${text}${and}`, key: text }
}

/** The first that applies says it. */
const rules: readonly Rule[] = [
  notFlushed,
  unreadError,
  notConnected,
  noneConnected,
  drained,
  unannounced,
  inError,
  unpolled,
  outstanding,
  nothing,
]

interface Idle {
  readonly context: Context
  readonly facts: Facts
  readonly reason: Reason
}

/** `known`: contexts whose waits were found otherwise; their programs are left out. Undefined between steps. */
export function* idleWaits(devices: Devices, known: readonly Context[]): Generator<ContextWait | undefined> {
  const explained = new Set(known)
  const programs = new Set(known.flatMap(({ program }) => (program?.life === undefined ? [] : [program.life])))
  const idle: Idle[] = []
  for (const found of [...devices.all])
    for (const context of [...found.device.contexts]) {
      yield undefined
      // The TypeScript library polls its CQs on an event.
      if (context.mapped === undefined || context.mapped.packed !== undefined || explained.has(context)) continue
      if (context.program?.life !== undefined && programs.has(context.program.life)) continue
      const facts = factsOf(devices, found, context)
      const reason = facts && rules.map(rule => rule(facts)).find(one => one !== undefined)
      if (facts !== undefined && reason !== undefined) idle.push({ context, facts, reason })
    }
  for (const {
    context,
    facts,
    reason: { key, ...reason },
  } of idle) {
    const { program } = context
    // Libraries open devices that they do not use.
    const isUnused = facts.queuePairs.length === 0 && facts.written === 0
    const others = idle.some(one => one.context !== context && one.context.program?.life === program?.life)
    if (!(isUnused && others))
      yield {
        context,
        wait: { id: 'idle-queues', ...reason, cq: facts.cqs[0]!.handle },
        // Meanwhile no completion came.
        key: `${key ?? reason.text} ${facts.written}`,
      }
  }
}
