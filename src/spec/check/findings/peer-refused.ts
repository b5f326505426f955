/*
 * The row of the finding peer-refused.
 */

export const peerRefused = {
  severity: 'error',
  needs: ['completion'],
  title: 'the peer refused the request, or its response does not match, for a reason that only the peer knows',
  why: 'A NAK has the kind of error but not the cause (IBA 9.7.5.2). A READ response of another length may come from a peer with another path MTU.',
  causes: [
    'NAK_INVALID_REQUEST',
    'NAK_REMOTE_ACCESS',
    'NAK_REMOTE_OPERATION',
    'NAK_INVALID_RD',
    'BAD_RESPONSE',
    'DC_ACCESS_KEY',
    'SRD_NO_QUEUE_PAIR',
    'SRD_UNKNOWN',
  ],
  statuses: { BAD_RESP_ERR: 2, REM_INV_REQ_ERR: 9, REM_ACCESS_ERR: 8, REM_OP_ERR: 11, REM_INV_RD_REQ_ERR: 2 },
} as const
