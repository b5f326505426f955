/*
 * What the daemon's thread waits for, by cause, as `userdma stat` shows it. It serves all programs, so while it waits,
 * all of them wait. Other threads may run in each of these times.
 */

/** By cause: what it is. */
export const loopWaits = {
  events: 'for events: there is nothing to do',
  movers:
    'for movers, which make the system calls that a program could delay: a few microseconds each, more if a mover has to wait for a processor. Without `memory`',
  memory: 'for pages, locks and files of programs, in movers',
  yields: 'while another thread has the processor after sched_yield(2), between polls of queues',
  naps: 'sleeps of 10 µs between polls, while other programs compete for the processor',
  processor: 'for a processor, though it could run: also during the waits for movers and the yields',
} as const
export type LoopWait = keyof typeof loopWaits

/** Waits since the daemon's start. `count` and `longest` are absent where they are not known. */
export interface LoopWaitStat {
  readonly microseconds: number
  readonly count?: number
  /** Microseconds. */
  readonly longest?: number
}
