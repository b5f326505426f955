/*
 * Finding cq-too-small: a CQ has fewer entries than its queue pairs can have requests.
 */
import type { Detector, DetectorServices } from '../detector.ts'

export const createCqSizeDetector = (services: DetectorServices): Detector => ({
  on: {
    created(call, { isQp, uses }) {
      if (!isQp) return
      for (const cq of new Set([uses.get('sendCq'), uses.get('recvCq')])) {
        let requests = 0
        for (const user of cq?.users ?? []) {
          if (user.uses.get('sendCq') === cq) requests += user.requestedSends
          if (user.uses.get('recvCq') === cq && !user.uses.has('srq')) requests += user.requestedReceives
        }
        if (cq === undefined || cq.isCounting || cq.size === undefined || requests <= cq.size) continue
        const text = `${cq.name} has ${cq.size} entries, and ${requests} requests can complete into it`
        services.report('cq-too-small', call, { text, objects: [cq, ...cq.users] })
      }
    },
  },
})
