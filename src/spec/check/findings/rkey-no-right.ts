/*
 * The row of the finding rkey-no-right.
 */

export const rkeyNoRight = {
  severity: 'error',
  needs: ['call', 'post', 'completion', 'peer'],
  title: 'the region does not allow this remote access',
  why: 'A region allows only the accesses that its access flags name (IBA 10.6).',
  advice: 'register with IBV_ACCESS_REMOTE_READ, _WRITE or _ATOMIC; the last two also need IBV_ACCESS_LOCAL_WRITE',
  libraryAdvice: 'register with { remoteRead: true }, remoteWrite or remoteAtomic',
  causes: ['RKEY_NO_RIGHT', 'RKEY_NONE'],
  statuses: { LOC_ACCESS_ERR: 2, REM_ACCESS_ERR: 4 },
  story: 'post',
} as const
