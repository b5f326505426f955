/*
 * The row of the finding array-too-short.
 */

export const arrayTooShort = {
  severity: 'error',
  needs: ['check', 'preload'],
  title: 'a poll may write more completions than its array has room for',
  why: 'ibv_poll_cq writes up to num_entries completions (ibv_poll_cq(3)). An array on the stack ends before the return address of its function: with enough completions in the CQ the poll overwrites it. Under `userdma check` the poll takes only what has room.',
  advice: 'set num_entries to the number of elements of the array',
} as const
