/*
 * Where a program's memory was written from outside since it asked last: for valgrind, which sees none of these writes.
 */

export interface WrittenRange {
  readonly address: number
  readonly length: number
}

export interface WrittenRanges {
  note(address: number, length: number): void
  /** At most so many of them; they are forgotten then. */
  take(most: number): readonly WrittenRange[]
}

/** Nobody has asked for a long time: the oldest are forgotten. */
const MOST = 65536

export const createWrittenRanges = (): WrittenRanges => {
  /** Lengths by address: buffers are written again and again. */
  const lengths = new Map<number, number>()
  return {
    note(address, length) {
      const known = lengths.get(address)
      if (known !== undefined && known >= length) return
      lengths.set(address, length)
      if (lengths.size <= MOST) return
      for (const oldest of lengths.keys()) {
        lengths.delete(oldest)
        return
      }
    },
    take(most) {
      const taken: WrittenRange[] = []
      for (const [address, length] of lengths) {
        if (taken.length === most) break
        taken.push({ address, length })
        lengths.delete(address)
      }
      return taken
    },
  }
}
