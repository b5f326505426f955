/*
 * The row of the finding qp-no-right.
 */

export const qpNoRight = {
  severity: 'error',
  needs: ['call', 'post', 'completion', 'peer', 'connections', 'packets'],
  title: "the responder's queue pair does not allow this remote access",
  why: 'qp_access_flags limit what a peer may request, beside the flags of the region (IBA 10.6).',
  advice: "set the right in qp_access_flags when the responder's queue pair moves to INIT",
  libraryAdvice: "give the right in the option access of the responder's qp.connect",
  causes: ['QP_NO_RIGHT'],
  statuses: { REM_INV_REQ_ERR: 2 },
  cmAdvice:
    'set responder_resources of rdma_conn_param to at least 1 at the responder, and initiator_depth at the requester: without them librdmacm gives the queue pair no right for READs and atomics',
} as const
