/*
 * Times repeated work in this process. A slice takes some milliseconds. A measurement is the fastest of a few slices,
 * which was interrupted least.
 */
import type { Measure } from './harness/harness.ts'

/** Minimum milliseconds of a slice, and slices per measurement. */
const SLICE_MS = 5
const SLICES = 5
/** Milliseconds of the warm-up, in which V8 compiles the code. */
const WARM_MS = 1000

/** Does the work `times` times; returns a number that depends on the work, which V8 then cannot eliminate. */
export type Body = (times: number) => number

let sink = 0

const timeMs = (body: Body, times: number): number => {
  const start = performance.now()
  sink = (sink + body(times)) | 0
  return performance.now() - start
}

/** The sum of all results. This export keeps V8 from eliminating the work. */
export const computed = (): number => sink

/** Nanoseconds per repetition. */
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
