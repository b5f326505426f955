/*
 * The row of the finding no-peer-qp.
 */

export const noPeerQp = {
  severity: 'error',
  needs: ['call', 'completion', 'peer'],
  title: 'the peer has no queue pair of that number',
  why: 'Packets to an unknown queue pair are dropped without an answer (IBA 9.6.1): the retries of a connection run out, and datagrams are lost. If a signal ended the peer, the finding says so: a warning, or a note if a later request succeeds or the program closes its device.',
  advice: 'check dest_qp_num and that the peer keeps its queue pair until the last acknowledgement',
  libraryAdvice:
    "give each side the other's `qp.endpoint`, and keep the peer's queue pair open until the last request is complete",
  statuses: { RETRY_EXC_ERR: 2 },
  isStale: true,
  followsDeath: true,
  marks: 'gone peer',
} as const
