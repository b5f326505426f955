/*
 * Finding immediate-byte-order: immediate data in the order of the host.
 */
import type { Detector, DetectorServices } from './detector.ts'
import { hex } from './objects.ts'
import { POSTED } from './reporting.ts'

export const createImmediateDetector = (services: DetectorServices): Detector => ({
  on: {
    immediateInHostOrder(event, qp) {
      services.report(
        'immediate-byte-order',
        { ...event, ...POSTED },
        {
          text: `imm_data of send wr_id ${event.wrId} of ${qp.name} is ${hex(event.data >>> 0)} in network byte order, which the receiver's ntohl returns`,
          objects: [qp],
        },
      )
    },
  },
})
