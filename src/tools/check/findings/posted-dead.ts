/*
 * Finding frame-returned, of a request of which a part was in a returned stack frame when it was posted. What is in a
 * frame that returns later: lifetimes.ts.
 */
import { DeadPart, PostQueue } from '../../../spec/session.ts'
import { reportsEach } from '../detector.ts'
import { POSTED } from '../reporting.ts'

/** The part of a request, by DeadPart. */
const parts: Readonly<Record<number, string>> = {
  [DeadPart.LIST]: 'the struct',
  [DeadPart.ELEMENTS]: 'the list of elements',
  [DeadPart.BUFFER]: 'the buffer',
}

export const createDeadPostDetector = reportsEach(
  'postedDead',
  'frame-returned',
  POSTED,
  ({ context, part, address, queue, wrId }, owner, all) => ({
    text: `${parts[part] ?? 'the memory'} of ${queue === PostQueue.SEND ? 'the send' : 'the receive'} wr_id ${wrId} of ${owner.name} was in a stack frame that had returned when it was posted`,
    objects: [owner, part === DeadPart.BUFFER ? all.regionAt(context, address) : undefined],
  }),
)
