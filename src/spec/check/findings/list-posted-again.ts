/*
 * The row of the finding list-posted-again.
 */

export const listPostedAgain = {
  severity: 'warning',
  needs: ['check', 'preload'],
  title: 'requests are posted again that the queue has taken',
  why: 'A post that succeeds has posted each request that `next` leads to, and one that fails all before bad_wr (ibv_post_send(3)): posted again, they are sent, or receive, twice.',
  advice: 'poll completions, and then post from bad_wr on',
} as const
