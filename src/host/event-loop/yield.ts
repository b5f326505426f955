/*
 * Yielding the processor: a loop that polls shared memory on a machine with as many spinning threads as cores must
 * yield, or each waits for the other's time slice (milliseconds instead of microseconds).
 */

import { libcFunctions } from '../native.ts'
import { nowMicroseconds } from './clock.ts'

const sys = libcFunctions({ sched_yield: 'int sched_yield()' })

/** sched_yield(2): lets another runnable thread run first. About 0.5 µs when there is none. */
export const yieldProcessor = (): void => {
  sys().sched_yield()
}

/** After a yield that takes longer than this, another program used the processor. Microseconds. */
const LOST = 500
const WITHOUT_YIELD = 20_000
let yieldFrom = Number.NEGATIVE_INFINITY

/**
 * Yields to the process that produces our next work. Returns false without yielding while other programs compete for
 * the processor: then sleeping until woken is faster. `now`: of host/event-loop/clock.ts.
 */
export const yieldOnce = (now: number): boolean => {
  if (now < yieldFrom) return false
  yieldProcessor()
  if (nowMicroseconds() - now > LOST) yieldFrom = now + WITHOUT_YIELD
  return true
}
