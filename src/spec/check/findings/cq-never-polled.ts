/*
 * The row of the finding cq-never-polled.
 */

export const cqNeverPolled = {
  severity: 'error',
  needs: ['device', 'causes'],
  title: 'a CQ was full, and no thread has ever polled it, while others were polled',
  why: 'A completion stays in its CQ until it is polled (ibv_poll_cq, ibv_start_poll): a CQ that nobody polls is full after as many completions as it has entries, however many these are, and its queue pairs fail (IBA 11.6.3). Most often it is the CQ of the sends, whose completions nobody waits for. It is told where a CQ was full (cq-overrun) that never was polled, if the program has polled other CQs since its first completion came.',
  advice:
    'poll this CQ too, or give both queues of the queue pair one CQ: a larger CQ fails later; sends without IBV_SEND_SIGNALED have no completion, but one in max_send_wr must have',
} as const
