/*
 * Random values for tests: a seed determines all of them.
 */
import { createRandom } from '../../../src/base/random.ts'

export type RandomSource = ReturnType<typeof createRandomSource>

export const createRandomSource = (seed: number) => {
  const next = createRandom(seed)
  return {
    /** An integer from 0 to n-1. */
    int: (n: number): number => Math.floor((next() / 0x1_0000_0000) * n),
    /** True with probability `share`, 0 to 1. */
    hits: (share: number): boolean => next() < share * 0x1_0000_0000,
    /** 32 random bits. */
    u32: (): number => next(),
    pick: <T>(list: readonly T[]): T => list[Math.floor((next() / 0x1_0000_0000) * list.length)],
    /** An entry of a weighted table. */
    weighted<T extends { readonly weight: number }>(list: readonly T[]): T {
      let remaining = (next() / 0x1_0000_0000) * list.reduce((sum, entry) => sum + entry.weight, 0)
      for (const entry of list) {
        remaining -= entry.weight
        if (remaining < 0) return entry
      }
      return list[list.length - 1]
    },
    fill(bytes: Uint8Array): void {
      for (let i = 0; i < bytes.length; i++) bytes[i] = next() & 255
    },
  }
}
