/*
 * The row of the finding stale-lkey.
 */

export const staleLkey = {
  severity: 'error',
  needs: ['call', 'post', 'completion'],
  title: 'a request uses memory that was deregistered',
  why: 'The device uses the memory of a request until the request has completed (IBA 10.8).',
  advice: 'deregister only after the completions of all requests that name the region',
  libraryAdvice: 'close a region only after the completions of all requests that name it',
  causes: ['LKEY_DEREGISTERED'],
  statuses: { LOC_PROT_ERR: 2, REM_OP_ERR: 2 },
  story: 'post',
} as const
