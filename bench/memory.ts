/*
 * Memory of a benchmark's process: the JavaScript heap with its buffers, and the resident set.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Bytes after collections. Turns of the event loop between collections free memory outside the heap. */
export const memoryAfterCollection = async (): Promise<{ readonly used: number; readonly resident: number }> => {
  for (let i = 0; i < 3; i++) {
    collect()
    await new Promise(resolve => setImmediate(resolve))
  }
  const { heapUsed, external, rss } = process.memoryUsage()
  return { used: heapUsed + external, resident: rss }
}
