/*
 * Finding adapter-operation without `--like`: a receive without elements on EFA, of which libefa writes nothing into
 * the queue, so that no other event tells of it.
 */
import { adapters } from '../../../spec/check/adapters.ts'
import { PostQueue } from '../../../spec/session.ts'
import { type Detector, type DetectorServices, TOLD } from '../detector.ts'
import { POSTED } from '../reporting.ts'

export const createEmptyReceiveDetector = (services: DetectorServices): Detector => ({
  on: {
    elementsUnused(event, owner) {
      if (event.queue !== PostQueue.RECEIVE || services.sources.driverName?.(owner.device) !== 'efa') return undefined
      services.report(
        'adapter-operation',
        { ...event, ...POSTED },
        {
          text: `receive wr_id ${event.wrId} of ${owner.name} has no elements (num_sge 0): the device never uses it, nor tells that it has ended`,
          details: [`source: ${adapters.efa.lacks.emptyReceives}`],
          advice: 'post receives with an element: a message without bytes needs one too',
          objects: [owner],
        },
      )
      return TOLD
    },
  },
})
