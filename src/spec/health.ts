/*
 * What `userdma stat --health` tells beside queue pairs and threads: what programs have not done with what came to
 * them.
 */
import type { WaitStat } from './check/waits.ts'

interface HealthProgram {
  readonly device: string
  readonly pid: number
  readonly command: string
  /** Microseconds since a look found it first; 0: this one. */
  readonly age: number
}

/** A state from which a program gets nothing. */
interface HealthWait extends HealthProgram, WaitStat {
  readonly kind: 'wait'
}

/** Completions that lie in a CQ from which nothing is polled. */
interface HealthCompletions extends HealthProgram {
  readonly kind: 'completions'
  /** Handle of the CQ. */
  readonly cq: number
  readonly unpolled: number
  /** There is an error among them. */
  readonly isError?: true
}

/** Asynchronous events of a context that are not read. */
interface HealthEvents extends HealthProgram {
  readonly kind: 'events'
  readonly unread: number
}

export type HealthRow = HealthWait | HealthCompletions | HealthEvents
