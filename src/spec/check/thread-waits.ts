/*
 * Who waits for whom: the threads of programs, what each waits for, and who could end the wait. For `userdma check` and
 * `userdma stat --waits`.
 */

/**
 * What a thread waits for; `poll`: it polls CQs in a loop; `batch`: it does so while a batch of ibv_wr_* that it has
 * started is open; `sleep`: for time; `runs`: it makes no calls. Of threads that only /proc shows: `system-call`, and
 * without rights `unknown`.
 */
export const threadWaitKinds = [
  'channel',
  'poll',
  'cm-event',
  'async-event',
  'mutex',
  'rwlock',
  'join',
  'condition',
  'semaphore',
  'barrier',
  'child',
  'descriptor',
  'signal',
  'message-queue',
  'batch',
  'sleep',
  'system-call',
  'runs',
  'unknown',
] as const
export type ThreadWaitKind = (typeof threadWaitKinds)[number]

/** A poll that has found something. */
export interface FoundPoll {
  /** Such as `CQ 1`. */
  readonly object: string
  /** Completions of at most `asked`; absent: of an extended CQ, which is asked for one after another. */
  readonly count: number
  readonly asked?: number
  /** Its call: one frame. */
  readonly stack: readonly string[]
}

/** A thread that waits. */
export interface ThreadWait {
  /** Name of the host of a net. */
  readonly host?: string
  readonly pid: number
  readonly command: string
  readonly tid: number
  readonly kind: ThreadWaitKind
  /** What it waits for: `CQ 3`, `mutex 0x55…`, `thread 12`. */
  readonly object: string
  /** What it does, one clause after the thread's name: `joins thread 12`. */
  readonly action: string
  /** Why nothing ends the wait, one clause: `no event is on its way`. */
  readonly reason?: string
  /** The thread that could end it, if it is only one. */
  readonly owner?: number
  /** As `Stack` (finding.ts). */
  readonly stack: readonly string[]
  /** Where the condition variable or semaphore was signaled last. As `stack`; absent: unknown. */
  readonly signaled?: readonly string[]
  /** Its last polls that have found something, oldest first; absent: none. */
  readonly polled?: readonly FoundPoll[]
  /** Microseconds of the daemon's clock. */
  readonly since: number
}

/** Threads in their order of `first`, then the others. */
export interface WaitGraph {
  /** `cycle`: threads wait for each other. `end`: a chain ends at a wait that nobody ends. `open`: neither. */
  readonly shape: 'cycle' | 'end' | 'open'
  /** Indices in `threads`: each waits for the next one; of a cycle, the last for the first. */
  readonly first: readonly number[]
  readonly threads: readonly ThreadWait[]
  /** Threads that were left out. */
  readonly more: number
}

/** Who could end a wait: a thread of a process, or any thread of it. */
export interface Ender {
  readonly host?: string
  readonly pid: number
  readonly tid?: number
}

/** A thread for the graph. */
export interface GraphThread extends ThreadWait {
  /** Any of these could end the wait. `process`: also any other thread of its own. */
  readonly enders: readonly Ender[]
  readonly process: boolean
  /** Something that the graph does not have could end it: a timeout, the network, a person. */
  readonly isOpen: boolean
}

/** A process for the graph. */
export interface GraphProcess {
  readonly host?: string
  readonly pid: number
  readonly command: string
  readonly threads: readonly GraphThread[]
  /** Threads that do not wait, or of which nothing is known. */
  readonly others: number
  /** The signal at which its threads tell where they are (wait-table.ts); absent: none. */
  readonly sampleSignal?: number
}
