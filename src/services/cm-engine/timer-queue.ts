/*
 * Deadlines of many connections: a binary heap. Each entry stores its index, so changing or removing a deadline takes
 * O(log n). Times are microseconds.
 */

/** Only the queue writes these fields. */
export interface Timed {
  /** Valid while the entry is in the queue. */
  deadline: number
  /** Index in the heap; -1 if the entry is not in the queue. */
  heapIndex: number
}

export class TimerQueue<T extends Timed> {
  readonly #heap: T[] = []

  /** The earliest deadline; Infinity if there is none. */
  get next(): number {
    return this.#heap[0]?.deadline ?? Number.POSITIVE_INFINITY
  }

  /** Adds an entry, or changes its deadline. */
  set(entry: T, deadline: number): void {
    entry.deadline = deadline
    if (entry.heapIndex < 0) {
      entry.heapIndex = this.#heap.length
      this.#heap.push(entry)
    }
    this.#restoreOrder(entry)
  }

  /** Removes an entry. No effect if the entry is not in the queue. */
  clear(entry: T): void {
    const index = entry.heapIndex
    if (index < 0) return
    entry.heapIndex = -1
    const last = this.#heap.pop()
    if (last === undefined || last === entry) return
    this.#put(last, index)
    this.#restoreOrder(last)
  }

  /** Removes and returns the entry with the earliest deadline; undefined if the deadline is after `now`. */
  take(now: number): T | undefined {
    const first = this.#heap[0]
    if (first === undefined || first.deadline > now) return undefined
    this.clear(first)
    return first
  }

  #put(entry: T, index: number): void {
    this.#heap[index] = entry
    entry.heapIndex = index
  }

  #restoreOrder(entry: T): void {
    let index = entry.heapIndex
    while (index > 0) {
      const parent = this.#heap[(index - 1) >> 1]
      if (parent === undefined || parent.deadline <= entry.deadline) break
      this.#put(parent, index)
      index = (index - 1) >> 1
    }
    for (;;) {
      const left = this.#heap[2 * index + 1]
      const right = this.#heap[2 * index + 2]
      const child = right !== undefined && left !== undefined && right.deadline < left.deadline ? right : left
      if (child === undefined || child.deadline >= entry.deadline) break
      const childIndex = child.heapIndex
      this.#put(child, index)
      index = childIndex
    }
    this.#put(entry, index)
  }
}
