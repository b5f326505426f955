/*
 * Refused posts that the program has ignored: it goes on with other requests of the queue, or waits, and never posts
 * the refused one again. Most often it tests the result of ibv_post_* for < 0, which is a positive errno.
 */

import type { FindingId } from '../../../spec/check/findings.ts'
import type { RefusedPost } from '../../../spec/check/program-events.ts'
import { errnoName } from '../../../spec/errno.ts'
import { PostQueue, UNKNOWN_OPCODE } from '../../../spec/session.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import { POSTED } from '../reporting.ts'

/** Maximum refused requests of a queue that are remembered, the first: later ones are most often the same mistake. */
const MAX_REFUSED = 16

const WAITS = 'waits'

interface Refused {
  readonly post: RefusedPost
  readonly id: FindingId
  /** The text of its own finding. */
  readonly why: string
  /** What the program did next on the queue; undefined: nothing yet. */
  next: string | undefined
  /** Whether it has polled a completion of the queue meanwhile: it makes room, and may leave the request out. */
  hasPolled: boolean
}

interface IgnoredPosts {
  /** The library has refused a request of a known queue. */
  refused(post: RefusedPost, id: FindingId, why: string, queue: KnownObject): void
  /** The program of a context waits. */
  waits(context: number): void
}

export const IGNORED_POSTS: Topic<IgnoredPosts> = { name: 'ignored posts' }

const functions: Readonly<Record<number, string>> = {
  [PostQueue.SEND]: 'ibv_post_send',
  [PostQueue.RECEIVE]: 'ibv_post_recv',
  [PostQueue.SHARED]: 'ibv_post_srq_recv',
}

/** Whether the request at this position was posted before the refused one: the device may see it later. */
const wasBefore = ({ request }: RefusedPost, position: number | undefined): boolean =>
  position !== undefined && !!request?.taken && ((position - request.taken) | 0) < 0

export const createIgnoredPosts = (services: DetectorServices): Detector => {
  /** By `CoreObject.id` of the queue, oldest first. */
  const refused = new Map<number, Refused[]>()

  const report = (queue: number, { post, id, why }: Refused, next: string): void => {
    const owner = services.objects.find(queue)
    if (owner === undefined) return
    const call = post.request?.opcode === UNKNOWN_OPCODE ? 'ibv_wr_complete' : (functions[post.queue] ?? 'the post')
    services.report(
      id,
      { ...post, ...POSTED },
      {
        text: `${call} of wr_id ${post.wrId} on ${owner.name} was refused (${errnoName(post.error)}), and the program ${next}: ${next === WAITS ? 'it waits for room, or takes the request for posted' : 'it takes the request for posted'}`,
        details: [why],
        severity: 'warning',
        advice: `${next === WAITS ? 'if it has not looked at the result: ' : ''}check the result of ${call}: what is not 0 is an error, a positive errno, so a test for < 0 never holds`,
        objects: [owner],
      },
    )
  }

  const reportAll = (queue: number): void => {
    const all = refused.get(queue) ?? []
    refused.delete(queue)
    for (const one of all) if (one.next !== undefined) report(queue, one, one.next)
  }

  /**
   * The program posts a request with this wr_id, again or next. `kind`: PostQueue. `position`: `WorkRequest.postIndex`.
   */
  const goesOn = (queue: number, kind: number, wrId: bigint, position?: number): void => {
    const all = refused.get(queue)
    if (all === undefined) return
    const concerns = ({ post }: Refused): boolean => post.queue === kind && !wasBefore(post, position)
    const left = all.filter(
      one => !concerns(one) || (one.post.wrId !== wrId && (one.next !== undefined || !one.hasPolled)),
    )
    if (left.length === 0) refused.delete(queue)
    else refused.set(queue, left)
    for (const one of left) if (concerns(one)) one.next ??= `posts wr_id ${wrId} next`
  }

  services.tell(IGNORED_POSTS, {
    refused(post, id, why, queue) {
      goesOn(queue.id, post.queue, post.wrId)
      const all = refused.get(queue.id) ?? []
      if (all.length === MAX_REFUSED) return
      refused.set(queue.id, [...all, { post, id, why, next: undefined, hasPolled: false }])
    },
    waits(context) {
      for (const [queue, all] of refused) {
        const ofContext = all.filter(({ post }) => post.context === context)
        for (const one of ofContext) one.next ??= WAITS
        if (ofContext.length > 0) reportAll(queue)
      }
    },
  })

  return {
    on: {
      polled(cq) {
        for (const [queue, all] of refused) {
          const uses = services.objects.find(queue)?.uses
          if (uses?.get('sendCq')?.id !== cq && uses?.get('recvCq')?.id !== cq) continue
          for (const one of all) one.hasPolled = true
        }
      },
      posted({ owner, queue, wrId, index, postIndex = index }) {
        goesOn(owner, queue, wrId, postIndex)
      },
      queueReset(owner) {
        reportAll(owner)
      },
      calling({ method }, { id }) {
        if (method === 'destroy') reportAll(id)
      },
      postedAgain(_event, { id }) {
        // Not ignored, but posted from another request on.
        refused.delete(id)
      },
    },
  }
}
