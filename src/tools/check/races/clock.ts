/*
 * Vector clocks for the search for races. The clock of a thread or message tells which requests the thread, or the
 * sender of the message, can know to have ended. A queue (`Queue` in races.ts) has a slot in clocks; a later queue may
 * get the slot of a closed one. The requests of a slot are numbered from 0, across its queues. A clock has two counts
 * for each slot:
 *
 * - `done`: all requests with lower numbers are complete. A completion said so.
 * - `placed`: the data of all requests with lower numbers has arrived. A message or flag that arrived later said so, or
 *   a completion of a reliable queue. READs and atomics with lower numbers may still be outstanding (IBA 10.8.3.3).
 *
 * Pipes, mutexes and other means also order threads, and are not seen. For them a clock has one time, `acquired`: the
 * clock contains all that any thread knew at that time.
 *
 * A clock that several owners share must not change: `unshared` copies it.
 */

/** Maximum slots. A queue without a slot has no counts: what one thread knows of the queue, all are taken to know. */
export const MAX_SLOTS = 256

export class Clock {
  /** Microseconds. */
  acquired: number
  isShared = false
  /** By slot: `done`, then `placed`. Nearly each poll copies it: a small array is copied faster than a typed one. */
  readonly #counts: number[]

  constructor(acquired: number, counts: number[] = []) {
    this.acquired = acquired
    this.#counts = counts
  }

  /** This clock, or a copy of it if it is shared. */
  unshared(): Clock {
    return this.isShared ? new Clock(this.acquired, this.#counts.slice()) : this
  }

  done(slot: number): number {
    return this.#counts[2 * slot] ?? 0
  }

  placed(slot: number): number {
    return this.#counts[2 * slot + 1] ?? 0
  }

  raiseDone(slot: number, count: number): void {
    this.#raise(2 * slot, count)
  }

  raisePlaced(slot: number, count: number): void {
    this.#raise(2 * slot + 1, count)
  }

  /** Raises `acquired` and all counts to at least those of the other clock. */
  join(other: Clock): void {
    if (other.acquired > this.acquired) this.acquired = other.acquired
    const counts = other.#counts
    for (let i = 0; i < counts.length; i++) this.#raise(i, counts[i]!)
  }

  #raise(index: number, count: number): void {
    const counts = this.#counts
    while (counts.length <= index) counts.push(0)
    if (count > counts[index]!) counts[index] = count
  }
}
