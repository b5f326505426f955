/*
 * The row of the finding path-mtu-mismatch.
 */

export const pathMtuMismatch = {
  severity: 'error',
  needs: ['call', 'completion', 'peer', 'connections'],
  title: 'the ends have different path MTUs',
  why: 'Messages are segmented into packets of the path MTU. A packet with an unexpected length is an invalid request or response (IBA 9.7.4).',
  advice: "set path_mtu to the same value at both ends: the smaller of the two ports' active_mtu",
  libraryAdvice: 'give both calls of qp.connect the same pathMtu, or none',
  causes: ['PACKET_LENGTH'],
  statuses: { BAD_RESP_ERR: 1, REM_INV_REQ_ERR: 4, RETRY_EXC_ERR: 6 },
  showsEnds: true,
} as const
