/*
 * Reports what programs wait for: completions, events and messages that do not come. What a finding says more than its
 * wait, a detector knows (`Detector.refines`).
 */
import type { Detector, DetectorServices, Refinement } from '../detector.ts'
import { IGNORED_POSTS } from '../findings/ignored-posts.ts'
import { POSTED } from '../reporting.ts'

/** `detectors`: those that refine waits. */
export const createWaitReports = (services: DetectorServices, detectors: readonly Detector[]): Detector => ({
  on: {
    waits({ wait, posted, ...at }) {
      const { objects } = services
      const { deviceNumber, context } = at
      const { id, severity, text, qpns = [], peerDevice = deviceNumber, request, graph, advice } = wait
      const known = (name: string, handle: number | undefined) =>
        handle === undefined ? undefined : objects.byHandle(context, name, handle)
      const waited = known('cq', wait.cq) ?? known('comp_channel', wait.channel) ?? known('cm_id', wait.cmId)
      const qps = qpns.map((qpn, i) => objects.qp(i === 0 ? deviceNumber : peerDevice, qpn))
      const postStack = request && services.postStackIn(request.context ?? context, posted ?? request)
      const refine = detectors.find(({ refines }) => refines?.[id])?.refines?.[id] ?? (() => ({}))
      const refined: Refinement | undefined = refine({ wait, at, qps, waited, postStack })
      if (refined === undefined) return
      services.need(IGNORED_POSTS).waits(context)
      const { stack, action } = waited?.creation ?? { stack: [], action: '' }
      const named = waited || postStack === undefined ? { stack, action } : { stack: postStack, ...POSTED }
      const { where = named, details = [], objects: further = [], ...content } = refined
      services.report(
        id,
        { ...at, ...where },
        {
          text,
          waits: graph,
          advice,
          isWait: true,
          ...(severity && { severity }),
          ...content,
          details: [...(wait.details ?? []), ...details],
          objects: [...qps, waited, ...further],
        },
      )
    },
  },
})
