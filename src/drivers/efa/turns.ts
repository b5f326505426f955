/*
 * Turns of users: while queue pairs of a device have several owners, the sends of each take at most about TURN of a
 * poll (docs/decisions/others-wait.md).
 */
import { TURN } from '../../transport/engine/transmit-queue.ts'

export class Turns {
  readonly #now: () => number
  /** By owner: number of its queue pairs. */
  readonly #queuePairs = new Map<number, number>()
  /** By owner: microseconds of this poll. */
  readonly #spent = new Map<number, number>()

  constructor(now: () => number) {
    this.#now = now
  }

  get areShared(): boolean {
    return this.#queuePairs.size > 1
  }

  /** The owner has one queue pair more. */
  join(owner: number): void {
    this.#queuePairs.set(owner, (this.#queuePairs.get(owner) ?? 0) + 1)
  }

  leave(owner: number): void {
    const left = this.#queuePairs.get(owner)! - 1
    if (left > 0) this.#queuePairs.set(owner, left)
    else this.#queuePairs.delete(owner)
  }

  beginPoll(): void {
    this.#spent.clear()
  }

  isOver(owner: number): boolean {
    return this.areShared && (this.#spent.get(owner) ?? 0) >= TURN
  }

  /** When work begins; 0: it is not counted. */
  now(): number {
    return this.areShared ? this.#now() : 0
  }

  /** The owner's work has begun at `since`, a result of `now`, and has ended. */
  spend(owner: number, since: number): void {
    if (since > 0) this.#spent.set(owner, (this.#spent.get(owner) ?? 0) + this.#now() - since)
  }
}
