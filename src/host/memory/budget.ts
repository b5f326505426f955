/*
 * A budget for each user: the total time for which calls that wait for programs of that user may block the daemon.
 */
import { ETIMEDOUT } from '../errno.ts'
import { nowMicroseconds } from '../event-loop/clock.ts'
import type { Mover } from './mover.ts'

/** Maximum timeout of one system call of a mover, and maximum of a budget. Microseconds. */
export const MAX_WAIT = 250_000
/** With less time left than this, a user's waiting time counts as used up. Microseconds. */
const MIN_REMAINING = 1000
/** Waiting time that a user regains per microsecond: in the long run waits take at most a twentieth of the time. */
const REFUND = 0.05

/** The waiting time that a user had left at a time (clock.ts), both in microseconds. */
interface Budget {
  remaining: number
  updatedAt: number
}
const budgets = new Map<number, Budget>()

/** The budget of a user now. */
const budgetOf = (uid: number): Budget => {
  const now = nowMicroseconds()
  const budget = budgets.get(uid) ?? { remaining: MAX_WAIT, updatedAt: now }
  budgets.set(uid, budget)
  budget.remaining = Math.min(MAX_WAIT, budget.remaining + (now - budget.updatedAt) * REFUND)
  budget.updatedAt = now
  return budget
}

/**
 * Runs `call` with the waiting time that the user has left as its timeout (µs), and charges the user for the time that
 * `mover` waited, or for all that was left if `call` returns -ETIMEDOUT. Returns the result, or -ETIMEDOUT without a
 * call if no time is left.
 */
export const charged = (uid: number, mover: Mover, call: (timeout: number) => number): number => {
  const budget = budgetOf(uid)
  if (budget.remaining < MIN_REMAINING) return -ETIMEDOUT
  const result = call(budget.remaining)
  budget.remaining -= result === -ETIMEDOUT ? budget.remaining : mover.waited()
  return result
}
