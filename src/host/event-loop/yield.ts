/*
 * Yielding the processor. If more threads spin than the machine has cores, a loop that polls shared memory must yield:
 * otherwise the loop and the threads that it serves wait for each other's time slices (milliseconds instead of
 * microseconds).
 */

import { getPriority } from 'node:os'
import { mapArena } from '../memory/mapping.ts'
import { libcFunctions } from '../native.ts'
import { nowMicroseconds } from './clock.ts'

const sys = libcFunctions({
  sched_yield: 'int sched_yield()',
  syscall: 'int64_t syscall(int64_t number, int64_t a, int64_t b, int64_t c)',
  nanosleep: 'int nanosleep(int64_t time, int64_t rest)',
  prctl: 'int prctl(int option, uint64_t value, uint64_t b, uint64_t c, uint64_t d)',
})

const SYS_SCHED_SETATTR = process.arch === 'arm64' ? 274 : 314
/** struct sched_attr: size u32, policy u32, flags u64, nice s32, priority u32, runtime u64 (nanoseconds), … */
const SCHED_ATTR = { bytes: 56, size: 0, flags: 8, nice: 16, runtime: 24 }
const SCHED_FLAG_KEEP_POLICY = 8
/** The shortest slice that Linux accepts. Nanoseconds. */
const SLICE = 100_000

/**
 * Asks for short time slices of the calling thread (Linux 6.12 or newer; without effect before). The share of the
 * processor remains the same, but a thread that wakes with a shorter slice need not wait for the end of the slice of a
 * program that polls, which is a tick of the scheduler (4 ms).
 */
export const shortenSlice = (): void => {
  const { address, view } = mapArena(SCHED_ATTR.bytes)
  view.setUint32(SCHED_ATTR.size, SCHED_ATTR.bytes, true)
  view.setUint32(SCHED_ATTR.flags, SCHED_FLAG_KEEP_POLICY, true)
  view.setInt32(SCHED_ATTR.nice, getPriority(), true)
  view.setUint32(SCHED_ATTR.runtime, SLICE, true)
  sys().syscall(SYS_SCHED_SETATTR, 0, address, 0)
}

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
  sys().nanosleep(napTime, 0)
}

/** If a yield takes longer than this, another program competes for the processor. Microseconds. */
const MAX_YIELD = 500
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
  if (end - now > MAX_YIELD) yieldFrom = end + PAUSE
  return true
}
