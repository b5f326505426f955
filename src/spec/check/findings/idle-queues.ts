/*
 * The row of the finding idle-queues.
 */

export const idleQueues = {
  severity: 'note',
  needs: ['check', 'queues', 'waits'],
  title: 'a program waits, and nothing that is outstanding can complete',
  why: 'A completion comes only of a request that is outstanding: a wait for another one does not end, for example for a message that was lost, a completion that another thread has polled, or the flush of a queue pair that was destroyed. The finding names the queue pair whose state lets no request complete, the asynchronous event that was not read, the work that was lost before and the threads that poll the CQ; else it counts what the queues of the program have (`userdma help reference/waits-by-device`). It is reported when the program is ended by a signal, on Ctrl-C, or with `--hang`, unless a reason for the wait is known or an error was found.',
  wait: 11,
} as const
