/*
 * The row of the finding unknown-lkey.
 */

export const unknownLkey = {
  severity: 'error',
  needs: ['call', 'post', 'completion'],
  title: 'no region has this lkey',
  why: 'An lkey is the number that the registration returned. lkey 0 is often a scatter/gather element that was not filled in.',
  libraryAdvice: 'use mr.slice() of a region that is open',
  causes: ['LKEY_UNKNOWN', 'LKEY_REFUSED', 'LKEY_WINDOW'],
  statuses: { LOC_PROT_ERR: 1, REM_OP_ERR: 1 },
  story: 'post',
} as const
