/*
 * The total time for which calls that wait for programs of one user may block the daemon.
 */
import { ETIMEDOUT } from '../errno.ts'
import { nowMicroseconds } from '../event-loop/clock.ts'
import type { Mover } from './mover.ts'

/** Maximum time for which one call waits. Microseconds. */
export const PATIENCE = 250_000
/** With less time left than this, a user's waiting time counts as used up. */
const MIN_LEFT = 1000
/** Waiting time that a user regains per microsecond: all waits of one user take at most a twentieth of the time. */
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

/**
 * Runs `call` with the waiting time that the user has left, and charges the time that it took; -ETIMEDOUT if none is
 * left.
 */
export const charged = (uid: number, mover: Mover, call: (patience: number) => number): number => {
  const budget = budgetOf(uid)
  if (budget.left < MIN_LEFT) return -ETIMEDOUT
  const result = call(budget.left)
  budget.left -= result === -ETIMEDOUT ? budget.left : mover.waited()
  return result
}
