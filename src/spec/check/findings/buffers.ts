/*
 * Findings about memory that outstanding requests use: rows of ../findings.ts.
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

export const sendBufferChanged = {
  severity: 'warning',
  needs: ['check', 'accesses'],
  title: 'the buffer of a send was changed before its completion was polled',
  why: "The device may read the buffer at any time until the completion, and again after a loss: the peer may receive old, new or mixed bytes (IBA 10.6). The buffer is compared at the post, at the fetch by the device, when the device has finished, and at the poll of the completion, or of that of a later request of the queue (for programs in TypeScript: at the fetch, and when the device has finished). A change after the device has finished is no finding if the peer has answered before the poll, if a device may have written the bytes, or if peers out of the checker's sight may write to the program's memory. The check covers a sample of the requests, and a sample of the bytes of messages above 4 KiB; with `--buffers all` it covers every byte of every request. A request that waits at its fence (IBV_SEND_FENCE) is not checked.",
  advice: 'leave the buffer alone until the completion is polled, or send from several buffers in turn',
  statuses: { SUCCESS: 5 },
} as const

export const receiveOverlap = {
  severity: 'note',
  needs: ['post', 'completion'],
  title: 'two outstanding requests write to the same memory',
  why: 'The second message overwrites the first. The finding is a warning if this happened before the completion of the first was polled: the bytes of the first are lost. Bandwidth tests do this on purpose.',
  advice: 'give each outstanding receive and READ memory of its own',
  statuses: { SUCCESS: 10 },
} as const
