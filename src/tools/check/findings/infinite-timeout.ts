/*
 * Finding infinite-timeout: a queue pair that waits without limit for an acknowledgement.
 */
import { QpState } from '../../../spec/enums.ts'
import type { Detector, DetectorServices } from '../detector.ts'

export const createTimeoutDetector = (services: DetectorServices): Detector => ({
  on: {
    modified(call, qp) {
      if (qp.isQp && call.args.state === QpState.values.RTS && qp.attributes.timeout === 0)
        services.report('infinite-timeout', call, { text: `${qp.name} has timeout 0`, objects: [qp] })
    },
  },
})
