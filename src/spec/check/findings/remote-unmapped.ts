/*
 * The row of the finding remote-unmapped.
 */

export const remoteUnmapped = {
  severity: 'error',
  needs: ['device', 'causes'],
  title: 'the registered memory of the responder is unmapped or protected',
  why: 'userdma accesses the memory by its addresses, and fails here. An adapter would write to the pages that were pinned at registration, which the program no longer sees.',
  advice: 'deregister before munmap, free or mprotect',
  libraryAdvice: 'close the region before its file shrinks or its buffer is transferred',
  causes: ['REMOTE_FAULT'],
  statuses: { LOC_ACCESS_ERR: 7, REM_OP_ERR: 7 },
} as const
