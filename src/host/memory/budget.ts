/*
 * A budget for each user: how long calls that wait for the user's programs may block the daemon.
 */
import { type Budget, createBudget } from '../budget.ts'
import { ETIMEDOUT } from '../errno.ts'
import type { Mover } from './mover.ts'

/** Maximum of a budget, and maximum timeout of a mover's system call. Microseconds. */
export const MAX_WAIT = 250_000
/** A budget below this is used up. Microseconds. */
const MIN_REMAINING = 1000
/** Waits take at most this share of the time. */
const SHARE = 0.05

/** By user. */
const budgets = new Map<number, Budget>()

const budgetOf = (uid: number): Budget => {
  const budget = budgets.get(uid) ?? createBudget(MAX_WAIT, SHARE)
  budgets.set(uid, budget)
  return budget
}

/**
 * Runs `call` with the user's remaining waiting time as its timeout (µs). Charges the user for the time that `mover`
 * waited, or for all that was left if `call` returns -ETIMEDOUT. If no time is left, returns -ETIMEDOUT without a call.
 */
export const charged = (uid: number, mover: Mover, call: (timeout: number) => number): number => {
  const budget = budgetOf(uid)
  const timeout = budget.remaining()
  if (timeout < MIN_REMAINING) return -ETIMEDOUT
  const result = call(timeout)
  budget.take(result === -ETIMEDOUT ? budget.remaining() : mover.waited())
  return result
}
