/*
 * The row of the finding peer-not-ready.
 */

export const peerNotReady = {
  severity: 'error',
  needs: ['call', 'completion', 'peer'],
  title: 'requests were sent to the peer while it was in RESET or INIT',
  why: 'A queue pair in RESET or INIT drops all packets (IBA 10.3.1): the retries of a connection run out, and datagrams are lost.',
  advice: 'exchange a message outside the connection after both ends are in RTR, before the first request',
  statuses: { RETRY_EXC_ERR: 1 },
  marks: 'failed peer',
} as const
