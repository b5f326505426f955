/*
 * Times work that is repeated many times in this process. The number of repetitions is determined once, so that a slice
 * takes some milliseconds. Each measurement is the fastest of a few slices: the one that was interrupted least.
 */
import type { Measure } from './harness/harness.ts'

/** Minimum milliseconds of a slice, and slices of a measurement. */
const SLICE_MS = 5
const SLICES = 5
/** Warm-up, so that V8 has compiled the measured code. */
const WARM_MS = 1000

/** Does the work `times` times and returns a number that depends on it, so that the compiler cannot eliminate it. */
export type Body = (times: number) => number

let sink = 0

const timeMs = (body: Body, times: number): number => {
  const start = performance.now()
  sink = (sink + body(times)) | 0
  return performance.now() - start
}

/** The sum of all results. Exported, so that the compiler cannot eliminate the work as dead code. */
export const computed = (): number => sink

/** A measurement: nanoseconds per repetition. */
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
