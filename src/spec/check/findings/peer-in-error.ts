/*
 * The row of the finding peer-in-error.
 */

export const peerInError = {
  severity: 'error',
  needs: ['call', 'completion', 'peer'],
  title: 'the peer is in an error state',
  why: 'A queue pair in ERR drops all packets (IBA 10.3.1): the retries of a connection run out, and datagrams are lost.',
  advice: "look for the first failure of the peer's queue pair; this one follows from it",
  statuses: { RETRY_EXC_ERR: 3 },
  marks: 'failed peer',
} as const
