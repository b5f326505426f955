/*
 * The rows of findings about memory of outstanding requests that its program gives up.
 */

export const bufferFreed = {
  severity: 'error',
  needs: ['check', 'queues', 'preload'],
  title: 'memory of an outstanding request was freed',
  why: 'The device reads and writes the memory of a request until its completion (IBA 10.6). After free(), or a realloc() that moves the block, other callers get the memory, and the device sends or overwrites their data. The finding is a warning if the request was complete at that time, and its completion not polled.',
  advice: 'free memory only after the completions of all requests that use it were polled, or their queue destroyed',
  statuses: { SUCCESS: 6 },
  story: 'none',
} as const

export const frameReturned = {
  severity: 'error',
  needs: ['check', 'preload'],
  title: 'a request uses memory of a stack frame that has returned',
  why: "The next calls of the thread use the frame's memory: the device sends or overwrites their data. The checker finds the mistake at a later post or poll of the same thread with a shallower stack. The finding is a warning if the request was complete at that time, and its completion not polled.",
  advice: 'poll the completion before the function returns, or use memory that lives longer',
  statuses: { SUCCESS: 7 },
  story: 'none',
} as const

export const forkOutstanding = {
  severity: 'warning',
  needs: ['check', 'queues', 'preload'],
  title: 'a process forked while requests were outstanding, without ibv_fork_init',
  why: 'After a fork the first write to a page copies the page. Before Linux 5.12 the adapter keeps the old page: the program does not see received data, and old data is sent (ibv_fork_init(3)). Later kernels copy pinned pages at the fork; a program that has asked ibv_is_fork_initialized knows this, and is not reported. Shared memory and MADV_DONTFORK memory are not copied.',
  advice:
    'call ibv_fork_init before the first registration, or fork before requests are posted; system and posix_spawn need neither',
  statuses: { SUCCESS: 8 },
  story: 'none',
} as const
