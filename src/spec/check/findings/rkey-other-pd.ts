/*
 * The row of the finding rkey-other-pd.
 */

export const rkeyOtherPd = {
  severity: 'error',
  needs: ['call', 'post', 'completion', 'peer'],
  title: 'the rkey belongs to another protection domain than the queue pair',
  why: 'Memory and queue pair must be of the same protection domain (IBA 10.2.3).',
  advice: "register the memory in the protection domain of the responder's queue pair",
  causes: ['RKEY_OTHER_PD'],
  statuses: { LOC_ACCESS_ERR: 5, REM_ACCESS_ERR: 6 },
  story: 'post',
} as const
