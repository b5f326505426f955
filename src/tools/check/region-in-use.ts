/*
 * Regions that are deregistered while requests use them, and memory that is unmapped while it is registered. A buffer
 * belongs to the device until the request has completed (IBA 10.6).
 */
import type { Stack } from '../../spec/check/finding.ts'
import type { WorkRequest } from '../../spec/check/requests.ts'
import { requestText, usesRegion } from './buffers.ts'
import type { Detector, DetectorServices } from './detector.ts'
import type { KnownObject } from './objects.ts'
import { outstandingRequests } from './outstanding.ts'

export const createRegionUseDetector = (services: DetectorServices): Detector => {
  const outstanding = outstandingRequests(services)

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

  /** A program has deregistered a region: reports an outstanding request that uses the region. */
  const deregistered = (region: KnownObject, stack: Stack): void => {
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
