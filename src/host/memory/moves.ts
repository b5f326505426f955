/*
 * Copies between this process and another one's memory that never block us for long: a page may be missing, and its
 * provider (a file system in user space, a server, userfaultfd, a slow disk) may take any time.
 *
 * A program of our own user does that only by accident. We copy pages that are in memory, and a mover copies all
 * others: the first touch of each page. A program of another user may do it on purpose, and remove a page after our
 * check. There the mover copies everything, and its waiting time is charged to the user: once that is used up, copies
 * fail (guest.ts).
 *
 * Where the native library or /proc/PID/pagemap is absent, we copy everything ourselves, and wait.
 */
import { PATIENCE } from './budget.ts'
import type { Guest } from './guest.ts'
import { createMover, type Mover } from './mover.ts'
import type { MoveArguments } from './pieces.ts'
import { boundResult, type ProcessHandle, readv, writev } from './process.ts'
import { type ResidentPages, residentPages } from './resident.ts'

/** As `readv` of process.ts, at a time (microseconds) that need not be newer than the turn; -ETIMEDOUT: too slow. */
type Move = (...what: [...MoveArguments, now: number]) => number

export interface Moves {
  readonly read: Move
  readonly write: Move
  close(): void
}

/** The mover of all programs of our own user. */
let shared: Mover | undefined

const ownMoves = (handle: ProcessHandle): Moves => {
  let pages: ResidentPages | undefined
  let opened = false
  const move =
    (write: boolean): Move =>
    (high, low, local, offset, chunk, stride, total, now) => {
      if (!opened) {
        opened = true
        pages = residentPages(handle.pid)
      }
      shared ??= createMover()
      if (shared === undefined || pages === undefined || pages.holds(high, low, total, now))
        return (write ? writev : readv)(handle, high, low, local, offset, chunk, stride, total)
      return shared.move(write, handle.pid, -1, high, low, local, offset, chunk, stride, total, PATIENCE)
    }
  return { read: move(false), write: move(true), close: () => pages?.close() }
}

const guestMoves = (guest: Guest): Moves => {
  const move =
    (write: boolean): Move =>
    (high, low, local, offset, chunk, stride, total) =>
      boundResult(guest.move(write, high, low, local, offset, chunk, stride, total))
  return { read: move(false), write: move(true), close: () => {} }
}

/** Copies for a process whose handle stays open until the copies are closed. */
export const createMoves = (handle: ProcessHandle): Moves =>
  handle.guest ? guestMoves(handle.guest) : ownMoves(handle)
