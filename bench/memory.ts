/*
 * Memory of a benchmark's process: bytes of the JavaScript heap and of its buffers after a collection, which are
 * repeatable, and the resident set, which includes memory outside the heap.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Bytes after collections; between them the event loop turns, which frees memory outside the heap. */
export const memoryAfterCollection = async (): Promise<{ readonly used: number; readonly resident: number }> => {
  for (let i = 0; i < 3; i++) {
    collect()
    await new Promise(resolve => setImmediate(resolve))
  }
  const { heapUsed, external, rss } = process.memoryUsage()
  return { used: heapUsed + external, resident: rss }
}
