/*
 * Looks for armings that programs have stored in the doorbell records of their completion queues. A device may have
 * thousands of queues, so a poll looks at a slice, and the next one goes on behind it. Before the daemon's loop sleeps,
 * it looks at all (`ScanScope.BEGIN` and `CONTINUE`).
 */
import { ScanScope } from '../../core/driver-contract.ts'

/** Queues of a slice: some 25 µs. */
const SLICE = 256

/** `take`: takes the arming of a queue; true if there was one. */
export class Armings<T> {
  readonly #take: (cq: T) => boolean
  readonly #cqs: T[] = []
  readonly #places = new Map<T, number>()
  /** Index of the next queue to look at, and how many are left of the round over all. */
  #next = 0
  #left = 0

  constructor(take: (cq: T) => boolean) {
    this.#take = take
  }

  add(cq: T): void {
    this.#places.set(cq, this.#cqs.length)
    this.#cqs.push(cq)
  }

  /** No effect if it is not one of them. */
  delete(cq: T): void {
    const place = this.#places.get(cq)
    if (place === undefined) return
    this.#places.delete(cq)
    const last = this.#cqs.pop()!
    if (last !== cq) {
      this.#cqs[place] = last
      this.#places.set(last, place)
    }
    // the moved one may have gone to where the round was already
    if (this.#left > 0) this.#left = this.#cqs.length
  }

  /** Whether a round over all has slices left. */
  isUnfinished(): boolean {
    return this.#left > 0
  }

  /** Takes armings; true if there were any. */
  take(scope: ScanScope = ScanScope.ALL): boolean {
    const { length } = this.#cqs
    if (scope === ScanScope.ALL || scope === ScanScope.BEGIN) this.#left = length
    const count = scope === ScanScope.ALL ? length : Math.min(length, SLICE)
    let isArmed = false
    for (let i = 0; i < count; i++) {
      if (this.#next >= length) this.#next = 0
      isArmed = this.#take(this.#cqs[this.#next++]!) || isArmed
    }
    this.#left = Math.max(0, this.#left - count)
    return isArmed
  }
}
