/*
 * The row of the finding local-unmapped.
 */

export const localUnmapped = {
  severity: 'error',
  needs: ['device', 'causes'],
  title: 'the memory of a request is unmapped or protected',
  why: 'userdma accesses the memory by its addresses, and fails here. An adapter would use the pages that were pinned at registration, which the program no longer sees.',
  advice: 'deregister before munmap, free or mprotect, and after the last completion',
  libraryAdvice: 'close the region before its file shrinks or its buffer is transferred, and after the last completion',
  causes: ['LOCAL_FAULT'],
  statuses: { LOC_PROT_ERR: 7, REM_OP_ERR: 6 },
} as const
