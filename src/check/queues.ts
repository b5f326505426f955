/*
 * Queues of requests and completions: send queues that cannot drain, receives that are posted too late, completions
 * that are never polled, and CQs that are armed with completions in them.
 */

import type { Stack } from '../spec/check/findings.ts'
import { type RequestCompletion, takesReceive, type WorkRequest } from '../spec/check/requests.ts'
import { nameIn } from '../spec/enums.ts'
import { PostQueue } from '../spec/session.ts'
import { WcStatus } from '../spec/work.ts'
import { requestText } from './buffers.ts'
import type { KnownObject } from './objects.ts'
import type { Topic, World } from './topic.ts'

const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values

/** Number of polled completions that seem unpolled: the library releases the slot of a polled completion with its next poll. */
const heldBy = ({ program }: KnownObject): number => (program === undefined ? 1 : 0)

/** A program that has armed a CQ and has not polled for this time is waiting for its event. */
const WAITING_MICROSECONDS = 1_000_000

interface Unpolled {
  readonly request: WorkRequest
  readonly completion: RequestCompletion
}

interface CqState {
  readonly unpolled: Unpolled[]
  /** Since it was armed with unpolled completions, and nothing was polled. */
  armed: { readonly time: number; readonly stack: Stack } | undefined
}

interface QueueState {
  /** Unsignaled sends since the last signaled one. */
  unsignaled: number
  /** Numbers of receives that were posted, and of those that messages took. */
  receives: number
  taken: number
  /** Number of messages that are being sent. */
  messages: number
  /** When a message found no receive, while none had ever been posted. */
  starved: number | undefined
}

const count = (number: number, what: string): string => `${number} ${what}${number === 1 ? '' : 's'}`

export interface QueueTopic extends Topic {
  /** The number of receives that a queue pair had, and of those needed for its peer's messages. */
  receiveCounts(own: KnownObject, peer: KnownObject): string[]
}

export const createQueues = (world: World): QueueTopic => {
  const queues = new Map<number, QueueState>()
  const cqs = new Map<number, CqState>()

  const queueOf = (id: number): QueueState => {
    let state = queues.get(id)
    if (state === undefined) {
      state = { unsignaled: 0, receives: 0, taken: 0, messages: 0, starved: undefined }
      queues.set(id, state)
    }
    return state
  }
  const cqOf = (id: number): CqState => {
    let state = cqs.get(id)
    if (state === undefined) {
      state = { unpolled: [], armed: undefined }
      cqs.set(id, state)
    }
    return state
  }
  /** The queue of receives of a queue pair: its own, or a shared one. */
  const receivesOf = (qp: KnownObject): QueueState => queueOf((qp.uses.get('srq') ?? qp).id)

  const sent = (request: WorkRequest): void => {
    const state = queueOf(request.owner)
    if (takesReceive(request)) state.messages++
    state.unsignaled = request.isSignaled ? 0 : state.unsignaled + 1
    const own = world.objects.find(request.owner)
    const most = own?.limits.maxSendWr ?? own?.sends
    if (own === undefined || most === undefined || state.unsignaled !== most + 1) return
    const text = `${own.name} has had ${count(state.unsignaled, 'unsignaled send')} in a row, and its queue holds ${most}`
    world.find('never-signaled', world.placeOfPost(own, request), { text, objects: [own] })
  }

  const received = (request: WorkRequest): void => {
    const state = queueOf(request.owner)
    state.receives++
    if (state.starved === undefined) return
    const own = world.objects.find(request.owner)
    const waited = request.time - state.starved
    state.starved = undefined
    if (own === undefined) return
    const text = `${own.name} got its first receive ${(waited / 1000).toFixed(1)} ms after a message had come for it`
    world.find('late-receives', world.placeOfPost(own, request), { text, objects: [own] })
  }

  /** A CQ is used again or ends: reports it if it was armed too late, and its program has waited since. */
  const endWait = (own: KnownObject | undefined, cq: CqState): void => {
    const { armed, unpolled } = cq
    cq.armed = undefined
    if (armed === undefined || own === undefined || world.sources.now() - armed.time < WAITING_MICROSECONDS) return
    const text = `${own.name} was armed with ${count(unpolled.length, 'unpolled completion')} in it, and was not polled afterwards`
    world.find('lost-wakeup', world.placeOf(own, armed.stack), { text, objects: [own] })
  }

  const endCq = (cq: KnownObject, stack: Stack): void => {
    const state = cqs.get(cq.id)
    if (state === undefined) return
    cqs.delete(cq.id)
    endWait(cq, state)
    const unpolled = state.unpolled.slice(heldBy(cq))
    const isFailed = ({ completion: { status } }: Unpolled): boolean => status !== SUCCESS && status !== WR_FLUSH_ERR
    const failed = unpolled.find(isFailed)
    const first = failed ?? unpolled.find(({ completion: { status } }) => status === SUCCESS)
    if (first === undefined) return
    const owner = world.objects.find(first.request.owner)
    const name = `${requestText(first.request)}: ${nameIn(WcStatus.values, first.completion.status)}`
    const text = `${cq.name} ends with ${count(unpolled.length, 'completion')} that the program never polled: ${name}`
    world.find('completions-unpolled', world.placeOf(cq, stack), {
      text,
      severity: failed === undefined ? 'note' : 'warning',
      moments: [world.postMoment(first.request)],
      objects: [cq, owner],
    })
  }

  /** A region is deregistered: completions of requests that use it have to be polled before. */
  const endRegion = (region: KnownObject, stack: Stack): void => {
    for (const [id, { unpolled }] of cqs) {
      const cq = world.objects.find(id)
      if (cq?.device !== region.device) continue
      const user = unpolled
        .slice(heldBy(cq))
        .find(({ request: { elements }, completion: { status } }) =>
          elements.some(({ lkey }) => status === SUCCESS && lkey === region.lkey),
        )?.request
      const owner = user && world.objects.find(user.owner)
      if (user === undefined || owner === undefined) continue
      const text = `${region.name} was deregistered before the completion of ${requestText(user)} of ${owner.name} was polled`
      world.find('region-in-use', world.placeOf(region, stack), {
        text,
        severity: 'warning',
        moments: [world.postMoment(user)],
        objects: [region, owner],
      })
      return
    }
  }

  return {
    posted(request) {
      if (request.queue === PostQueue.SEND) sent(request)
      else received(request)
    },
    ended(request) {
      if (takesReceive(request)) queueOf(request.owner).messages--
    },
    completed(request, completion) {
      const { qp, cq, status } = completion
      if (request.queue !== PostQueue.SEND && status !== WR_FLUSH_ERR) queueOf(request.owner).taken++
      const state = cqOf(cq)
      if (state.armed !== undefined) endWait(world.objects.find(cq), state)
      if (completion.count > 0 && world.objects.find(qp) !== undefined) state.unpolled.push({ request, completion })
    },
    starved(id) {
      const qp = world.objects.find(id)
      // messages of unreliable services are lost, which is another finding
      const state = qp?.class === 'rc_qp' ? receivesOf(qp) : undefined
      if (state !== undefined && state.receives === 0) state.starved ??= world.sources.now()
    },
    polled(id, polled) {
      const state = cqOf(id)
      state.armed = undefined
      let gone = 0
      while (gone < state.unpolled.length && state.unpolled[gone]!.completion.count <= polled) gone++
      if (gone === 1) state.unpolled.shift()
      else state.unpolled.splice(0, gone)
    },
    forgotten(id) {
      queues.delete(id)
    },
    calling({ class: name, method, stack }, object) {
      if (name === 'mr' && method === 'destroy') endRegion(object, stack)
      if (name !== 'cq') return
      const state = cqOf(object.id)
      endWait(object, state)
      if (method === 'reqNotify' && state.unpolled.length > heldBy(object))
        state.armed = { time: world.sources.now(), stack }
    },
    called({ class: name, method, stack, refused }, object) {
      if (name === 'cq' && method === 'destroy' && refused === undefined) endCq(object, stack)
    },
    receiveCounts(own, peer) {
      const { receives, taken } = receivesOf(peer)
      const { messages } = queueOf(own.id)
      return [
        `${peer.name} has had ${count(receives, 'receive')}, and messages took ${taken}; ${own.name} sends ${messages} more`,
      ]
    },
  }
}
