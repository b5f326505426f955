/*
 * The time for which all calls that wait for programs of one user may block us.
 */
import { ETIMEDOUT } from '../errno.ts'
import { nowMicroseconds } from '../event-loop/clock.ts'
import type { Mover } from './mover.ts'

/** Maximum time for which one call waits. Microseconds. */
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

/** Makes a call of a mover with the waiting time that its user has left, and charges it. -ETIMEDOUT if there is none. */
export const charged = (uid: number, mover: Mover, call: (patience: number) => number): number => {
  const budget = budgetOf(uid)
  if (budget.left < LEAST) return -ETIMEDOUT
  const answer = call(budget.left)
  budget.left -= answer === -ETIMEDOUT ? budget.left : mover.waited()
  return answer
}
