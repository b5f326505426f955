/*
 * The row of the finding no-answer.
 */

export const noAnswer = {
  severity: 'error',
  needs: ['completion', 'GID paths', 'packets'],
  title: 'the peer does not answer, or packets are lost, though the known attributes of both ends match',
  why: 'The request was sent retry_cnt + 1 times, and each time the transport timer expired or packets were lost (IBA 9.7.6). If a port was down meanwhile, an address had left its device, or a fault rule lost packets of the connection, the finding names that; and it is a note, if the program survives: it completes a later request, closes its device, or is ended by a signal while the outage lasts.',
  libraryAdvice:
    'check address, route and firewall (UDP port 4791), and that the peer runs; choose timeout and retryCount for its longest pause',
  causes: [
    'NO_ANSWER',
    'ROCE_VERSION',
    'VLAN_DIFFERS',
    'LINK_LOCAL_ROUTED',
    'ROCE_V1_ROUTED',
    'HOP_LIMIT_ENDED',
    'LOSSY_CLASS',
    'CLASS_PAUSED',
    'LONGER_THAN_MTU',
    'TTL_ENDED',
    'NO_ROUTE',
    'PACKETS_LOST',
    'DC_NO_ANSWER',
    'SRD_NO_ANSWER',
  ],
  statuses: { RETRY_EXC_ERR: 11, RESP_TIMEOUT_ERR: 1 },
} as const
