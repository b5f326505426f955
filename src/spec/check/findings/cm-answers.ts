/*
 * The rows of findings about answers of rdma_cm.
 */

export const cmRefusedUsed = {
  severity: 'warning',
  needs: ['check', 'rdma_cm', 'preload'],
  title: 'a request was posted to a queue pair whose connection was refused',
  why: 'REJECTED, UNREACHABLE and CONNECT_ERROR end the attempt, and the queue pair moves to ERR: its requests are flushed (rdma_get_cm_event(3)). rdma_connect returns 0 as soon as the request is sent.',
  advice: 'look at the type of each event: only ESTABLISHED is a connection',
  story: 'events',
} as const

export const cmConnectedAgain = {
  severity: 'warning',
  needs: ['check', 'rdma_cm', 'calls after REJECTED', 'preload'],
  title: 'an identifier connects again after its connection was refused, which Linux refuses',
  why: 'REJECTED, UNREACHABLE and CONNECT_ERROR leave the identifier in the state of a connection in progress: rdma_connect returns EINVAL on Linux (cma_ib_handler, rdma_connect_locked in drivers/infiniband/core/cma.c). Here the call succeeds.',
  advice: 'destroy the identifier and its queue pair, and resolve address and route with new ones',
} as const

export const cmNotConfirmed = {
  severity: 'warning',
  needs: ['check', 'rdma_cm', 'preload'],
  title: 'CONNECT_RESPONSE was read, and rdma_establish was not called',
  why: "With a queue pair of the program's own the connection is established only by rdma_establish, after CONNECT_RESPONSE and the moves to RTR and RTS: until then the peer gets no ESTABLISHED (rdma_establish(3)).",
  advice: 'call rdma_establish after the queue pair is in RTS, or rdma_reject',
  story: 'events',
} as const
