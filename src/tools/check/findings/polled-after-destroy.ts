/*
 * Finding polled-after-destroy: the completion of a request is polled whose queue pair is destroyed.
 */
import { PostQueue } from '../../../spec/session.ts'
import { reportsEach } from '../detector.ts'

export const createLatePollDetector = reportsEach(
  'polledGone',
  'polled-after-destroy',
  { action: 'polled' },
  ({ queue, wrId }, qp) => {
    const isSend = queue === PostQueue.SEND
    // A receive of an SRQ belongs to the SRQ, which remains.
    if (!isSend && (qp.uses.has('srq') || qp.class === 'xrc_tgt_qp')) return undefined
    return {
      text: `the completion of ${isSend ? 'send' : 'receive'} wr_id ${wrId} of ${qp.name} was polled after the queue pair was destroyed`,
    }
  },
)
