/*
 * The row of the finding qp-after-disconnect.
 */

export const qpAfterDisconnect = {
  severity: 'note',
  needs: ['call', 'post', 'library', 'rdma_cm', 'queues'],
  title: "rdma_disconnect did not move a queue pair of the program's own to ERR",
  why: 'rdma_disconnect moves the queue pair to ERR only if rdma_create_qp has created it (rdma_disconnect(3)). A queue pair that the program has created and given by qp_num stays in RTS: its outstanding requests are not flushed, and sends fail only when their retries run out.',
  advice:
    'after rdma_disconnect, and at DISCONNECTED, move the queue pair to ERR with ibv_modify_qp, and poll the flushed requests',
  isStale: true,
} as const
