/*
 * The row of the finding completions-unpolled.
 */

export const completionsUnpolled = {
  severity: 'note',
  needs: ['device', 'left completions', 'waits'],
  title: 'a CQ was destroyed with completions that the program never polled',
  why: 'Only the completion says whether a request succeeded, and when its buffer may be used again. The finding is a warning if one of the completions has an error status other than WR_FLUSH_ERR.',
  advice: 'poll all completions before the CQ is destroyed; flushed requests need not be polled',
  story: 'events',
  followsDeath: true,
} as const
