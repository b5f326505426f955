/*
 * The row of the finding lkey-no-right.
 */

export const lkeyNoRight = {
  severity: 'error',
  needs: ['call', 'post', 'completion'],
  title: 'the region does not allow the device to write',
  why: 'Receives, READs and atomics write to local memory, which needs IBV_ACCESS_LOCAL_WRITE (IBA 10.6).',
  advice: 'register with IBV_ACCESS_LOCAL_WRITE',
  libraryAdvice: 'register without { localWrite: false }',
  causes: ['LKEY_NO_RIGHT'],
  statuses: { LOC_PROT_ERR: 5, REM_OP_ERR: 4 },
  story: 'post',
} as const
