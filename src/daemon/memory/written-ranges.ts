/*
 * Ranges of a program's memory that were written from outside since the last query: for valgrind, which does not see
 * these writes.
 */

export interface WrittenRange {
  readonly address: number
  readonly length: number
}

export interface WrittenRanges {
  note(address: number, length: number): void
  /** Maximum of recorded ranges; beyond it they are dropped. */
  take(max: number): readonly WrittenRange[]
}

/** No query for a long time: the oldest are dropped. */
const MAX_RANGES = 65536

export const createWrittenRanges = (): WrittenRanges => {
  /** Lengths by address: the same buffers are written repeatedly. */
  const lengths = new Map<number, number>()
  return {
    note(address, length) {
      const known = lengths.get(address)
      if (known !== undefined && known >= length) return
      lengths.set(address, length)
      if (lengths.size <= MAX_RANGES) return
      for (const oldest of lengths.keys()) {
        lengths.delete(oldest)
        return
      }
    },
    take(max) {
      const taken: WrittenRange[] = []
      for (const [address, length] of lengths) {
        if (taken.length === max) break
        taken.push({ address, length })
        lengths.delete(address)
      }
      return taken
    },
  }
}
