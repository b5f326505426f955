/*
 * Finding poll-in-handler: a CQ is polled in a signal handler.
 */
import type { Detector, DetectorServices } from './detector.ts'

export const createHandlerDetector = (services: DetectorServices): Detector => ({
  on: {
    polledInHandler(event, cq) {
      const text = `ibv_poll_cq on ${cq.name} is called in a signal handler`
      services.report('poll-in-handler', event, { text, objects: [cq] })
    },
  },
})
