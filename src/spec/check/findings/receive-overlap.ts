/*
 * The row of the finding receive-overlap.
 */

export const receiveOverlap = {
  severity: 'note',
  needs: ['post', 'completion'],
  title: 'two outstanding requests write to the same memory',
  why: 'The second message overwrites the first. The finding is a warning if this happened before the completion of the first was polled: the bytes of the first are lost. Bandwidth tests do this on purpose.',
  advice: 'give each outstanding receive and READ memory of its own',
  statuses: { SUCCESS: 10 },
} as const
