/*
 * The row of the finding poll-in-handler.
 */

export const pollInHandler = {
  severity: 'warning',
  needs: ['check', 'preload'],
  title: 'ibv_poll_cq is called in a signal handler',
  why: 'Functions of libibverbs are not async-signal-safe (signal-safety(7)): if the signal interrupts a poll or post of the same thread, the handler waits for ever for the lock that the thread holds, or changes a queue that is half changed.',
  advice: 'set a flag or write to a descriptor (eventfd) in the handler, and poll outside of it',
} as const
