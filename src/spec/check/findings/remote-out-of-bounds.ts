/*
 * The row of the finding remote-out-of-bounds.
 */

export const remoteOutOfBounds = {
  severity: 'error',
  needs: ['call', 'post', 'completion', 'peer'],
  title: 'a remote access goes beyond the registered memory',
  why: 'All bytes of a request must lie within the region or window (IBA 10.6).',
  advice: 'check remote address and length against the region that the peer has registered',
  causes: ['RKEY_RANGE'],
  statuses: { LOC_ACCESS_ERR: 1, REM_ACCESS_ERR: 2 },
  story: 'post',
} as const
