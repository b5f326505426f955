/*
 * Finding polled-after-destroy: the completion of a request is polled whose queue pair is destroyed.
 */
import { PostQueue } from '../../spec/session.ts'
import type { Detector, DetectorServices } from './detector.ts'

export const createLatePollDetector = (services: DetectorServices): Detector => ({
  on: {
    polledGone(event, qp) {
      const isSend = event.queue === PostQueue.SEND
      // A receive of an SRQ belongs to the SRQ, which remains.
      if (!isSend && (qp.uses.has('srq') || qp.class === 'xrc_tgt_qp')) return
      services.report(
        'polled-after-destroy',
        { ...event, action: 'polled' },
        {
          text: `the completion of ${isSend ? 'send' : 'receive'} wr_id ${event.wrId} of ${qp.name} was polled after the queue pair was destroyed`,
          objects: [qp],
        },
      )
    },
  },
})
