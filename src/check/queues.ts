/*
 * Findings about the use of queues:
 * - send queues that fill because no send is signaled;
 * - receives that are posted after the first message;
 * - completions that are never polled;
 * - CQs that are never armed (ibv_req_notify_cq), or armed with unpolled completions;
 * - sends that are outstanding when the program moves its queue pair to ERR, or ends its connection;
 * - regions that are deregistered before the completions of their requests are polled.
 */

import type { Stack } from '../spec/check/findings.ts'
import { type RequestCompletion, takesReceive, type WorkRequest } from '../spec/check/requests.ts'
import { nameIn, QpState } from '../spec/enums.ts'
import { PostQueue } from '../spec/session.ts'
import { WcStatus } from '../spec/work.ts'
import { isRead, requestText, usesRegion } from './buffers.ts'
import type { Detector, DetectorServices } from './detector.ts'
import type { CheckedCall } from './events.ts'
import { type KnownObject, unreleasedIn } from './objects.ts'

const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values
const { ERR } = QpState.values

/** RNR NAKs before the first receive that make a finding, if the first is at least WAITING_MICROSECONDS ago. */
const MANY_RNR_NAKS = 64
/** A program that has not polled a non-empty CQ for this time is taken to wait for the CQ's event. */
const WAITING_MICROSECONDS = 1_000_000
/** Maximum entries of `unpolledReads`. More than any max_dest_rd_atomic, which has 8 bits. */
const MAX_COUNTED_READS = 256

interface UnpolledCompletion {
  readonly request: WorkRequest
  readonly completion: RequestCompletion
  readonly qp: KnownObject
  /** The queue pair was reset or destroyed: it uses no memory, and adapters may remove its completions from the CQ. */
  isOver: boolean
}

interface CqState {
  /** Oldest first. */
  readonly unpolled: UnpolledCompletion[]
  /**
   * The call that armed the CQ with unpolled completions. Undefined after a completion, a call, or a poll of the last
   * of them. `time`: of the call or of the last poll. `wasPolled`: some of the completions were polled.
   */
  armingCall: { readonly time: number; readonly stack: Stack; readonly wasPolled: boolean } | undefined
  /** The stack of the last call that armed the CQ. */
  lastArming: Stack | undefined
  /**
   * When the first successful completion came, in microseconds; infinite: none came. Undefined: the program has armed
   * or polled the CQ, or has given it no channel.
   */
  unnoticedSince: number | undefined
}

interface QueueState {
  /** Number of unsignaled sends since the last signaled one. */
  unsignaled: number
  /** `WorkRequest.index` of READs and atomics that the program has not polled, oldest first. */
  readonly unpolledReads: number[]
  postedReceives: number
  /** Receives that messages have taken. */
  takenReceives: number
  /** Number of outstanding sends that take a receive of the peer. */
  outstandingMessages: number
  /** When the first message came before any receive, in microseconds. Undefined after a receive. */
  rnrSince: number | undefined
  /** Number of RNR NAKs before the first receive, and whether they are a finding already. */
  rnrNaks: number
  isReported: boolean
  /** The call that moved the queue pair to ERR. */
  errCall: CheckedCall | undefined
  /** Number of sends that this call flushed. */
  flushedSends: number
}

/** The completions in a CQ that the program cannot have polled. */
const unpolledOf = (cq: KnownObject, { unpolled }: CqState): UnpolledCompletion[] => unpolled.slice(unreleasedIn(cq))

/** Whether a request failed. Not if it failed because its program ended: finding `program-ended`. */
const isFailed = ({ completion: { status }, qp }: UnpolledCompletion): boolean =>
  status !== SUCCESS && status !== WR_FLUSH_ERR && qp.failure?.cause.id !== 'LOCAL_ENDED'

/** Whether the program has given the CQ a channel. The TypeScript library uses its own channel, and arms the CQ. */
const hasChannel = (cq: KnownObject | undefined): boolean => cq?.uses.has('channel') === true && !cq.isOfLibrary

const counted = (number: number, noun: string): string => `${number} ${noun}${number === 1 ? '' : 's'}`

export interface QueueDetector extends Detector {
  /** One line: the peer's receives, and the sender's outstanding messages. None for an XRC target. */
  receiveCounts(sender: KnownObject, peer: KnownObject): string[]
  /** `count` sends of a queue pair were flushed because the program moved it to ERR, or ended its connection. */
  sendsFlushed(qp: KnownObject, count: number): void
  /**
   * A finding says that the program waits for an event of this CQ: no other one follows. Returns the stack of the call
   * that armed the CQ last; undefined: none has.
   */
  reportsWait(cq: KnownObject): Stack | undefined
}

export const createQueueDetector = (services: DetectorServices): QueueDetector => {
  /** By queue (WorkRequest.owner). */
  const queues = new Map<number, QueueState>()
  const cqs = new Map<number, CqState>()

  const queueOf = (id: number): QueueState => {
    let state = queues.get(id)
    if (state === undefined) {
      const counts = {
        unsignaled: 0,
        postedReceives: 0,
        takenReceives: 0,
        outstandingMessages: 0,
        rnrNaks: 0,
        isReported: false,
        flushedSends: 0,
      }
      state = { ...counts, unpolledReads: [], rnrSince: undefined, errCall: undefined }
      queues.set(id, state)
    }
    return state
  }
  const cqOf = (id: number): CqState => {
    let state = cqs.get(id)
    if (state === undefined) {
      state = {
        unpolled: [],
        armingCall: undefined,
        lastArming: undefined,
        unnoticedSince: Number.POSITIVE_INFINITY,
      }
      cqs.set(id, state)
    }
    return state
  }
  /** The receive queue of a queue pair, or its SRQ. Not for an XRC target: its messages select the SRQ. */
  const receiveQueueOf = (qp: KnownObject): QueueState => queueOf((qp.uses.get('srq') ?? qp).id)

  const readPosted = (qp: KnownObject, { index }: WorkRequest, { unpolledReads }: QueueState): void => {
    if (unpolledReads.length < MAX_COUNTED_READS) unpolledReads.push(index)
    qp.mostReads = Math.max(qp.mostReads, unpolledReads.length - unreleasedIn(qp))
  }

  /** The program has polled the completion of a request, so it knows that earlier sends of the queue are complete. */
  const requestPolled = ({ owner, queue, index }: WorkRequest): void => {
    const unpolledReads = queue === PostQueue.SEND ? queues.get(owner)?.unpolledReads : undefined
    if (unpolledReads === undefined) return
    while (unpolledReads.length > 0 && unpolledReads[0]! <= index) unpolledReads.shift()
  }

  const sendPosted = (request: WorkRequest): void => {
    const state = queueOf(request.owner)
    if (takesReceive(request)) state.outstandingMessages++
    state.unsignaled = request.isSignaled ? 0 : state.unsignaled + 1
    const qp = services.objects.find(request.owner)
    if (qp !== undefined && isRead(request)) readPosted(qp, request, state)
    const size = qp?.limits.maxSendWr ?? qp?.requestedSends
    // Once per row: at the first send for which the queue has no room.
    if (qp === undefined || size === undefined || state.unsignaled !== size + 1) return
    const text = `${qp.name} has had ${counted(state.unsignaled, 'unsignaled send')} in a row, and max_send_wr is ${size}`
    services.report('never-signaled', services.occurrenceAtPost(qp, request), { text, objects: [qp] })
  }

  const receivePosted = (request: WorkRequest): void => {
    const state = queueOf(request.owner)
    state.postedReceives++
    if (state.rnrSince === undefined) return
    const queue = services.objects.find(request.owner)
    const waitedMicroseconds = request.time - state.rnrSince
    state.rnrSince = undefined
    if (queue === undefined) return
    const text = `${queue.name} got its first receive ${(waitedMicroseconds / 1000).toFixed(1)} ms after a message had come for it`
    services.report('late-receives', services.occurrenceAtPost(queue, request), { text, objects: [queue] })
  }

  const reportNoReceive = (qp: KnownObject, { rnrNaks }: QueueState): void => {
    const text = `${qp.name} has answered a message with RNR NAK ${rnrNaks} times: no receive was posted yet`
    const { stack, action } = qp.creation
    services.report('late-receives', services.occurrenceAt(qp, stack, action), { text, objects: [qp] })
  }

  /**
   * Called at a completion to a CQ and at a call on the CQ. Reports if the CQ was armed with completions in it, and not
   * polled for WAITING_MICROSECONDS. A CQ that was polled in part is reported only when it is destroyed (`isEnd`),
   * because a program may take long for each completion.
   */
  const checkArmed = (cq: KnownObject | undefined, state: CqState, isEnd: boolean): void => {
    const { armingCall } = state
    if (armingCall?.wasPolled && !isEnd) return
    state.armingCall = undefined
    if (armingCall === undefined || cq === undefined) return
    if (services.sources.now() - armingCall.time < WAITING_MICROSECONDS) return
    const completions = counted(unpolledOf(cq, state).length, 'unpolled completion')
    const text = armingCall.wasPolled
      ? `${cq.name} was armed and then polled in part: ${completions} are left in it, which raise no event`
      : `${cq.name} was armed with ${completions} in it, and was not polled afterwards`
    services.report('lost-wakeup', services.occurrenceAt(cq, armingCall.stack), { text, objects: [cq] })
  }

  /** A CQ was destroyed: reports if it was neither armed nor polled, and had a completion for a second. */
  const checkNeverArmed = (cq: KnownObject, { unnoticedSince, unpolled }: CqState): void => {
    if (unnoticedSince === undefined || unpolled.length === 0) return
    if (services.sources.now() - unnoticedSince < WAITING_MICROSECONDS) return
    const text = `${cq.name} was never armed (ibv_req_notify_cq) nor polled, so its channel had no event for ${counted(unpolled.length, 'completion')} in it`
    const { stack, action } = cq.creation
    services.report('lost-wakeup', services.occurrenceAt(cq, stack, action), { text, objects: [cq] })
  }

  /** A CQ was destroyed: reports completions that were never polled, unless all were flushed. */
  const cqDestroyed = (cq: KnownObject, stack: Stack): void => {
    const state = cqs.get(cq.id)
    if (state === undefined) return
    cqs.delete(cq.id)
    checkArmed(cq, state, true)
    checkNeverArmed(cq, state)
    const unpolled = unpolledOf(cq, state)
    const failed = unpolled.find(isFailed)
    const first = failed ?? unpolled.find(({ completion: { status } }) => status === SUCCESS)
    if (first === undefined) return
    const owner = services.objects.find(first.request.owner)
    const name = `${requestText(first.request)}: ${nameIn(WcStatus.values, first.completion.status)}`
    const text = `${cq.name} ends with ${counted(unpolled.length, 'completion')} that the program never polled: ${name}`
    services.report('completions-unpolled', services.occurrenceAt(cq, stack), {
      text,
      severity: failed === undefined ? 'note' : 'warning',
      moments: [services.postMoment(first.request)],
      objects: [cq, owner],
    })
  }

  /**
   * A queue pair ends: reports sends that its move to ERR flushed. As a note if the program has polled their
   * completions, or they had none: then it may know.
   */
  const checkFlushed = (qp: KnownObject): void => {
    const { errCall, flushedSends } = queueOf(qp.id)
    if (errCall === undefined || flushedSends === 0) return
    const isUnpolled = [...cqs].some(([id, state]) => {
      const cq = services.objects.find(id)
      const isOfQp = ({ request, completion }: UnpolledCompletion): boolean =>
        request.owner === qp.id && request.queue === PostQueue.SEND && completion.status === WR_FLUSH_ERR
      return cq !== undefined && unpolledOf(cq, state).some(isOfQp)
    })
    const text = `${qp.name} was moved to ERR with ${counted(flushedSends, 'send')} outstanding, whose messages may be lost`
    services.report('sends-lost', errCall, { text, ...(!isUnpolled && { severity: 'note' }), objects: [qp] })
  }

  /** A program has deregistered a region: reports an unpolled success of a request that uses the region. */
  const deregistered = (region: KnownObject, stack: Stack): void => {
    for (const [id, state] of cqs) {
      const cq = services.objects.find(id)
      if (cq?.device !== region.device) continue
      const user = unpolledOf(cq, state).find(
        ({ request, completion: { status }, isOver }) => !isOver && status === SUCCESS && usesRegion(request, region),
      )?.request
      const owner = user && services.objects.find(user.owner)
      if (user === undefined || owner === undefined) continue
      const text = `${region.name} was deregistered before the completion of ${requestText(user)} of ${owner.name} was polled`
      services.report('region-in-use', services.occurrenceAt(region, stack), {
        text,
        severity: 'warning',
        moments: [services.postMoment(user)],
        objects: [region, owner],
      })
      return
    }
  }

  return {
    posted(request) {
      if (request.queue === PostQueue.SEND) sendPosted(request)
      else receivePosted(request)
    },
    ended(request) {
      if (takesReceive(request)) queueOf(request.owner).outstandingMessages--
    },
    completed(request, completion) {
      const { qp, cq, status } = completion
      if (request.queue !== PostQueue.SEND && status !== WR_FLUSH_ERR) queueOf(request.owner).takenReceives++
      // An unsignaled send that failed or was flushed: its completion frees its slot.
      if (!request.isSignaled) queueOf(request.owner).unsignaled = 0
      const state = cqOf(cq)
      if (state.armingCall !== undefined) {
        checkArmed(services.objects.find(cq), state, false)
        // This completion raises an event.
        state.armingCall = undefined
      }
      if (state.unnoticedSince === Number.POSITIVE_INFINITY && status === SUCCESS)
        state.unnoticedSince = hasChannel(services.objects.find(cq)) ? services.sources.now() : undefined
      const known = completion.cqPosition > 0 ? services.objects.find(qp) : undefined
      if (known !== undefined) state.unpolled.push({ request, completion, qp: known, isOver: false })
    },
    receiverNotReady(id) {
      const qp = services.objects.find(id)
      // UC and UD drop the message: finding `message-dropped`. An XRC target has no receive queue of its own.
      if (qp?.class !== 'rc_qp') return
      const state = receiveQueueOf(qp)
      if (state.postedReceives > 0) return
      const now = services.sources.now()
      state.rnrSince ??= now
      state.rnrNaks++
      if (state.isReported || state.rnrNaks < MANY_RNR_NAKS || now - state.rnrSince < WAITING_MICROSECONDS) return
      state.isReported = true
      reportNoReceive(qp, state)
    },
    polled(id, count) {
      const state = cqOf(id)
      state.unnoticedSince = undefined
      let removed = 0
      for (; removed < state.unpolled.length; removed++) {
        const { request, completion } = state.unpolled[removed]!
        if (completion.cqPosition > count) break
        requestPolled(request)
      }
      if (removed === 1) state.unpolled.shift()
      else state.unpolled.splice(0, removed)
      const { armingCall } = state
      if (armingCall === undefined) return
      const isLeft = state.unpolled.length > 0
      state.armingCall = isLeft ? { ...armingCall, time: services.sources.now(), wasPolled: true } : undefined
    },
    queueReset(id) {
      const qp = services.objects.find(id)
      if (qp?.isQp) checkFlushed(qp)
      queues.delete(id)
      for (const { unpolled } of cqs.values()) for (const one of unpolled) if (one.qp.id === id) one.isOver = true
    },
    calling({ class: name, method, args, stack }, object) {
      if (name !== 'cq') return
      const state = cqOf(object.id)
      checkArmed(object, state, false)
      if (method !== 'reqNotify') return
      state.unnoticedSince = undefined
      state.lastArming = stack
      // A program that arms for solicited completions waits for no other ones.
      const isAwaited = ({ completion }: UnpolledCompletion): boolean => !args.solicitedOnly || completion.solicited
      if (unpolledOf(object, state).some(isAwaited))
        state.armingCall = { time: services.sources.now(), stack, wasPolled: false }
    },
    called(call, object) {
      const { class: name, method, stack, refused, why, args } = call
      if (refused !== undefined) return
      if (object.isQp && method === 'modify' && args.state === ERR) queueOf(object.id).errCall = call
      if (method !== 'destroy') return
      if (name === 'mr' && why === 'call') deregistered(object, stack)
      if (name === 'cq') cqDestroyed(object, stack)
    },
    reportsWait(cq) {
      const state = cqOf(cq.id)
      state.armingCall = undefined
      state.unnoticedSince = undefined
      return state.lastArming
    },
    sendsFlushed(qp, count) {
      queueOf(qp.id).flushedSends += count
    },
    receiveCounts(sender, peer) {
      if (peer.class === 'xrc_tgt_qp') return []
      const { postedReceives, takenReceives } = receiveQueueOf(peer)
      const { outstandingMessages } = queueOf(sender.id)
      return [
        `${peer.name} has had ${counted(postedReceives, 'receive')}, and messages took ${takenReceives}; ${sender.name} sends ${outstandingMessages} more`,
      ]
    },
  }
}
