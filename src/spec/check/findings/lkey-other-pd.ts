/*
 * The row of the finding lkey-other-pd.
 */

export const lkeyOtherPd = {
  severity: 'error',
  needs: ['call', 'post', 'completion'],
  title: 'the lkey belongs to another protection domain than the queue',
  why: 'Memory and queue must be of the same protection domain (IBA 10.2.3).',
  advice: 'register the memory in the protection domain of the queue pair or shared receive queue',
  causes: ['LKEY_OTHER_PD'],
  statuses: { LOC_PROT_ERR: 6, REM_OP_ERR: 5 },
  story: 'post',
} as const
