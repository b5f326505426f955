/*
 * The rows of findings about the order of accesses (`--races`).
 */

export const race = {
  severity: 'error',
  needs: ['check', 'WRITEs', 'accesses'],
  title: 'two requests access the same bytes, at least one writes, and nothing orders them',
  why: 'Requests of different queues are executed in any order, also at the same time (IBA 10.8.3.3). The device may fetch the data of a request before earlier requests of its queue have arrived at the peer. The first request is before the second only if the thread that posts the second knows that the first is complete. The thread knows this if it has polled the completion, or if a thread that has polled the completion has passed this on by a message, an atomic or thread synchronization. The finding is an error if one thread posted both requests and did not wait between, and no thread had polled the completion of the first when the second was posted. Otherwise the finding is a warning: the program may know from memory that the first is complete. When the device executes the requests does not count: it differs from run to run. `userdma_check.h` lets a program say what it knows, or that accesses to some memory may overlap. Races with receives are warnings. Races of two accesses to one aligned word of 1, 2, 4 or 8 bytes are warnings, because programs use words as flags.',
  advice:
    'poll the completion of the first request before the second is posted; if another thread or process posts the second, notify it after the poll',
  statuses: { SUCCESS: 1 },
} as const

export const counterShared = {
  severity: 'note',
  needs: ['check', 'atomics', 'accesses'],
  title: 'two queue pairs add to one counter, each behind a WRITE of its own',
  why: 'An atomic is executed after the WRITEs before it in its queue, but those of another queue may come before or after (IBA 10.8.3.3). So the value of a counter that several queues add to says how many of the WRITEs have landed, not which: who waits for the first one may read bytes that the second queue has not written yet. It is told if one thread posted both additions, polled no completion of the first and did not wait between. It is a note because who waits for the sum of all additions may use all bytes.',
  advice: 'count in a word for each queue pair, or wait for the sum of all additions before any of the bytes are used',
} as const

export const readThenWriteUnfenced = {
  severity: 'error',
  needs: ['check', 'fences', 'accesses'],
  title: 'a READ is followed, without a fence, by a request that changes the bytes that it reads',
  why: 'A READ or atomic may be in progress when a later SEND, WRITE or atomic of the queue is executed. With IBV_SEND_FENCE the later request waits until earlier READs and atomics are complete (IBA 10.8.3.3).',
  advice: 'set IBV_SEND_FENCE in the later request, or poll the completion of the READ first',
  libraryAdvice: 'set { fence: true } in the later request, or await the READ first',
  statuses: { SUCCESS: 2 },
} as const

export const bufferReused = {
  severity: 'error',
  needs: ['check', 'WRITEs', 'accesses'],
  title: 'a request was posted with a buffer that another request still uses, and one of the two writes to it',
  why: 'The device may read and write the buffer of a request at any time until the completion was polled (IBA 10.8.3, 11.4.1). The data of a READ is in the buffer only after the completion of the READ. Later requests of the same queue must be fenced to see this data.',
  advice:
    'poll the completion of the request that uses the buffer, or set IBV_SEND_FENCE in a request that sends the data of a READ',
  libraryAdvice:
    'await the request that uses the buffer, or set { fence: true } in a request that sends the data of a READ',
  statuses: { SUCCESS: 3 },
} as const

export const atomicMixedWithWrite = {
  severity: 'warning',
  needs: ['check', 'atomics', 'accesses'],
  title: 'an access that is neither an atomic nor a READ of one word overlaps an atomic, and nothing orders the two',
  why: 'Atomics are atomic only among atomics (IBA 9.4.5). On some adapters a WRITE between the read and the write of an atomic is lost.',
  advice:
    'change the word by atomics only, for example release a lock with compare and swap, or order the two by a completion',
  statuses: { SUCCESS: 4 },
} as const
