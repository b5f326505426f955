/*
 * The row of the finding no-receive-posted.
 */

export const noReceivePosted = {
  severity: 'error',
  needs: ['completion', 'RNR limit'],
  title: 'the peer had no receive posted, and the RNR retries ran out',
  why: 'A SEND or a WRITE with immediate needs a receive request. Without a receive request the responder answers RNR NAK, and the sender tries rnr_retry times more (IBA 9.7.5.2.8).',
  libraryAdvice:
    'post receives before the peer may send, count credits, or set rnrRetryCount to 7 (retries without limit)',
  causes: ['RNR_EXCEEDED', 'DC_BUSY'],
  statuses: { RNR_RETRY_EXC_ERR: 1 },
  marks: 'lack of receives',
  showsEnds: true,
} as const
