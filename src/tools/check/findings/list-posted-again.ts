/*
 * Finding list-posted-again: requests are posted again that the queue has taken: a list from its head, of which only
 * the rest was refused; or requests that were posted already as the `next` of another. The latter may be meant, as a
 * notification that goes with data and alone, unless list after list is so, or the first one's data has changed.
 */
import { counted } from '../../../base/text.ts'
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { PostQueue } from '../../../spec/session.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import { POSTED } from '../reporting.ts'

const kindOf = (queue: number): string => (queue === PostQueue.SEND ? 'send' : 'receive')

/** Whether a send whose data has changed was posted again so; then that was reported. */
export const POSTED_NEXT: Topic<(owner: KnownObject, send: WorkRequest) => boolean> = { name: 'posted as next' }

export const createPostedAgainDetector = (services: DetectorServices): Detector => {
  /** By queue and wr_id. The preload library tells only the first ones. */
  const reposted = new WeakMap<KnownObject, Map<bigint, ProgramEvent<'postedNext'>>>()

  const reportNext = (event: ProgramEvent<'postedNext'>, owner: KnownObject): void => {
    const { queue, wrId, headId, count } = event
    services.report(
      'list-posted-again',
      { ...event, ...POSTED },
      {
        text: `${kindOf(queue)} wr_id ${wrId} of ${owner.name} is posted again: the post of wr_id ${headId} before has posted it already, as its \`next\``,
        details: count > 1 ? [`posted again with it: ${counted(count - 1, 'request')} behind it`] : [],
        objects: [owner],
        advice: 'set next to NULL before a request of a list is posted alone, or post the list once',
      },
    )
  }

  services.tell(POSTED_NEXT, (owner, { wrId }) => {
    const event = reposted.get(owner)?.get(wrId)
    if (event !== undefined) reportNext(event, owner)
    return event !== undefined
  })

  return {
    on: {
      postedAgain(event, owner) {
        const { queue, wrId, taken } = event
        services.report(
          'list-posted-again',
          { ...event, ...POSTED },
          {
            text: `a list of ${kindOf(queue)}s of ${owner.name} is posted again from its head, wr_id ${wrId}: the post before had taken ${counted(taken, 'request')} of it, and refused only the rest`,
            objects: [owner],
          },
        )
      },
      postedNext(event, owner) {
        reposted.set(owner, (reposted.get(owner) ?? new Map()).set(event.wrId, event))
        if (event.steps > 1) reportNext(event, owner)
      },
    },
  }
}
