/*
 * The row of the finding no-rd-atomic.
 */

export const noRdAtomic = {
  severity: 'error',
  needs: ['call', 'post', 'completion', 'connections', 'packets'],
  title: 'a READ or atomic was posted to a queue pair with max_rd_atomic 0',
  why: 'max_rd_atomic is the maximum number of outstanding READs and atomics (IBA 11.2.4).',
  advice: 'set max_rd_atomic to at least 1 when the queue pair moves to RTS',
  libraryAdvice: 'give qp.connect a maxRdAtomic of at least 1',
  causes: ['NO_READS'],
  statuses: { LOC_QP_OP_ERR: 2 },
  story: 'post',
  showsEnds: true,
  cmAdvice:
    'set initiator_depth of rdma_conn_param to at least 1 at this end, and responder_resources at the peer: in rdma_connect and in rdma_accept',
} as const
