/*
 * The row of the finding failure-ignored.
 */

export const failureIgnored = {
  severity: 'warning',
  needs: ['check', 'WRITEs', 'preload'],
  title: 'a program posts to a queue pair whose failure it has polled',
  why: 'After a failure a queue pair is in ERR, where all requests are flushed, until it is reset (IBA 10.3.1). Other queue pairs, and the port, may work meanwhile: the event PORT_ACTIVE does not bring the queue pair back. An initiator of DC in ERR flushes also the requests to targets that are well. The finding is reported from the third request on that was posted after the completion before it, an error, was polled.',
  advice:
    'make the queue pair anew, or reset and connect it, after the first completion with an error status; post to another one until then',
  statuses: { WR_FLUSH_ERR: 1 },
} as const
