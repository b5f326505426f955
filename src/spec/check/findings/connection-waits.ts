/*
 * The row of the finding connection-waits.
 */

export const connectionWaits = {
  severity: 'warning',
  needs: ['check', 'rdma_cm', 'waits'],
  title: 'a connection of rdma_cm waits for a call of a program',
  why: 'A request waits until its program has called rdma_accept or rdma_reject, and the peer waits with it; an event is delivered once and waits until rdma_get_cm_event reads it, also REJECTED and UNREACHABLE. A thread may also wait for an event that cannot come before the next call on the identifier, for example for ESTABLISHED after REJECTED, or for DISCONNECTED after DEVICE_REMOVAL, which is the last. It is reported when a program is ended by a signal, on Ctrl-C, or with `--hang`.',
  advice: 'read the events of each channel, and answer each CONNECT_REQUEST by rdma_accept or rdma_reject',
  wait: 10,
} as const
