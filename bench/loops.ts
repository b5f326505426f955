/*
 * Timing of a body that is called many times in this process: the number of calls is found once, so that a slice takes
 * some milliseconds, and each measurement is the best of a few slices, which leaves out garbage collections and
 * interrupts.
 */
import type { Measure } from './harness.ts'

const SLICE_MS = 5
const SLICES = 5
/** What goes before, so that V8 has compiled what is measured. */
const WARM_MS = 1000

/** Does something `times` times and returns a number that depends on it, so that the compiler cannot leave it out. */
export type Body = (times: number) => number

let sink = 0

const timeMs = (body: Body, times: number): number => {
  const start = performance.now()
  sink = (sink + body(times)) | 0
  return performance.now() - start
}

/** What was computed so far; without a reader the work would be dead code. */
export const computed = (): number => sink

/** Nanoseconds per time. */
export const perCall = (body: Body): Measure => {
  let times = 1000
  for (let spent = 0; spent < WARM_MS; ) spent += timeMs(body, times)
  while (timeMs(body, times) < SLICE_MS) times *= 2
  return () => {
    let best = Number.POSITIVE_INFINITY
    for (let i = 0; i < SLICES; i++) best = Math.min(best, timeMs(body, times))
    return (best * 1e6) / times
  }
}
