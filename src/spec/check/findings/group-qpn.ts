/*
 * The row of the finding group-qpn.
 */

export const groupQpn = {
  severity: 'error',
  needs: ['check', 'other services', 'causes'],
  title: 'a datagram to a multicast group has another QPN than 0xffffff',
  why: 'A packet to a group names no queue pair: its destination is QPN 0xffffff (IBA 9.2.5), and each queue pair that is attached to the group gets a copy. With the number of a queue pair no member gets it, and the request succeeds.',
  causes: ['GROUP_QPN'],
} as const
