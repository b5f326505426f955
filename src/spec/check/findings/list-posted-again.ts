/*
 * The row of the finding list-posted-again.
 */

export const listPostedAgain = {
  severity: 'warning',
  needs: ['check', 'preload'],
  title: 'a list is posted again from its head after only its rest was refused',
  why: 'A post that fails has posted all requests before bad_wr (ibv_post_send(3)): posted again, they are sent, or receive, twice.',
  advice: 'poll completions, and then post from bad_wr on',
} as const
