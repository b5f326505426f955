/*
 * The row of the finding port-byte-order.
 */

export const portByteOrder = {
  severity: 'warning',
  needs: ['call', 'peer', 'library', 'rdma_cm'],
  title: 'a connection is requested at the port of a listener in the other byte order',
  why: 'sin_port and sin6_port are in network byte order. Without htons a program on a little-endian machine uses another port: 7471 becomes 12061. If only one of the two programs forgets it, the connection is rejected.',
  advice: 'assign ports with htons, in both programs',
} as const
