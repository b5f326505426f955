/*
 * Giving up the processor: a loop that polls shared memory on a machine with as many spinners as cores must do so, or
 * each waits for the other's time slice (milliseconds instead of microseconds).
 */

import { libcFunctions } from '../native.ts'
import { nowMicroseconds } from './clock.ts'

const sys = libcFunctions({ sched_yield: 'int sched_yield()' })

/** sched_yield(2): lets another runnable thread go first. About 0.5 µs when there is none. */
export const yieldProcessor = (): void => {
  sys().sched_yield()
}

/** Whoever keeps the processor for longer than LOST does not work for us. Microseconds. */
const LOST = 500
const WITHOUT_YIELD = 20_000
let yieldFrom = Number.NEGATIVE_INFINITY

/**
 * Gives up the processor for whoever produces our next work. False, and nothing is done, while other programs compete
 * for the processor: then sleeping until woken is faster. `now`: of host/event-loop/clock.ts.
 */
export const yieldOnce = (now: number): boolean => {
  if (now < yieldFrom) return false
  yieldProcessor()
  if (nowMicroseconds() - now > LOST) yieldFrom = now + WITHOUT_YIELD
  return true
}
