/*
 * Yielding the processor. If more threads spin than the machine has cores, a loop that polls shared memory must yield:
 * otherwise the loop and the threads that it serves wait for each other's time slices (milliseconds instead of
 * microseconds).
 */

import { mapArena } from '../memory/mapping.ts'
import { libcFunctions } from '../native.ts'
import { nowMicroseconds } from './clock.ts'
import { countWait, waits } from './waits.ts'

const sys = libcFunctions({
  sched_yield: 'int sched_yield()',
  nanosleep: 'int nanosleep(int64_t time, int64_t rest)',
  prctl: 'int prctl(int option, uint64_t value, uint64_t b, uint64_t c, uint64_t d)',
})

/** sched_yield(2). About 0.5 µs if no other thread is runnable. */
export const yieldProcessor = (): void => {
  sys().sched_yield()
}

/** Nanoseconds. */
const NAP = 10_000
const PR_SET_TIMERSLACK = 29
let napTime: number | undefined

/** Sleeps for 10 µs: another program on this processor runs in any case, as it may not after a yield. */
export const nap = (): void => {
  if (napTime === undefined) {
    const { address, view } = mapArena(16)
    view.setUint32(8, NAP, true)
    napTime = address
    // Without it Linux adds 50 µs.
    sys().prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
  }
  const begin = nowMicroseconds()
  sys().nanosleep(napTime, 0)
  countWait(waits.naps, nowMicroseconds() - begin)
}

/**
 * If a yield takes longer than this, another program competes for the processor. Microseconds. Programs that poll and
 * yield too may keep it for 1 ms (docs/decisions/two-processors.md).
 */
const MAX_YIELD = 2000
/** After the end of such a yield, no further yield for this long. Microseconds. */
const PAUSE = 100_000
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
  countWait(waits.yields, end - now)
  if (end - now > MAX_YIELD) yieldFrom = end + PAUSE
  return true
}
