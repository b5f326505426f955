/*
 * Copies between this process and another one's memory that never block us for long. A copy can block because a page is
 * missing, and its provider may take any time: a file system in user space, a server, userfaultfd, a slow disk.
 *
 * - A program of our own user blocks us only by accident. This process copies pages that are in memory, a mover
 *   (mover.ts) copies all others.
 * - A program of another user, a guest (guest.ts), may block us on purpose, and remove a page after our check. A mover
 *   copies everything. Its waiting time is charged to the user; when the time is used up, copies fail.
 * - Pages that the program may protect from writes at any moment, and then not for long, are copied by a mover too. A
 *   write that fails there may be made again until it succeeds.
 * - If the native library is absent, this process copies everything itself, and waits.
 * - If /proc/PID/pagemap is absent, this process copies everything of programs of our own user.
 */

import { ESRCH } from '../errno.ts'
import { MAX_WAIT } from './budget.ts'
import type { Guest } from './guest.ts'
import { createMover, type Mover } from './mover.ts'
import type { MoveArguments } from './pieces.ts'
import { isSame, memResult, needsMem, type ProcessHandle, readv, writev } from './process.ts'
import { type MayFreeze, type ResidentPages, residentPages } from './resident.ts'

/**
 * As `readv` or `writev` of process.ts, also with the errors of `Mover.move`. `now`: as for `areResident`; may be as
 * old as the turn of the event loop. `isFrozen`: see `Mover.move`.
 */
type Move = (...args: [...MoveArguments, now: number, isFrozen?: boolean]) => number

/**
 * Whether the process is the same (`isSame` of process.ts). The answer may be as old as the turn of the event loop.
 * `isSpaceInUse`: see `isSame`.
 */
type IsUnchanged = (isSpaceInUse: boolean) => boolean

export interface Moves {
  readonly read: Move
  readonly write: Move
  /** Number of pages that copies have found missing so far; undefined for a guest, whose pages are not queried. */
  readonly missingPages: number | undefined
  /** Whether copies reach pages that are protected from the program: those of guests go through /proc/PID/mem. */
  readonly ignoresProtection: boolean
  /** What is known of the pages from `start` to `end` is forgotten: the program may protect them at any moment. */
  forget(start: number, end: number): void
  close(): void
}

/** The mover for all handles without `guest` and `owner`. */
let shared: Mover | undefined

const nonGuestMoves = (handle: ProcessHandle, isUnchanged: IsUnchanged, mayFreeze?: MayFreeze): Moves => {
  const { pid, mem, owner } = handle
  let pages: ResidentPages | undefined
  let hasOpenedPages = false
  /** With an owner (if we have CAP_SYS_PTRACE: owner.ts) copies use `mem`, so this mover inherits `mem`. */
  const ownMover = owner && mem >= 0 ? createMover({ inheritedFds: [mem] }) : undefined
  const move =
    (write: boolean): Move =>
    (high, low, local, offset, chunk, stride, total, now, isFrozen = false) => {
      // A copy through /proc/PID/mem that returns 0 bytes means that the process has ended (`memResult`).
      if (total === 0) return 0
      if (!hasOpenedPages) {
        pages = residentPages(pid, mayFreeze)
        // The pid may be another process's, or have run exec, before the open.
        if (!isSame(handle)) {
          pages?.close()
          pages = undefined
          return -ESRCH
        }
        hasOpenedPages = true
      }
      if (owner === undefined) shared ??= createMover()
      const mover = owner === undefined ? shared : ownMover
      const copy = write ? writev : readv
      const isCopiedHere = mover === undefined || pages === undefined || pages.areResident(high, low, total, now)
      if (!isUnchanged(pages?.foundAt === now)) return -ESRCH
      if (isCopiedHere) return copy(handle, high, low, local, offset, chunk, stride, total)
      if (owner !== undefined)
        return memResult(mover.move(write, -1, mem, high, low, local, offset, chunk, stride, total, MAX_WAIT, isFrozen))
      const moved = mover.move(write, pid, -1, high, low, local, offset, chunk, stride, total, MAX_WAIT, isFrozen)
      // This process can still copy: it has opened the memory.
      return needsMem(moved) ? copy(handle, high, low, local, offset, chunk, stride, total) : moved
    }
  const close = (): void => {
    pages?.close()
    ownMover?.close()
  }
  return {
    read: move(false),
    write: move(true),
    get missingPages() {
      return pages?.missing ?? 0
    },
    ignoresProtection: owner !== undefined,
    forget: (start, end) => pages?.forget(start, end),
    close,
  }
}

const guestMoves = (guest: Guest, isUnchanged: IsUnchanged): Moves => {
  const move =
    (write: boolean): Move =>
    (high, low, local, offset, chunk, stride, total, _now, isFrozen = false) => {
      if (total === 0) return 0
      if (!isUnchanged(false)) return -ESRCH
      return memResult(guest.move(write, isFrozen, high, low, local, offset, chunk, stride, total))
    }
  return {
    read: move(false),
    write: move(true),
    missingPages: undefined,
    ignoresProtection: true,
    forget: () => {},
    close: () => {},
  }
}

/**
 * `handle` must stay open until the copies are closed. `isUnchanged`: asked before each copy. Default: asks the kernel.
 * `mayFreeze`: see `residentPages`.
 */
export const createMoves = (
  handle: ProcessHandle,
  isUnchanged: IsUnchanged = isInUse => isSame(handle, isInUse),
  mayFreeze?: MayFreeze,
): Moves => (handle.guest ? guestMoves(handle.guest, isUnchanged) : nonGuestMoves(handle, isUnchanged, mayFreeze))
