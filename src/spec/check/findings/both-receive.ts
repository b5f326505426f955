/*
 * The row of the finding both-receive.
 */

export const bothReceive = {
  severity: 'note',
  needs: ['check', 'connections', 'queues', 'waits'],
  title: 'both ends of a connection wait for a message',
  why: 'Each end has receives posted, and neither has a send outstanding: if both programs wait for a message, none comes. It is reported when the program is ended by a signal, on Ctrl-C, or with `--hang`.',
  advice:
    'look for a send that one end has left out, or that it sends only after a message of the other, or for a completion that was polled before and not counted',
  wait: 9,
} as const
