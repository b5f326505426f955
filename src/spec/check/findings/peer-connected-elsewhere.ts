/*
 * The row of the finding peer-connected-elsewhere.
 */

export const peerConnectedElsewhere = {
  severity: 'error',
  needs: ['call', 'peer', 'connections'],
  title: 'the peer is connected to another queue pair',
  why: 'A connected queue pair accepts only packets from its peer: both ends name each other by dest_qp_num and address (IBA 9.6.1).',
  advice: "check dest_qp_num and dgid at both ends: each is the other's",
  libraryAdvice: "give each side the `qp.endpoint` of the other's queue pair",
  statuses: { RETRY_EXC_ERR: 4 },
  isStale: true,
} as const
