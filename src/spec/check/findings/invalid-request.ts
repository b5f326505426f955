/*
 * The row of the finding invalid-request.
 */

export const invalidRequest = {
  severity: 'error',
  needs: ['device', 'connections', 'packets', 'causes'],
  title: 'the responder refuses packets that break a rule of the protocol',
  why: 'The packets of a message come in order, have as many bytes as the first packet announces, and request an operation that the responder supports (IBA 9.7.4).',
  causes: ['OUT_OF_PLACE', 'NO_SRQ', 'REMOTE_TOO_LONG', 'DMA_LENGTH', 'FLUSH_KIND', 'ATOMIC_WRITE_LENGTH'],
  statuses: { REM_INV_REQ_ERR: 7 },
  showsEnds: true,
} as const
