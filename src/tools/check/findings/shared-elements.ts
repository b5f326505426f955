/*
 * Finding shared-elements: requests of one list have the same elements.
 */
import { requestName } from '../../../spec/check/causes.ts'
import { PostQueue } from '../../../spec/session.ts'
import { returnsData } from '../../../spec/work.ts'
import { reportsEach } from '../detector.ts'
import { POSTED } from '../reporting.ts'

export const createSharedElementsDetector = reportsEach(
  'sharedElements',
  'shared-elements',
  POSTED,
  ({ queue, count, wrId, opcode }, owner) => {
    const isSend = queue === PostQueue.SEND
    const isRead = isSend && returnsData(opcode)
    const kind = isSend ? requestName(opcode) : 'receive'
    const result = isRead
      ? 'all results are written to the same memory'
      : isSend
        ? 'all send the same bytes'
        : 'their messages overwrite each other'
    return {
      text: `${count} requests of one list of ${owner.name}, from ${kind} wr_id ${wrId} on, have the same sg_list and different wr_ids: ${result}`,
      // Receives may be for messages without bytes, and sends may be of the same bytes.
      severity: isRead ? 'warning' : 'note',
    }
  },
)
