/*
 * Preloaded into a daemon (`node --import`) by rows "counts": at each SIGWINCH, which does nothing else to a daemon,
 * appends a line with the bytes that were allocated in the young generation so far to the file
 * USERDMA_BENCH_ALLOCATIONS. The bytes are exact between collections; a collection counts as a full semi-space.
 */
import { appendFileSync } from 'node:fs'
import { PerformanceObserver } from 'node:perf_hooks'
import { getHeapSpaceStatistics } from 'node:v8'

/** Mebibytes of a semi-space, for V8's options: so large that a measurement has few collections. */
export const SEMI_SPACE_MIB = 64

const file = process.env.USERDMA_BENCH_ALLOCATIONS
if (file !== undefined) {
  let collections = 0
  new PerformanceObserver(list => {
    collections += list.getEntries().length
  }).observe({ entryTypes: ['gc'] })
  process.on('SIGWINCH', () => {
    const young = getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space')
    const bytes = (young?.space_used_size ?? 0) + collections * SEMI_SPACE_MIB * 2 ** 20
    appendFileSync(file, `${bytes}\n`)
  })
}
