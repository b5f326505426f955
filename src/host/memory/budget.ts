/*
 * A budget for each user: how long calls that wait for the user's programs may block the daemon.
 */
import { ETIMEDOUT } from '../errno.ts'
import { nowMicroseconds } from '../event-loop/clock.ts'
import type { Mover } from './mover.ts'

/** Maximum of a budget, and maximum timeout of a mover's system call. Microseconds. */
export const MAX_WAIT = 250_000
/** A budget below this is used up. Microseconds. */
const MIN_REMAINING = 1000
/** Waiting time that a user regains per microsecond: waits take at most a twentieth of the time. */
const REFUND = 0.05

/** The waiting time that a user had left at `updatedAt` (clock.ts). Microseconds. */
interface Budget {
  remaining: number
  updatedAt: number
}
const budgets = new Map<number, Budget>()

const budgetOf = (uid: number): Budget => {
  const now = nowMicroseconds()
  const budget = budgets.get(uid) ?? { remaining: MAX_WAIT, updatedAt: now }
  budgets.set(uid, budget)
  budget.remaining = Math.min(MAX_WAIT, budget.remaining + (now - budget.updatedAt) * REFUND)
  budget.updatedAt = now
  return budget
}

/**
 * Runs `call` with the user's remaining waiting time as its timeout (µs). Charges the user for the time that `mover`
 * waited, or for all that was left if `call` returns -ETIMEDOUT. If no time is left, returns -ETIMEDOUT without a call.
 */
export const charged = (uid: number, mover: Mover, call: (timeout: number) => number): number => {
  const budget = budgetOf(uid)
  if (budget.remaining < MIN_REMAINING) return -ETIMEDOUT
  const result = call(budget.remaining)
  budget.remaining -= result === -ETIMEDOUT ? budget.remaining : mover.waited()
  return result
}
