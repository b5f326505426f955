/* Reproducible random numbers from a seed (mulberry32, public domain), and seeds from texts. Not for secrets. */

/** Returns a function for uniformly distributed integers from 0 to 2^32 - 1. Uses the lower 32 bits of `seed`. */
export const createRandom = (seed: number): (() => number) => {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return (mixed ^ (mixed >>> 14)) >>> 0
  }
}

/** A 32-bit hash of a text (FNV-1a). */
export const hashOf = (text: string): number => {
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193)
  return value >>> 0
}
