/*
 * The row of the finding elements-unused.
 */

export const elementsUnused = {
  severity: 'warning',
  needs: ['check', 'ibv_post_send', 'preload'],
  title: 'a request has num_sge 0, and a scatter/gather element in sg_list',
  why: 'A request has as many elements as num_sge says: with 0 the message is empty, and its request succeeds (ibv_post_send(3)). The element is in a region of the program. The finding is a note if earlier sends of the process had elements, because this one may be left of them, and for receives: one for WRITE_WITH_IMM needs no element.',
  advice: 'set num_sge to the number of elements of sg_list; for an empty message set sg_list to NULL',
} as const
