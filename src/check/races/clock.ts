/*
 * Vector clocks for the search for races. The clock of a thread (or of a message) tells which requests the thread can
 * know to have ended. A queue has a slot in clocks, which a later queue may get after it; the requests of a slot are
 * numbered from 0. A clock has two counts for each slot:
 *
 * - `done`: requests with lower numbers are complete, since the completion of the last of them was polled;
 * - `placed`: the bytes that requests with lower numbers send have arrived, for example since a message after them was
 *   received. READs and atomics among them may still be outstanding (IBA 10.8.3.3).
 *
 * Threads are also ordered by pipes, mutexes and other means that are not seen. For these there is one time,
 * `acquired`: the clock contains what any thread knew then. A clock that several owners share must not be changed:
 * `unshared` makes a copy of it.
 */

/** Maximum slots. A queue without a slot has no counts: what one thread knows of it, all threads are taken to know. */
export const MAX_SLOTS = 256

export class Clock {
  /** Microseconds. */
  acquired: number
  isShared = false
  /**
   * By slot: `done`, then `placed`. A plain array, since nearly each poll copies it: a small one is copied in half the
   * time of a typed array.
   */
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

  /** Raises `acquired` and all counts to those of the other clock. */
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
