/*
 * Yielding the processor. If more threads spin than the machine has cores, a loop that polls shared memory must yield:
 * otherwise the loop and the threads that it serves wait for each other's time slices (milliseconds instead of
 * microseconds).
 */

import { libcFunctions } from '../native.ts'
import { nowMicroseconds } from './clock.ts'

const sys = libcFunctions({ sched_yield: 'int sched_yield()' })

/** sched_yield(2). About 0.5 µs if no other thread is runnable. */
export const yieldProcessor = (): void => {
  sys().sched_yield()
}

/** If a yield takes longer than this, another program competes for the processor. Microseconds. */
const MAX_YIELD = 500
/** After the end of such a yield, no further yield for this long. Microseconds. */
const PAUSE = 20_000
/** End of this pause, microseconds of clock.ts. */
let yieldFrom = Number.NEGATIVE_INFINITY

/**
 * Yields, so that the process that produces our next work can run. Returns false without yielding while other programs
 * compete for the processor: then sleeping until woken is faster. `now`: microseconds of clock.ts.
 */
export const yieldOnce = (now: number): boolean => {
  if (now < yieldFrom) return false
  yieldProcessor()
  const end = nowMicroseconds()
  if (end - now > MAX_YIELD) yieldFrom = end + PAUSE
  return true
}
