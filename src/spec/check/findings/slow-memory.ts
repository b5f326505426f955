/*
 * The row of the finding slow-memory.
 */

export const slowMemory = {
  severity: 'error',
  needs: ['device', 'accesses'],
  title: 'the memory of a program took too long to access',
  why: 'A program or file system that serves the pages (userfaultfd, FUSE) does not answer.',
  advice: 'look at the program or file system that serves the pages',
  causes: ['LOCAL_SLOW', 'REMOTE_SLOW'],
  statuses: { LOC_PROT_ERR: 10, LOC_ACCESS_ERR: 9, REM_OP_ERR: 10 },
} as const
