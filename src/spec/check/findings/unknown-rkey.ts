/*
 * The row of the finding unknown-rkey.
 */

export const unknownRkey = {
  severity: 'error',
  needs: ['call', 'post', 'completion', 'peer'],
  title: 'no memory has this rkey',
  why: 'An rkey is the number that the registration returned. Common mistakes: an lkey, the wrong byte order, a truncated rkey. rkey 0xff is UCX without a flush key: UCX_FENCE_MODE=weak.',
  libraryAdvice: 'send mr.remote(), from a region that was registered with remote rights',
  causes: ['RKEY_UNKNOWN', 'RKEY_REFUSED'],
  statuses: { LOC_ACCESS_ERR: 4, REM_ACCESS_ERR: 1 },
  story: 'post',
} as const
