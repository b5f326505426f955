/*
 * Packets of a fabric on their way, by the time of their arrival; those with the same time in the order in which they
 * were added. A binary heap. Times are microseconds.
 */

export interface Timed {
  readonly due: number
  /** Written by `InFlight`. */
  order: number
}

const isBefore = (a: Timed, b: Timed): boolean => a.due < b.due || (a.due === b.due && a.order < b.order)

export class InFlight<T extends Timed> {
  readonly #heap: T[] = []
  #added = 0

  get size(): number {
    return this.#heap.length
  }

  /** The earliest arrival; Infinity if there is none. */
  get next(): number {
    return this.#heap[0]?.due ?? Number.POSITIVE_INFINITY
  }

  add(entry: T): void {
    const heap = this.#heap
    entry.order = this.#added++
    let at = heap.length
    for (; at > 0 && isBefore(entry, heap[(at - 1) >> 1]!); at = (at - 1) >> 1) heap[at] = heap[(at - 1) >> 1]!
    heap[at] = entry
  }

  /** Removes and returns the first entry; undefined if it is due after `now`. */
  take(now: number): T | undefined {
    const heap = this.#heap
    const [first] = heap
    if (first === undefined || first.due > now) return undefined
    const last = heap.pop()!
    if (heap.length === 0) return first
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (child >= heap.length || !isBefore(heap[child]!, last)) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = last
    return first
  }
}
