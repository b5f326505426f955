/*
 * The row of the finding cq-overrun.
 */

export const cqOverrun = {
  severity: 'error',
  needs: ['device', 'causes'],
  title: 'a completion queue was full when a completion came',
  why: 'The completion is lost, and the queue is unusable from then on (IBA 11.6.3). A program that takes the memory of a CQ to poll it itself (mlx5dv_init_obj) must write the consumer index to its doorbell record: an adapter counts what it does not tell as not polled.',
  advice: 'create the CQ with room for all requests that can be outstanding on its queue pairs, and poll it in time',
  libraryAdvice:
    'create the queue with room (`entries`) for all requests that can be outstanding on its queue pairs, and poll it in time',
  causes: ['CQ_FULL', 'COMPLETION_LOST'],
  statuses: { WR_FLUSH_ERR: 2 },
} as const
