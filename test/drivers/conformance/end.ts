/*
 * What the cases of the conformance suite need of a driver: two connected queue pairs, whatever the format of their
 * queues.
 */
import type { DeviceTaps } from '../../../src/core/driver-contract.ts'
import type { Scope } from '../../system/programs.ts'

/** A completion. `status`: 'ok', or the reason of the failure, where all formats can say it. */
export interface Completion {
  readonly id: number
  readonly status: 'ok' | 'flushed' | 'access' | 'failed'
  readonly isReceive: boolean
}

/** One end of a connection: a queue pair, and a completion queue for its sends and receives. */
export interface End {
  /** Registered memory. Offsets of requests are in it. */
  readonly bytes: Uint8Array
  /** Requests that the send queue holds, and completions that the completion queue holds. */
  readonly depth: number
  readonly entries: number
  send(id: number, offset: number, length: number): void
  /** Writes to the memory of the other end at `to`. `isRefused`: with a key that does not exist. */
  write(id: number, offset: number, length: number, to: number, isRefused?: boolean): void
  receive(id: number, offset: number, length: number): void
  /** New completions, oldest first, at most `max`. */
  poll(max?: number): Completion[]
  /** Moves the queue pair to ERR. */
  fail(): void
  /** Asks for one event of the completion queue. */
  arm(): void
  /** Takes an event; false if there is none. */
  takeEvent(): boolean
  resize(entries: number): void
  /** Writes random words to whatever the device reads of the queues. */
  scribble(random: () => number): void
}

export interface Options {
  /** Completions of each completion queue, a power of two; one less where a format keeps a slot empty. */
  readonly entries?: number
  /** A rule of `--fault`, for all packets. */
  readonly fault?: string
}

export interface Pair {
  readonly a: End
  readonly b: End
  /** Of the device of `a`. */
  readonly taps?: DeviceTaps
  /** Lets the device work until `isDone`; time passes when nothing is left to do. */
  until(isDone: () => boolean): Promise<void>
  /** Lets the device do what it can do now. */
  settle(): Promise<void>
}

/** What a driver may lack; its line in drivers.ts has the reason. */
export type Feature = 'faults' | 'order' | 'connection' | 'overrun' | 'events' | 'resize' | 'scribble' | 'taps'

export interface Subject {
  readonly name: string
  open(options: Options, t: Scope): Pair | Promise<Pair>
  readonly lacks?: Partial<Record<Feature, string>>
}
