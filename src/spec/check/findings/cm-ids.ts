/*
 * The rows of findings about identifiers of rdma_cm.
 */

export const cmIdDestroyedEarly = {
  severity: 'warning',
  needs: ['check', 'rdma_cm', 'preload'],
  title: 'an identifier of rdma_cm was destroyed before its queue pair',
  why: 'rdma_destroy_id ends the connection and frees the identifier, but not the queue pair that rdma_create_qp has created (rdma_destroy_id(3)): rdma_destroy_qp needs the identifier, so afterwards only ibv_destroy_qp can destroy it.',
  advice: 'call rdma_destroy_qp before rdma_destroy_id, or rdma_destroy_ep instead of both',
  isStale: true,
} as const

export const connParamUninitialised = {
  severity: 'warning',
  needs: ['device', 'rdma_cm', 'preload'],
  title: 'a field of rdma_conn_param has a value beyond its range, or names no queue pair',
  why: 'An identifier without a queue pair (rdma_create_qp) connects the queue pair that qp_num names, and no program has queue pair 0. retry_count and rnr_retry_count have 3 bits, flow_control and srq are 0 or 1 (rdma_connect(3)). Linux takes larger values for the largest; most often the program has not initialised the struct, and other fields are random too.',
  advice: 'initialise all fields: struct rdma_conn_param parameters = {0}, then set those that the connection needs',
} as const

export const receivesAfterAccept = {
  severity: 'note',
  needs: ['device', 'rdma_cm', 'preload'],
  title: 'the first receive was posted after the connection was accepted',
  why: 'The peer may send as soon as it has the acceptance: without a receive its message waits for RNR retries, or fails (IBA 9.7.5.2.8). The finding is a note because the peer may send later.',
  advice: 'post receives between rdma_create_qp and rdma_accept',
} as const
