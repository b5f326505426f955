/*
 * The row of the finding listener-address.
 */

export const listenerAddress = {
  severity: 'warning',
  needs: ['device', 'rdma_cm', 'rejections'],
  title:
    'a connection is requested at an address at which no identifier listens at this port, and one does at another address',
  why: 'rdma_bind_addr with an address takes connections for this address only: 127.0.0.1 and ::1 those of the same host, and the name localhost may be either. A request for another address is rejected (REJECTED with status 8, IB_CM_REJ_INVALID_SERVICE_ID), and the listener learns of none.',
  advice: 'bind the listener to INADDR_ANY (in6addr_any takes IPv4 too), or to the address that the peer connects to',
  causes: ['LISTENS_ELSEWHERE'],
} as const
