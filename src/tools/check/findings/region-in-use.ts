/*
 * Regions that are deregistered while requests use them, and memory that is unmapped while it is registered. A buffer
 * belongs to the device until the request has completed (IBA 10.6), and the program does not know that before it has
 * polled the completion.
 */
import type { Stack } from '../../../spec/check/finding.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { WcStatus } from '../../../spec/work.ts'
import { requestText, usesRegion } from '../buffers.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import { outstandingRequests } from '../outstanding.ts'
import { unpolledCompletions } from '../queues/unpolled.ts'

const { SUCCESS } = WcStatus.values

export const createRegionUseDetector = (services: DetectorServices): Detector => {
  const [outstanding, unpolled] = [outstandingRequests(services), unpolledCompletions(services)]

  /** An outstanding request that uses a region. */
  const outstandingUserOf = (
    region: KnownObject,
  ): { readonly request: WorkRequest; readonly owner: KnownObject } | undefined => {
    for (const [id, requests] of outstanding.byQueue) {
      const owner = services.objects.find(id)
      if (owner?.device !== region.device) continue
      for (const request of requests) if (usesRegion(request, region)) return { request, owner }
    }
    return undefined
  }

  /** The request of a successful completion that was not polled and uses a region. */
  const unpolledUserOf = (region: KnownObject): ReturnType<typeof outstandingUserOf> => {
    for (const id of unpolled.cqs) {
      const cq = services.objects.find(id)
      if (cq?.device !== region.device) continue
      const request = unpolled
        .of(cq)
        .find(
          ({ request: one, completion: { status }, isOver }) =>
            !isOver && status === SUCCESS && usesRegion(one, region),
        )?.request
      const owner = request && services.objects.find(request.owner)
      if (request !== undefined && owner !== undefined) return { request, owner }
    }
    return undefined
  }

  /** A program has deregistered a region: reports a request that uses it. */
  const deregistered = (region: KnownObject, stack: Stack): void => {
    const unpolledUser = unpolledUserOf(region)
    if (unpolledUser !== undefined) {
      const { request, owner } = unpolledUser
      services.report('region-in-use', services.occurrenceAt(region, stack), {
        text: `${region.name} was deregistered before the completion of ${requestText(request)} of ${owner.name} was polled`,
        severity: 'warning',
        moments: [services.postMoment(request)],
        objects: [region, owner],
      })
    }
    const user = outstandingUserOf(region)
    if (user === undefined) return
    const { request, owner } = user
    services.report('region-in-use', services.occurrenceAt(region, stack), {
      text: `${region.name} was deregistered while ${owner.name} has ${requestText(request)} outstanding`,
      severity: request.opcode < 0 ? 'warning' : 'error',
      moments: [services.postMoment(request)],
      objects: [region, owner],
    })
  }

  return {
    on: {
      called({ class: name, method, refused, why, stack }, object) {
        if (name === 'mr' && method === 'destroy' && why === 'call' && refused === undefined)
          deregistered(object, stack)
      },
      unmapped(_event, region) {
        const user = outstandingUserOf(region)
        const outstandingText = user && `, while ${user.owner.name} has ${requestText(user.request)} outstanding`
        services.report(
          'region-unmapped',
          services.occurrenceAt(region, region.creation.stack, region.creation.action),
          {
            text: `memory of ${region.name} was unmapped before the region was deregistered${outstandingText ?? ''}`,
            ...(user === undefined ? { severity: 'note' } : { moments: [services.postMoment(user.request)] }),
            objects: [region, user?.owner],
          },
        )
      },
    },
  }
}
