/*
 * The page by which programs see whether the daemon sleeps, and what else they must know without a call (`ParkedPage`).
 */
import { createRingPool } from '../host/memory/mapping.ts'
import { addSeals, createMemfd, SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK } from '../host/memory/memfd.ts'
import { close } from '../host/net/sockets.ts'
import { ParkedPage } from '../spec/session.ts'

export interface PageOfWords {
  readonly fd: number
  readonly words: Int32Array
  close(): void
}

/** The parked page (loop.ts). The daemon maps it before sealing it, so only the daemon can write. */
export const createParkedPage = (): PageOfWords => {
  const fd = createMemfd('userdma-parked', ParkedPage.bytes)
  addSeals(fd, SEAL_SHRINK | SEAL_GROW)
  // A separate pool, because `userdma stat` shows the counts of the contexts' pool.
  const pool = createRingPool()
  const mapping = pool.map(fd, 0, ParkedPage.bytes)
  addSeals(fd, SEAL_FUTURE_WRITE | SEAL_SEAL)
  const end = (): void => {
    close(fd)
    pool.release(mapping)
  }
  return { fd, words: mapping.i32, close: end }
}
