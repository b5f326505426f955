/*
 * Completions of requests that were posted before their queue pair was reset, and are polled while a request with the
 * same wr_id is outstanding: the program takes them for that of the new request. rxe leaves them in the CQ.
 */
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { PostQueue } from '../../../spec/session.ts'
import { WcStatus } from '../../../spec/work.ts'
import { requestText } from '../buffers.ts'
import type { DetectorServices } from '../detector.ts'
import { before } from '../findings/outages.ts'
import { outstandingRequests } from '../outstanding.ts'
import type { UnpolledCompletion, UnpolledCompletions } from './unpolled.ts'

/** Returns what gets each polled completion of a queue pair that was reset or destroyed since. */
export const formerLives = (
  services: DetectorServices,
  unpolled: UnpolledCompletions,
): ((one: UnpolledCompletion) => void) => {
  const { byQueue } = outstandingRequests(services)
  return ({ request, completion: { status, cq }, qp }) => {
    const { owner, queue, wrId, time } = request
    // A request of an SRQ outlives its queue pair. Whoever polls flushed ones looks at their status.
    if (queue === PostQueue.SHARED || status !== WcStatus.values.SUCCESS || qp.destruction !== undefined) return
    const isLike = (one: WorkRequest): boolean => one.owner === owner && one.queue === queue && one.wrId === wrId
    const known = services.objects.find(cq)
    const taken =
      byQueue.get(owner)?.find(isLike) ??
      (known && unpolled.of(known).find(one => !one.isOver && isLike(one.request))?.request)
    const text = `the completion of ${requestText(request)} of ${qp.name}, posted ${before(time, services.sources.now())}, was polled after the queue pair was reset`
    services.report('polled-after-destroy', services.occurrenceAtPost(qp, taken ?? request), {
      ...(taken && { severity: 'warning' }),
      text:
        taken === undefined ? text : `${text}, while a new request with this wr_id had not completed for the program`,
      objects: [qp],
    })
  }
}
