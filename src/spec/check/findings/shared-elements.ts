/*
 * The row of the finding shared-elements.
 */

export const sharedElements = {
  severity: 'note',
  needs: ['check', 'preload'],
  title: 'requests of one list have the same scatter/gather elements',
  why: 'ibv_post_* read the elements of all requests of a list when the list is posted. One struct ibv_sge that a loop fills for each request has the values of the last one in all of them. The finding is a warning for READs and atomics, which write to the memory.',
  advice: 'give each request of a list its own struct ibv_sge, until the post returns',
} as const
