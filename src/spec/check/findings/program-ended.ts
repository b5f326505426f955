/*
 * The finding program-ended: its row in ../findings.ts.
 */

export const programEnded = {
  severity: 'note',
  needs: ['device'],
  title: 'the program ended with requests outstanding',
  why: 'The memory of the requests ended with the program.',
  advice: 'wait for all completions before exit',
  causes: ['LOCAL_ENDED'],
} as const
