/*
 * Ranges of a program's memory that the daemon has written, or peers may write, and that the program has not queried
 * yet (WRITTEN in spec/session.ts). A program under valgrind needs them, since valgrind does not see these writes.
 */

export interface WrittenRange {
  readonly address: number
  readonly length: number
}

export interface WrittenRanges {
  add(address: number, length: number): void
  /** Removes and returns up to `max` ranges. */
  take(max: number): readonly WrittenRange[]
}

/** Maximum number of ranges; the oldest are dropped, since the program has not queried for a long time. */
const MAX_RANGES = 65536

export const createWrittenRanges = (): WrittenRanges => {
  /** Lengths by address. The same buffers are usually written repeatedly. */
  const lengths = new Map<number, number>()
  return {
    add(address, length) {
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
