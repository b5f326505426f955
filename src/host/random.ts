/*
 * Unpredictable numbers, from the system's generator.
 */
const pool = new Uint32Array(1024)
let left = 0

/** Integers from 0 to 2^32 - 1. */
export const secureRandom = (): number => {
  if (left === 0) left = crypto.getRandomValues(pool).length
  return pool[--left]
}
