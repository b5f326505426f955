/*
 * Unpredictable random numbers.
 */
import { closeSync, openSync, readSync } from 'node:fs'

const pool = new Uint32Array(1024)
let remaining = 0

/** From the kernel (random(4)); where there is no such file from Node's crypto, which takes 12 ms to load. */
const fill = (): void => {
  try {
    const fd = openSync('/dev/urandom', 'r')
    readSync(fd, pool, {})
    closeSync(fd)
  } catch {
    crypto.getRandomValues(pool)
  }
  remaining = pool.length
}

/** A random integer from 0 to 2^32 - 1. */
export const secureRandom = (): number => {
  if (remaining === 0) fill()
  return pool[--remaining]!
}
