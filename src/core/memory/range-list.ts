/*
 * Ranges of addresses that do not overlap, found in O(log n).
 */

export interface Range {
  readonly start: number
  /** Behind the last byte. */
  readonly end: number
}

export class RangeList<T extends Range> {
  /** By address. */
  readonly #ranges: T[] = []

  get size(): number {
    return this.#ranges.length
  }

  /** The range must not overlap another one. */
  add(range: T): void {
    this.#ranges.splice(this.#indexBehind(range.start), 0, range)
  }

  /** The range that contains an address. */
  at(address: number): T | undefined {
    const range = this.#ranges[this.#indexBehind(address)]
    return range !== undefined && range.start <= address ? range : undefined
  }

  overlapping(start: number, end: number): readonly T[] {
    const [first, last] = this.#indicesOf(start, end)
    return this.#ranges.slice(first, last)
  }

  /** Returns what it has removed. */
  removeOverlapping(start: number, end: number): readonly T[] {
    const [first, last] = this.#indicesOf(start, end)
    return this.#ranges.splice(first, last - first)
  }

  /** False if it is not one of them. */
  remove(range: T): boolean {
    const index = this.#indexBehind(range.start)
    if (this.#ranges[index] !== range) return false
    this.#ranges.splice(index, 1)
    return true
  }

  /** Of the first range that ends behind `address`. */
  #indexBehind(address: number): number {
    let low = 0
    let high = this.#ranges.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#ranges[middle]!.end > address) high = middle
      else low = middle + 1
    }
    return low
  }

  #indicesOf(start: number, end: number): [first: number, last: number] {
    const first = this.#indexBehind(start)
    let last = first
    while (last < this.#ranges.length && this.#ranges[last]!.start < end) last++
    return [first, last]
  }
}
