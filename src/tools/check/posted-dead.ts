/*
 * Finding frame-returned, of a request of which a part was in a returned stack frame when it was posted. What is in a frame
 * that returns later: lifetimes.ts.
 */
import { DeadPart, PostQueue } from '../../spec/session.ts'
import type { Detector, DetectorServices } from './detector.ts'
import { POSTED } from './reporting.ts'

/** The part of a request, by DeadPart. */
const parts: Readonly<Record<number, string>> = {
  [DeadPart.LIST]: 'the struct',
  [DeadPart.ELEMENTS]: 'the list of elements',
  [DeadPart.BUFFER]: 'the buffer',
}

export const createDeadPostDetector = (services: DetectorServices): Detector => ({
  on: {
    postedDead(event, owner) {
      const { context, part, address, queue, wrId } = event
      const region = part === DeadPart.BUFFER ? services.objects.regionAt(context, address) : undefined
      services.report(
        'frame-returned',
        { ...event, ...POSTED },
        {
          text: `${parts[part] ?? 'the memory'} of ${queue === PostQueue.SEND ? 'the send' : 'the receive'} wr_id ${wrId} of ${owner.name} was in a stack frame that had returned when it was posted`,
          objects: [owner, region],
        },
      )
    },
  },
})
