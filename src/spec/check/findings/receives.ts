/*
 * The rows of findings about receive queues.
 */

export const lateReceives = {
  severity: 'warning',
  needs: ['device', 'waits'],
  title: 'a message arrived before a receive was posted',
  why: 'The responder answers RNR NAK until a receive is posted, and the sender tries rnr_retry times more (IBA 9.7.5.2.8). With a smaller rnr_retry, or on another network, the sender fails.',
  advice: 'post receives before the queue pair moves to RTR, or before the peer learns its number',
  libraryAdvice:
    'post receives before qp.connect, or before the peer gets the endpoint; of a connection by address in `prepare`',
  statuses: { RNR_RETRY_EXC_ERR: 2 },
} as const

export const receivesShort = {
  severity: 'note',
  needs: ['device', 'waits'],
  title: 'messages waited for a receive',
  why: 'The responder answers a message without a receive by RNR NAK, and the sender repeats it after at least min_rnr_timer of the peer (IBA 9.7.5.2.8): no request fails, the program is only slow. With rnr_retry below 7 a longer wait fails the send. The finding is reported at the end of the queue pair. With rnr_retry 7 it is a note; otherwise it is a warning if more than half of at least 8 messages waited, or if the waits took at least 100 ms and more than half of the time from the first to the last message. Messages before the first receive are the finding late-receives, a message that waits without end is endless-rnr.',
  advice:
    'count the receives of the peer as credits: send only as many messages as it has receives posted, and post a receive again before the credit is returned',
  libraryAdvice:
    'count the receives of the peer as credits: send only as many messages as it has receives posted, and post a receive again before the credit is returned',
  statuses: { RNR_RETRY_EXC_ERR: 3 },
} as const
