/*
 * Requests with num_sge 0, and an element all the same.
 */
import { counted } from '../../../base/text.ts'
import { PostQueue } from '../../../spec/session.ts'
import { reportsEach } from '../detector.ts'
import { POSTED } from '../reporting.ts'

export const createUnusedElementsDetector = reportsEach(
  'elementsUnused',
  'elements-unused',
  POSTED,
  ({ isLeft, address, bytes, lkey, context, wrId, queue }, owner, objects) => {
    if (bytes === 0) return undefined
    const region = objects.regionAt(context, address)
    if (region === undefined || region.lkey !== lkey >>> 0) return undefined
    if (address + bytes > (region.iova ?? 0) + (region.size ?? 0)) return undefined
    return {
      text: `${queue === PostQueue.SEND ? 'send' : 'receive'} wr_id ${wrId} of ${owner.name} has num_sge 0, and an element of ${counted(bytes, 'byte')} of ${region.name} in sg_list: it is posted without bytes`,
      ...((isLeft === 1 || queue !== PostQueue.SEND) && { severity: 'note' }),
      objects: [owner, region],
    }
  },
)
