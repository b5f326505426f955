/*
 * A first-in, first-out queue in a ring, which grows.
 */
export class Fifo<T> {
  #slots: (T | undefined)[] = new Array(16)
  #head = 0
  #length = 0

  get length(): number {
    return this.#length
  }

  /** The oldest value; undefined if the queue is empty. */
  get first(): T | undefined {
    return this.#slots[this.#head]
  }

  push(value: T): void {
    const size = this.#slots.length
    if (this.#length === size) {
      this.#slots = [...this.#slots.slice(this.#head), ...this.#slots.slice(0, this.#head), ...new Array(size)]
      this.#head = 0
    }
    this.#slots[(this.#head + this.#length++) % this.#slots.length] = value
  }

  /** Removes the oldest value. */
  shift(): void {
    if (this.#length === 0) return
    this.#slots[this.#head] = undefined
    this.#head = (this.#head + 1) % this.#slots.length
    this.#length--
  }
}
