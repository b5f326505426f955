/*
 * Finding list-posted-again: a list of requests that was taken in part is posted again from its head.
 */
import { counted } from '../../../base/text.ts'
import { PostQueue } from '../../../spec/session.ts'
import { reportsEach } from '../detector.ts'
import { POSTED } from '../reporting.ts'

export const createPostedAgainDetector = reportsEach(
  'postedAgain',
  'list-posted-again',
  POSTED,
  ({ queue, wrId, taken }, owner) => ({
    text: `a list of ${queue === PostQueue.SEND ? 'sends' : 'receives'} of ${owner.name} is posted again from its head, wr_id ${wrId}: the post before had taken ${counted(taken, 'request')} of it, and refused only the rest`,
  }),
)
