/*
 * Ranges of a program's memory that the daemon has written since the last query: for valgrind, which does not see these
 * writes.
 */

export interface WrittenRange {
  readonly address: number
  readonly length: number
}

export interface WrittenRanges {
  note(address: number, length: number): void
  /** Removes and returns up to `max` ranges. */
  take(max: number): readonly WrittenRange[]
}

/** Beyond this the oldest ranges are dropped: nobody has queried for a long time. */
const MAX_RANGES = 65536

export const createWrittenRanges = (): WrittenRanges => {
  /** Lengths by address. The same buffers are usually written repeatedly. */
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
