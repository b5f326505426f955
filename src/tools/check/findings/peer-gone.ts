/*
 * Waits for a peer that is gone. One that an error has kept from its connection, or from its end, is no mistake of its
 * own.
 */
import type { Detector, DetectorServices } from '../detector.ts'

export const createPeerGoneDetector = (services: DetectorServices): Detector => ({
  refines: {
    'peer-gone': ({ qps }) =>
      services.hasErrors || qps.some(qp => qp?.isReported === true)
        ? { severity: 'note', isWait: !services.hasErrors }
        : {},
  },
})
