/*
 * Unpredictable random numbers.
 */
const pool = new Uint32Array(1024)
let remaining = 0

/** A random integer from 0 to 2^32 - 1. */
export const secureRandom = (): number => {
  if (remaining === 0) remaining = crypto.getRandomValues(pool).length
  return pool[--remaining]!
}
