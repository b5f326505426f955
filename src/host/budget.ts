/*
 * A budget of time that refills: a share of all time, of which some can be saved up.
 */
import { nowMicroseconds } from './event-loop/clock.ts'

/** Times are microseconds. */
export interface Budget {
  /** What is left now; below 0 after a `take` of more than that. */
  remaining(): number
  take(time: number): void
  /** After how much time `remaining` is `amount`; 0 or less: it is. */
  untilRemaining(amount: number): number
}

/** `max`: what can be saved up, and is there at first, in microseconds. `share`: what is added per microsecond. */
export const createBudget = (max: number, share: number): Budget => {
  let left = max
  let updatedAt = nowMicroseconds()
  const remaining = (): number => {
    const now = nowMicroseconds()
    left = Math.min(max, left + (now - updatedAt) * share)
    updatedAt = now
    return left
  }
  return {
    remaining,
    take(time) {
      left -= time
    },
    untilRemaining: amount => (amount - remaining()) / share,
  }
}
