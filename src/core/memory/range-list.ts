/*
 * Ranges of addresses that do not overlap, found in O(log n). They are in blocks, so that to add one moves few others:
 * a process may have ten thousands, of which each new one is below all others, as Linux places mappings.
 */

export interface Range {
  readonly start: number
  /** Behind the last byte. */
  readonly end: number
}

/** Maximum ranges of a block. */
const BLOCK = 256

/** Of the first element that ends behind `address`; `endOf` grows from one to the next. */
const firstBehind = <E>(elements: readonly E[], endOf: (element: E) => number, address: number): number => {
  let low = 0
  let high = elements.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (endOf(elements[middle]!) > address) high = middle
    else low = middle + 1
  }
  return low
}
const endOfRange = ({ end }: Range): number => end
const endOfBlock = (block: readonly Range[]): number => block[block.length - 1]!.end

export class RangeList<T extends Range> {
  /** By address; none is empty. */
  readonly #blocks: T[][] = []
  #size = 0

  get size(): number {
    return this.#size
  }

  /** The range must not overlap another one. */
  add(range: T): void {
    this.#size++
    const at = Math.min(firstBehind(this.#blocks, endOfBlock, range.start), this.#blocks.length - 1)
    const block = this.#blocks[at]
    if (block === undefined) {
      this.#blocks.push([range])
      return
    }
    block.splice(firstBehind(block, endOfRange, range.start), 0, range)
    if (block.length > BLOCK) this.#blocks.splice(at + 1, 0, block.splice(BLOCK / 2))
  }

  /** The range that contains an address. */
  at(address: number): T | undefined {
    const block = this.#blocks[firstBehind(this.#blocks, endOfBlock, address)]
    const range = block?.[firstBehind(block, endOfRange, address)]
    return range !== undefined && range.start <= address ? range : undefined
  }

  overlapping(start: number, end: number): readonly T[] {
    const found: T[] = []
    for (let at = firstBehind(this.#blocks, endOfBlock, start); at < this.#blocks.length; at++) {
      const block = this.#blocks[at]!
      for (let i = firstBehind(block, endOfRange, start); i < block.length; i++) {
        if (block[i]!.start >= end) return found
        found.push(block[i]!)
      }
    }
    return found
  }

  /** Returns what it has removed. */
  removeOverlapping(start: number, end: number): readonly T[] {
    const found = this.overlapping(start, end)
    for (const range of found) this.remove(range)
    return found
  }

  /** False if it is not one of them. */
  remove(range: T): boolean {
    const at = firstBehind(this.#blocks, endOfBlock, range.start)
    const block = this.#blocks[at]
    const index = block === undefined ? 0 : firstBehind(block, endOfRange, range.start)
    if (block?.[index] !== range) return false
    this.#size--
    block.splice(index, 1)
    if (block.length === 0) this.#blocks.splice(at, 1)
    return true
  }
}
