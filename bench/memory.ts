/*
 * What a process of a benchmark holds: bytes of the JavaScript heap and of its buffers after a collection, which repeat
 * themselves, and what is resident, which counts for what lives elsewhere.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** After a few turns, in which what was freed outside of the heap goes too. */
export const settled = async (): Promise<{ readonly used: number; readonly resident: number }> => {
  for (let i = 0; i < 3; i++) {
    collect()
    await new Promise(resolve => setImmediate(resolve))
  }
  const { heapUsed, external, rss } = process.memoryUsage()
  return { used: heapUsed + external, resident: rss }
}
