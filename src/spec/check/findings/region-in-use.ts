/*
 * The rows of findings about regions that requests use.
 */

export const regionInUse = {
  severity: 'error',
  needs: ['call', 'post', 'completion', 'queues'],
  title: 'a region was deregistered while requests that use it are outstanding',
  why: 'The device uses the memory of a request until its completion (IBA 10.6). A request that is executed after the deregistration fails. The finding is a warning if the request is a receive, or if the request is complete and its completion was not polled.',
  advice: 'wait for the completions, or destroy the queue pair first, which ends its requests',
  statuses: { LOC_PROT_ERR: 8 },
} as const

export const regionUnmapped = {
  severity: 'warning',
  needs: ['check', 'preload'],
  title: 'memory was unmapped before its region was deregistered',
  why: 'Until ibv_dereg_mr an adapter uses the pages that were pinned at registration, even after other memory is mapped at the same addresses: requests transfer bytes that the program no longer sees. With userdma later requests to the region fail (local-unmapped, remote-unmapped). The finding is a note if no request that uses the region was outstanding. Then nothing is transferred: registration caches, such as that of UCX, deregister memory only some time after the program has unmapped it. mremap(), mmap() with MAP_FIXED, and free() and realloc() of large blocks also unmap. The history of the region tells the call. free() of small blocks is reported as buffer-freed.',
  advice: 'deregister before munmap, mremap or free',
  libraryAdvice: 'close the region before its file shrinks or its buffer is transferred',
  statuses: { LOC_PROT_ERR: 9, REM_OP_ERR: 8 },
  story: 'none',
} as const
