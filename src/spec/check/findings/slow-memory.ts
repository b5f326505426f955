/*
 * The finding slow-memory: its row in ../findings.ts.
 */

export const slowMemory = {
  severity: 'error',
  needs: ['device'],
  title: 'the memory of a program took too long to access',
  why: 'A program or file system that serves the pages (userfaultfd, FUSE) does not answer.',
  advice: 'look at the program or file system that serves the pages',
  causes: ['LOCAL_SLOW', 'REMOTE_SLOW'],
} as const
