/*
 * What the cases of the conformance suite need of a driver: two connected queue pairs, whatever the format of their
 * queues.
 */
import type { NetworkDevice } from '../../../src/core/driver-contract.ts'
import type { TormentKind } from '../../../src/spec/check/torment.ts'
import type { Scope } from '../../system/programs.ts'

/** A completion. `status`: 'ok', or the reason of the failure, where all formats can say it. */
export interface Completion {
  readonly id: number
  readonly status: 'ok' | 'flushed' | 'access' | 'failed'
  readonly isReceive: boolean
}

/** A queue pair that shares its completion queue and its receives with that of an end. */
export interface Second {
  send(id: number, offset: number, length: number): void
  /** Moves the queue pair to ERR. */
  fail(): void
}

/** One end of a connection: a queue pair, and a completion queue for its sends and receives. */
export interface End extends Second {
  readonly qpn: number
  /** Registered memory. Offsets of requests are in it. */
  readonly bytes: Uint8Array
  /** Requests that the send queue and the receive queue hold, and completions that the completion queue holds. */
  readonly depth: number
  readonly receives: number
  readonly entries: number
  /** Writes to the memory of the other end at `to`. `isRefused`: with a key that does not exist. */
  write(id: number, offset: number, length: number, to: number, isRefused?: boolean): void
  /** Reads from the memory of the other end at `from`. */
  read(id: number, offset: number, length: number, from: number): void
  receive(id: number, offset: number, length: number): void
  /** New completions, oldest first, at most `max`. */
  poll(max?: number): Completion[]
  /** Asks for one event of the completion queue. */
  arm(): void
  /** Takes an event; false if there is none. */
  takeEvent(): boolean
  /** Types of the asynchronous events so far. */
  asyncEvents(): readonly number[]
  resize(entries: number): void
  /** Writes random words to whatever the device reads of the queues. */
  scribble(random: () => number): void
  /** With `Options.shared`: connected to that of the other end. */
  readonly second?: Second
}

export interface Options {
  /** Completions of each completion queue, a power of two; one less where a format keeps a slot empty. */
  readonly entries?: number
  /** A rule of `--fault`, for all packets. */
  readonly fault?: string
  /** Seed of `--torment`. */
  readonly torment?: number
  /** The receives of each end are in a shared receive queue, which a second queue pair of the end has too. */
  readonly shared?: true
}

export interface Pair {
  readonly a: End
  readonly b: End
  /** Of `a` and of `b`; perhaps one. */
  readonly devices: readonly [NetworkDevice, NetworkDevice]
  /** Kinds of torment that have acted. */
  readonly acted: ReadonlySet<TormentKind>
  /** Lets the device work until `isDone`; time passes when nothing is left to do. */
  until(isDone: () => boolean): Promise<void>
  /** Lets the device do what it can do now. */
  settle(): Promise<void>
  /** Rules of `--fault` for calls, posts and completions. */
  setFaults(rules: string): void
}

/** What a driver may lack; its line in drivers.ts has the reason. */
export type Feature =
  | 'faults'
  | 'order'
  | 'connection'
  | 'shared'
  | 'events'
  | 'resize'
  | 'scribble'
  | 'torment'
  | 'waits'

export interface Subject {
  readonly name: string
  open(options: Options, t: Scope): Pair | Promise<Pair>
  readonly lacks?: Partial<Record<Feature, string>>
  /** Kinds of torment for which the format or protocol leaves no room (docs/decisions/torment.md). */
  readonly without?: readonly TormentKind[]
}
