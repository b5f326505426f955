/*
 * The row of the finding psn-mismatch.
 */

export const psnMismatch = {
  severity: 'error',
  needs: ['call', 'peer', 'connections'],
  title: 'one end sends from another PSN than the other end expects',
  why: "The first packet of a send queue has the PSN sq_psn, and the responder expects rq_psn (IBA 9.7.1). If sq_psn is lower, the responder acknowledges every request as a duplicate, and executes none. If sq_psn is higher, the responder waits for earlier packets, and the sender's retries run out. A responder that was connected before, and was not reset, expects what follows the last packet that it has executed: if only one end was reset, requests may complete with success, and nothing arrives.",
  advice: "set rq_psn (to RTR) to the sq_psn that the peer uses (to RTS); exchange both with the queue pairs' numbers",
  libraryAdvice: "give qp.connect the peer's `qp.endpoint`, which has its psn",
  causes: ['PSN_DIFFERS'],
  statuses: { REM_INV_REQ_ERR: 8, RETRY_EXC_ERR: 5 },
  showsEnds: true,
} as const
