/*
 * Giving up the processor: a loop that polls shared memory on a machine with as many spinners as cores must do so, or
 * each waits for the other's time slice (milliseconds instead of microseconds).
 */
import { libcFunctions } from './native.ts'

const sys = libcFunctions({ sched_yield: 'int sched_yield()' })

/** sched_yield(2): lets another runnable thread go first. About 0.5 µs when there is none. */
export const yieldProcessor = (): void => {
  sys().sched_yield()
}
