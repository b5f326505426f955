/*
 * Copies between this process and another one's memory that never block us for long. A copy can block because a page is
 * missing, and its provider (a file system in user space, a server, userfaultfd, a slow disk) may take any time.
 *
 * A program of our own user blocks us only by accident. This process copies pages that are in memory, and a mover
 * (mover.ts) all others. A program of another user, a guest (guest.ts), may block us on purpose, and remove a page
 * after our check. There a mover copies everything, and its waiting time is charged to the user; once that is used up,
 * copies fail.
 *
 * Where the native library is absent, this process copies everything itself, and waits; where /proc/PID/pagemap is
 * absent, everything of programs of our own user.
 */

import { ESRCH } from '../errno.ts'
import { MAX_WAIT } from './budget.ts'
import type { Guest } from './guest.ts'
import { createMover, type Mover } from './mover.ts'
import type { MoveArguments } from './pieces.ts'
import { memResult, type ProcessHandle, readv, writev } from './process.ts'
import { type ResidentPages, residentPages } from './resident.ts'

/**
 * As `readv` or `writev` of process.ts, also with the errors of `Mover.move`. `now`: the time in microseconds, possibly
 * as old as the turn of the event loop.
 */
type Move = (...args: [...MoveArguments, now: number]) => number

export interface Moves {
  readonly read: Move
  readonly write: Move
  close(): void
}

/** The mover for programs of our own user, unless they have an owner. */
let shared: Mover | undefined

const sameUserMoves = (handle: ProcessHandle): Moves => {
  const { pid, mem, owner } = handle
  let pages: ResidentPages | undefined
  let isOpened = false
  /** A process with an owner is not accessed by its pid (process.ts), so this mover inherits `mem`. */
  const ownMover = owner && mem >= 0 ? createMover({ inheritedFds: [mem] }) : undefined
  const move =
    (write: boolean): Move =>
    (high, low, local, offset, chunk, stride, total, now) => {
      if (!isOpened) {
        isOpened = true
        pages = residentPages(pid)
      }
      if (owner === undefined) shared ??= createMover()
      const mover = owner === undefined ? shared : ownMover
      const copy = write ? writev : readv
      if (mover === undefined || pages === undefined || pages.areResident(high, low, total, now))
        return copy(handle, high, low, local, offset, chunk, stride, total)
      if (owner !== undefined)
        return memResult(mover.move(write, -1, mem, high, low, local, offset, chunk, stride, total, MAX_WAIT))
      const moved = mover.move(write, pid, -1, high, low, local, offset, chunk, stride, total, MAX_WAIT)
      // Perhaps only its main thread has ended; only this process has opened its memory.
      return moved === -ESRCH ? copy(handle, high, low, local, offset, chunk, stride, total) : moved
    }
  const close = (): void => {
    pages?.close()
    ownMover?.close()
  }
  return { read: move(false), write: move(true), close }
}

const guestMoves = (guest: Guest): Moves => {
  const move =
    (write: boolean): Move =>
    (high, low, local, offset, chunk, stride, total) =>
      memResult(guest.move(write, high, low, local, offset, chunk, stride, total))
  return { read: move(false), write: move(true), close: () => {} }
}

/** Copies for a process whose handle stays open until the copies are closed. */
export const createMoves = (handle: ProcessHandle): Moves =>
  handle.guest ? guestMoves(handle.guest) : sameUserMoves(handle)
