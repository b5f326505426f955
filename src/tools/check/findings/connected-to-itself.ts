/*
 * Finding connected-to-itself: a queue pair names itself as its peer.
 */
import { QpState } from '../../../spec/enums.ts'
import type { Detector, DetectorServices } from '../detector.ts'

export const createSelfConnectionDetector = (services: DetectorServices): Detector => ({
  on: {
    modified(call, qp) {
      if (qp.isQp && call.args.state === QpState.values.RTR && services.peerOf(qp) === qp)
        services.report('connected-to-itself', call, { text: `${qp.name} is connected to itself`, objects: [qp] })
    },
  },
})
