/*
 * The row of the finding wrong-lid.
 */

export const wrongLid = {
  severity: 'error',
  needs: ['device', 'InfiniBand', 'preload'],
  title: 'the LID of a path is not that of the port on which the peer is',
  why: 'On InfiniBand switches forward by LIDs, and a packet whose LID no port has, or the port of another device, is lost: the retries of a connection run out, and datagrams get nowhere. LIDs are given by the subnet manager, may change, and are not in the GID. A program that was tried on RoCE only has none: its dlid is 0.',
  libraryAdvice: "give each side the other's `qp.endpoint`, which has the LID",
  causes: ['LID_UNKNOWN', 'LID_OF_OTHER'],
  statuses: { RETRY_EXC_ERR: 8 },
  isStale: true,
} as const
