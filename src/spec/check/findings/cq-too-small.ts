/*
 * The row of the finding cq-too-small.
 */

export const cqTooSmall = {
  severity: 'note',
  needs: ['call'],
  title: 'a completion queue is smaller than the number of requests that can complete into it',
  why: 'If all requests of its queue pairs complete before the program polls, the CQ overruns.',
  advice:
    'create the CQ with at least the sum of max_send_wr and max_recv_wr of its queue pairs, or limit the outstanding requests',
  libraryAdvice:
    'create the queue with at least the sum of maxSendWr and maxRecvWr of its queue pairs as `entries`, or limit the outstanding requests',
} as const
