/*
 * The row of the finding peer-gone.
 */

export const peerGone = {
  severity: 'warning',
  needs: ['check', 'connections', 'queues', 'waits'],
  title: 'a program waits for a peer that is gone',
  why: 'No message comes from a queue pair that was destroyed or reset, that is in ERR, or whose process has ended, and nothing tells the program: a connection has no heartbeat (IBA 9.7). The finding says who has destroyed or reset the queue pair. With rdma_cm the end of the peer is the event DISCONNECTED; the finding says whether the program has read it. It is reported when the program is ended by a signal, on Ctrl-C, or with `--hang`, and `userdma stat --qps` shows it; as a note if the program has other queue pairs with requests, for which it may wait, or if it has no request outstanding.',
  advice:
    'keep a socket or rdma_cm between the ends and end the connection when it closes, or send a message from time to time: it fails when the peer is gone',
  libraryAdvice:
    'end the connection when the socket between the ends closes, or send a message from time to time: it fails when the peer is gone',
  wait: 8,
  tells: 'reason',
  marks: 'end of a program',
} as const
