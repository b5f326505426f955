/*
 * The row of the finding wrong-grh.
 */

export const wrongGrh = {
  severity: 'warning',
  needs: ['device', 'InfiniBand', 'preload'],
  title: 'the GRH of a path names another port than its LID',
  why: 'On InfiniBand switches forward by the LID, and routers between subnets by the GRH. An adapter drops packets whose GRH does not name it (IBA 8.3, 9.6.1); this device takes them. Programs that were tried on RoCE only leave is_global set, with a GID that is of no use here.',
  libraryAdvice: "give each side the other's `qp.endpoint`, which has LID and GID",
  causes: ['GRH_OF_OTHER'],
} as const
