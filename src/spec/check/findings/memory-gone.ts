/*
 * The row of the finding memory-gone.
 */

export const memoryGone = {
  severity: 'error',
  needs: ['check', 'accesses'],
  title: 'the device accessed registered memory that its program had given back',
  why: 'A region outlives its memory: after free, realloc, madvise, the return of a function or the end of a thread whose variable it is, its keys still work, and the device reads or overwrites whatever is there now. Here that is the memory of another object; on an adapter, whose region keeps the old pages, the data is lost too. The finding has the stacks of the access, of the call that gave the memory back, and of the registration (`userdma help reference/memory-given-back`). It is a note if the program may have allocated the block again and used it, as registration caches do, and a warning after madvise, which is harmless here.',
  advice: 'deregister a region before its memory is given back',
} as const
