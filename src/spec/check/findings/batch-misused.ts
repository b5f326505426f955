/*
 * The row of the finding batch-misused.
 */

export const batchMisused = {
  severity: 'error',
  needs: ['call', 'post', 'library'],
  title: 'functions of ibv_wr_* are called in an order, or without setters, that make no valid request',
  why: 'Between ibv_wr_start and ibv_wr_complete or ibv_wr_abort of one thread, each request is a function that adds it, such as ibv_wr_send, followed by one setter of its data, and of its address if the queue pair has type UD or XRC_SEND (ibv_wr_post(3)). No function returns an error: a wrong order changes other requests, loses data, crashes, or waits for ever.',
  advice:
    'call ibv_wr_start, then for each request the function that adds it and its setters, then ibv_wr_complete or ibv_wr_abort',
} as const
