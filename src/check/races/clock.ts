/*
 * Vector clocks over queues. The clock of a thread or message contains the requests that it can know to have ended. It
 * has two counts for each queue:
 *
 * - `done`: the requests before it have completed, and a completion that says so was polled;
 * - `placed`: the requests before it precede a received message, so the bytes that they send have arrived. READs and
 *   atomics before a message may still be outstanding (IBA 10.8.3.3).
 *
 * `acquired` stands for all other ways to order threads, such as pipes and mutexes: the clock contains all that any
 * thread knew at that time. A clock that is shared is not changed; `own` makes a copy.
 */

/** Queues with counts of their own. For further queues, each thread counts as knowing all that any thread knows. */
export const MAX_SLOTS = 256

export class Clock {
  /** Microseconds. */
  acquired: number
  isShared = false
  // Copied for nearly each poll: a small array is copied in a tenth of the time of a typed one.
  readonly #done: number[]
  readonly #placed: number[]

  constructor(acquired: number, done: number[] = [], placed: number[] = []) {
    this.acquired = acquired
    this.#done = done
    this.#placed = placed
  }

  /** This clock, or a copy if it is shared. */
  get own(): Clock {
    return this.isShared ? new Clock(this.acquired, this.#done.slice(), this.#placed.slice()) : this
  }

  done(slot: number): number {
    return this.#done[slot] ?? 0
  }

  placed(slot: number): number {
    return this.#placed[slot] ?? 0
  }

  raiseDone(slot: number, count: number): void {
    this.#fit(slot + 1)
    if (count > this.#done[slot]!) this.#done[slot] = count
  }

  raisePlaced(slot: number, count: number): void {
    this.#fit(slot + 1)
    if (count > this.#placed[slot]!) this.#placed[slot] = count
  }

  /** Adds all requests of the other clock. */
  join(other: Clock): void {
    if (other.acquired > this.acquired) this.acquired = other.acquired
    const { length } = other.#done
    this.#fit(length)
    for (let i = 0; i < length; i++) {
      if (other.#done[i]! > this.#done[i]!) this.#done[i] = other.#done[i]!
      if (other.#placed[i]! > this.#placed[i]!) this.#placed[i] = other.#placed[i]!
    }
  }

  #fit(length: number): void {
    while (this.#done.length < length) {
      this.#done.push(0)
      this.#placed.push(0)
    }
  }
}
