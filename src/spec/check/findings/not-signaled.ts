/*
 * The row of the finding not-signaled.
 */

export const notSignaled = {
  severity: 'warning',
  needs: ['check', 'unsignaled sends', 'queues', 'waits'],
  title: 'a program waits, and its last sends are complete and not signaled',
  why: 'A send without IBV_SEND_SIGNALED, on a queue pair without sq_sig_all, has a completion only if it fails (IBA 10.8.6): a program that waits for its completion waits without end. It is reported when the program is ended by a signal, on Ctrl-C, or with `--hang`; as a note if receives are posted, for which the program may wait instead.',
  advice:
    'set IBV_SEND_SIGNALED in each request whose completion the program waits for, or create the queue pair with sq_sig_all',
  wait: 3,
} as const
