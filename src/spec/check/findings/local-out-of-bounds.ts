/*
 * The row of the finding local-out-of-bounds.
 */

export const localOutOfBounds = {
  severity: 'error',
  needs: ['call', 'post', 'completion'],
  title: 'a scatter/gather element goes beyond the registered memory',
  why: 'All bytes of an element must lie within the region (IBA 10.6).',
  advice: 'check addr and length of the element against the region',
  causes: ['LKEY_RANGE'],
  statuses: { LOC_PROT_ERR: 3, REM_OP_ERR: 3 },
  story: 'post',
} as const
