/*
 * The rows of findings about the order of calls.
 */

export const pollMisused = {
  severity: 'error',
  needs: ['call', 'library'],
  title: 'functions of an extended CQ are called in a wrong order, or read what the CQ does not have',
  why: 'ibv_start_poll, if it returns 0, begins a poll of one thread with the first completion, ibv_next_poll goes to the next one, and ibv_end_poll ends the poll (ibv_create_cq_ex(3)). ibv_start_poll takes the lock of the CQ and ibv_end_poll releases it. The functions that read a completion exist only for the fields in wc_flags of ibv_create_cq_ex. None of them returns an error: a wrong order waits for ever, releases a lock that another thread holds, reads another completion, or crashes. A call of another thread that waits for the lock for a second is reported too.',
  advice:
    'if ibv_start_poll returns 0, read the completion, go to others by ibv_next_poll until it returns ENOENT, and call ibv_end_poll, all in one thread; if it does not return 0, call none of these',
} as const

export const threadPromise = {
  severity: 'error',
  needs: ['call', 'post', 'library', 'single-threaded CQ'],
  title: 'two threads use a queue that the program has promised to use by one thread at a time',
  why: 'The provider takes no locks for a CQ with IBV_CREATE_CQ_ATTR_SINGLE_THREADED (ibv_create_cq_ex(3)), nor for CQs and queue pairs of a parent domain with a thread domain (ibv_alloc_td(3)): calls of two threads at the same time lose and repeat completions and requests. Threads that were seen to use it in turns, not at the same time, may have a lock of their own: a warning for SINGLE_THREADED, a note for a thread domain.',
  advice:
    'use the queue in one thread, or under a lock of the program; or leave out IBV_CREATE_CQ_ATTR_SINGLE_THREADED, or the thread domain',
} as const
