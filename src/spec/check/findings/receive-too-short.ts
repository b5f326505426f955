/*
 * The row of the finding receive-too-short.
 */

export const receiveTooShort = {
  severity: 'error',
  needs: ['post', 'completion'],
  title: 'a message is longer than the receive request that it takes',
  why: 'Both ends of RC fail: the receiver with LOC_LEN_ERR, the sender with REM_INV_REQ_ERR (IBA 9.7.4). UC and UD drop the message. Receives of UD need 40 more bytes for the GRH (IBA 11.4.1.2).',
  advice: 'post receives that are as long as the longest message that the peer may send',
  causes: ['RECEIVE_TOO_SHORT'],
  statuses: { LOC_LEN_ERR: 1, REM_INV_REQ_ERR: 1 },
  story: 'post',
} as const
