/*
 * Yielding the processor: where more threads spin than the machine has cores, a loop that polls shared memory must
 * yield, or it and the threads that it serves wait for each other's time slices (milliseconds instead of microseconds).
 */

import { libcFunctions } from '../native.ts'
import { nowMicroseconds } from './clock.ts'

const sys = libcFunctions({ sched_yield: 'int sched_yield()' })

/** sched_yield(2): lets another runnable thread run first. About 0.5 µs when there is none. */
export const yieldProcessor = (): void => {
  sys().sched_yield()
}

/** A yield that takes longer than this, in microseconds, means that another program competes for the processor. */
const MAX_YIELD = 500
/** From the beginning of such a yield on there is no other for this long. Microseconds. */
const PAUSE = 20_000
/** Time at which this pause ends. */
let yieldFrom = Number.NEGATIVE_INFINITY

/**
 * Yields to the process that produces our next work. Returns false without yielding while other programs compete for
 * the processor: then sleeping until woken is faster. `now`: the present time, microseconds of clock.ts.
 */
export const yieldOnce = (now: number): boolean => {
  if (now < yieldFrom) return false
  yieldProcessor()
  if (nowMicroseconds() - now > MAX_YIELD) yieldFrom = now + PAUSE
  return true
}
