/*
 * The row of the finding stale-rkey.
 */

export const staleRkey = {
  severity: 'error',
  needs: ['call', 'post', 'completion', 'peer'],
  title: 'the rkey is of memory that was deregistered, or of a memory window that was deallocated or has a new rkey',
  why: 'An rkey is valid until its owner deregisters the region or invalidates the window (IBA 10.6).',
  libraryAdvice: 'close a region only after the peer has said that it no longer uses its mr.remote()',
  causes: ['RKEY_DEREGISTERED', 'RKEY_OLD', 'WINDOW_DEALLOCATED'],
  statuses: { LOC_ACCESS_ERR: 3, REM_ACCESS_ERR: 5 },
} as const
