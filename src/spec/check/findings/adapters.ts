/*
 * The rows of findings about limits and operations of other adapters (`--like`).
 */

export const adapterLimit = {
  severity: 'warning',
  needs: ['check', 'other limits'],
  title: 'a program requested more than an adapter named by `--like` allows',
  why: 'Limits differ between adapters, and creation fails beyond a limit. ibv_query_device returns the limits of the device. `userdma help reference/adapters` has the limits of the adapters for `--like`.',
  advice: 'request less, or at most the limit that ibv_query_device returns',
  libraryAdvice: 'ask for less, or at most the limit that device.query() returns',
} as const

export const adapterOperation = {
  severity: 'warning',
  needs: ['check', 'other limits'],
  title: 'a program used an operation that an adapter named by `--like` lacks, or the device silently',
  why: 'Some types of queue pairs, operations and objects are optional. `userdma help reference/adapters` says what the adapters for `--like` lack. Without `--like` it tells of receives without elements on EFA, of which libefa writes nothing into the queue.',
  advice: 'query the device for the operation before use, and provide a fallback',
} as const

export const adapterMemlock = {
  severity: 'warning',
  needs: ['check', 'other limits'],
  title: 'more memory was registered than a user may lock (RLIMIT_MEMLOCK)',
  why: 'Adapters pin registered memory, and the pages count against RLIMIT_MEMLOCK of the process. The registration succeeded here because the process has CAP_IPC_LOCK (root) or the daemon runs with --ignore-memlock. A registration that is refused for the limit is reported as refused-call.',
  advice: 'raise the limit where the program will run (ulimit -l, LimitMEMLOCK), or register less',
} as const

export const forkUnsafe = {
  severity: 'warning',
  needs: ['check', 'other limits'],
  title: 'a program with registered memory forks without ibv_fork_init',
  why: 'After a fork the first write to a page copies the page. An adapter that has pinned the page keeps the old page: the program does not see received data (ibv_fork_init(3)). Since 5.12 Linux copies pinned pages at the fork: only older kernels need ibv_fork_init. This finding is reported with `--like`. A fork with requests outstanding is reported in every run, as fork-outstanding.',
  advice:
    'call ibv_fork_init before the first registration, or set RDMAV_FORK_SAFE=1; system and posix_spawn need neither',
  statuses: { SUCCESS: 9 },
} as const
