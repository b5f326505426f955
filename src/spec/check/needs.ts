/*
 * What findings need (`needs` of their rows, in findings/): of the producer of program events (program-events.ts), and
 * of the device. Where a finding is not told, something that it needs is missing.
 */

/**
 * What a finding needs to know. `call`, `post`, `completion`: those of the program. `peer`: also those of the peer's
 * program. `library`: what only the program's libraries and our preload library know: posts and calls that they refuse,
 * their order, and destroyed objects. `device`: what a device of ours knows at no cost, and recordings of every depth
 * have: why it has failed a request, and what the program has polled when it makes a call. `check`: what costs so much
 * that it is only for the checker, and in recordings with `--record-depth check`: memory, waits, events.
 */
export type Need = 'call' | 'post' | 'completion' | 'peer' | 'library' | 'device' | 'check' | Told | Offered | Done

/** What a device or its preload library tells. */
type Told = 'causes' | 'rejections' | 'queues' | 'waits' | 'accesses' | 'peer accesses' | 'invalidations' | 'preload'
/** What a device has: `adapter` is one of a machine; `other limits` is `--like`. */
type Offered =
  | 'adapter'
  | 'other limits'
  | 'InfiniBand'
  | 'GID paths'
  | 'packets'
  | 'hop limits'
  | 'connections'
  | 'rdma_cm'
  | Service
type Service = 'WRITEs' | 'atomics' | 'fences' | 'windows' | 'indirect keys' | 'RNR limit' | 'pending requests' | Other
type Other = 'other services' | 'single-threaded CQ'
/** What the provider lets a program do. */
type Done = 'all opcodes' | 'all flags' | 'ibv_post_send' | 'unsignaled sends' | 'unpolled sends' | Late
type Late = 'left completions' | 'late polls' | 'calls after REJECTED'

/** What producers of events lack: adapters of the machine (`--host`), and recordings of depth `plain`. */
export const LACKING = { observed: ['device', 'check'], plain: ['library', 'check'] } as const satisfies Readonly<
  Record<string, readonly Need[]>
>
