/*
 * The row of the finding polled-after-destroy.
 */

export const polledAfterDestroy = {
  severity: 'note',
  needs: ['check', 'left completions', 'late polls', 'preload'],
  title: 'a completion of a queue pair was polled after the queue pair was destroyed or reset',
  why: 'Its wr_id names a request that the program has often freed with the queue pair. The rxe provider leaves the completions of a destroyed queue pair in its CQ; libmlx5 takes them out, and libefa refuses to poll them, so a program that waits for them there waits for ever. It is a warning if the queue pair was reset, and its completion is polled while a new request has the same wr_id: the program takes it for that of the new request.',
  advice:
    'before ibv_destroy_qp or a move to RESET, move the queue pair to ERR and poll until all its requests have completed; or keep what the wr_id names until the CQ is empty',
} as const
