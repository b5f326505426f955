/*
 * The row of the finding peer-ended.
 */

export const peerEnded = {
  severity: 'error',
  needs: ['device', 'causes'],
  title: 'the program that owns the remote memory has ended',
  why: 'Memory and queue pairs end with their program.',
  advice: 'exchange a last message before either end exits',
  causes: ['REMOTE_ENDED'],
  followsDeath: true,
  statuses: { LOC_ACCESS_ERR: 8, REM_OP_ERR: 9 },
} as const
