/*
 * Copies between this process and another one's memory that never block us for long: a page may be missing, and its
 * provider (a file system in user space, a server, userfaultfd, a slow disk) may take any time.
 *
 * A program of our own user does that only by accident. We copy pages that are in memory, and a mover copies all
 * others: the first touch of each page. A program of another user (with an owner, process.ts) may do it on purpose, and
 * remove a page after our check. There the mover copies everything, and its waiting time is charged to the user: once
 * that is used up, copies fail.
 *
 * Where the native library or /proc/PID/pagemap is absent, we copy everything ourselves, and wait.
 */
import { ETIMEDOUT } from '../errno.ts'
import { nowMicroseconds } from '../event-loop/clock.ts'
import { createMover, type Mover } from './mover.ts'
import { boundResult, type MoveArguments, type ProcessHandle, readv, writev } from './process.ts'
import { type ResidentPages, residentPages } from './resident.ts'

/** As `readv` of process.ts, at a time (microseconds) that need not be newer than the turn; -ETIMEDOUT: too slow. */
type Move = (...what: [...MoveArguments, now: number]) => number

export interface Moves {
  readonly read: Move
  readonly write: Move
  close(): void
}

/** Maximum time for which one copy waits for a page. Microseconds. */
export const PATIENCE = 250_000
/** With less time left than this, a user's waiting time counts as used up. */
const LEAST = 1000
/** Waiting time that a user regains per microsecond: all waits of one user take at most a twentieth of our time. */
const REFUND = 0.05

interface Budget {
  left: number
  at: number
}
const budgets = new Map<number, Budget>()

/** The waiting time that a user has left. */
const budgetOf = (uid: number): Budget => {
  const now = nowMicroseconds()
  const budget = budgets.get(uid) ?? { left: PATIENCE, at: now }
  budgets.set(uid, budget)
  budget.left = Math.min(PATIENCE, budget.left + (now - budget.at) * REFUND)
  budget.at = now
  return budget
}

/** The budget of all programs of our own user. */
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
      return shared.move(write, handle.pid, high, low, local, offset, chunk, stride, total, PATIENCE)
    }
  return { read: move(false), write: move(true), close: () => pages?.close() }
}

const foreignMoves = (uid: number, mover: Mover): Moves => {
  const move =
    (write: boolean): Move =>
    (high, low, local, offset, chunk, stride, total) => {
      const budget = budgetOf(uid)
      if (budget.left < LEAST) return -ETIMEDOUT
      const moved = mover.move(write, -1, high, low, local, offset, chunk, stride, total, budget.left)
      budget.left -= moved === -ETIMEDOUT ? budget.left : mover.waited()
      return boundResult(moved)
    }
  return { read: move(false), write: move(true), close: () => mover.close() }
}

/** Copies for a process whose handle stays open until they are closed. */
export const createMoves = (handle: ProcessHandle): Moves => {
  const { owner, mem } = handle
  const mover = owner && mem >= 0 ? createMover(mem, owner.uid) : undefined
  return owner && mover ? foreignMoves(owner.uid, mover) : ownMoves(handle)
}
