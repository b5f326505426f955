/*
 * A queue whose `shift` does not move the entries behind: `Array.shift` does, for long arrays.
 */

/** Entries that were taken and are kept, before they are removed. */
const SLACK = 64

export class Fifo<T> {
  #entries: T[] = []
  #taken = 0

  get first(): T | undefined {
    return this.#entries[this.#taken]
  }

  push(entry: T): void {
    this.#entries.push(entry)
  }

  shift(): T | undefined {
    if (this.#taken >= this.#entries.length) return undefined
    const entry = this.#entries[this.#taken++]
    if (this.#taken > SLACK && 2 * this.#taken > this.#entries.length) {
      this.#entries = this.#entries.slice(this.#taken)
      this.#taken = 0
    }
    return entry
  }
}
