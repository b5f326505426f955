/*
 * Ranges of a program's memory that the daemon has written or peers may write. Programs under valgrind query the ranges
 * (WRITTEN in spec/session.ts), because valgrind does not see these writes.
 */
import type { WrittenRange } from '../../uapi/session-codec.ts'

export interface WrittenRanges {
  add(address: number, length: number): void
  /** Removes and returns up to `max` ranges. */
  take(max: number): readonly WrittenRange[]
}

/** Maximum number of ranges; the oldest are dropped. */
const MAX_RANGES = 65536

export const createWrittenRanges = (): WrittenRanges => {
  const lengthByAddress = new Map<number, number>()
  return {
    add(address, length) {
      const known = lengthByAddress.get(address)
      if (known !== undefined && known >= length) return
      lengthByAddress.set(address, length)
      if (lengthByAddress.size <= MAX_RANGES) return
      for (const oldest of lengthByAddress.keys()) {
        lengthByAddress.delete(oldest)
        return
      }
    },
    take(max) {
      const taken: WrittenRange[] = []
      for (const [address, length] of lengthByAddress) {
        if (taken.length === max) break
        taken.push({ address, length })
        lengthByAddress.delete(address)
      }
      return taken
    },
  }
}
