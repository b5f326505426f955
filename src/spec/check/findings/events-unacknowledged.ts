/*
 * The row of the finding events-unacknowledged.
 */

export const eventsUnacknowledged = {
  severity: 'warning',
  needs: ['check', 'waits'],
  title: 'a destroy or rdma_migrate_id waits for events that are not acknowledged',
  why: 'ibv_destroy_cq, _qp and _srq, rdma_destroy_id and rdma_migrate_id wait until all events that were read are acknowledged (ibv_get_cq_event(3), rdma_get_cm_event(3)). The wait is reported after a second. Another thread may still acknowledge the events.',
  advice: 'call ibv_ack_cq_events, ibv_ack_async_event or rdma_ack_cm_event for each event that was read',
  causes: ['UNACKNOWLEDGED'],
  wait: 2,
  marks: 'nothing',
} as const
