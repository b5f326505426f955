/*
 * The row of the finding program-ended.
 */

export const programEnded = {
  severity: 'note',
  needs: ['device', 'waits'],
  title: 'the program ended with requests outstanding',
  why: 'The memory of the requests ended with the program.',
  advice: 'wait for all completions before exit',
  causes: ['LOCAL_ENDED'],
  followsDeath: true,
  statuses: { LOC_PROT_ERR: 11, REM_OP_ERR: 12 },
} as const
