/*
 * The row of the finding rd-atomic-exceeds.
 */

export const rdAtomicExceeds = {
  severity: 'error',
  needs: ['call', 'post', 'completion', 'peer', 'connections'],
  title: 'more READs and atomics are outstanding than the peer accepts',
  why: 'A responder has resources for max_dest_rd_atomic READs and atomics, and refuses more as invalid requests (IBA 9.4.4).',
  advice: "set max_rd_atomic (to RTS) to at most the peer's max_dest_rd_atomic (to RTR)",
  libraryAdvice: 'give both calls of qp.connect the same maxRdAtomic',
  causes: ['TOO_MANY_READS'],
  statuses: { REM_INV_REQ_ERR: 3 },
  showsEnds: true,
  cmAdvice:
    'set initiator_depth of rdma_conn_param at the requester to at most responder_resources of the responder: in rdma_connect and in rdma_accept',
} as const
