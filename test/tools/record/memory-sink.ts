/*
 * A session file in memory.
 */
import type { SessionSink } from '../../../src/tools/record/writer.ts'

interface MemorySink extends SessionSink {
  /** The file. */
  readonly bytes: Uint8Array
  /** Stops calling `done`, as a disk that hangs. */
  hang(): void
  /** Calls all outstanding `done`. */
  resume(): void
}

export const createMemorySink = (): MemorySink => {
  let space = new Uint8Array(2 ** 16)
  let size = 0
  let isHanging = false
  const outstanding: (() => void)[] = []
  return {
    get bytes() {
      return space.subarray(0, size)
    },
    write(position, bytes, done) {
      const end = position + bytes.length
      if (end > space.length) {
        const longer = new Uint8Array(2 * end)
        longer.set(space)
        space = longer
      }
      size = Math.max(size, end)
      space.set(bytes, position)
      if (isHanging) outstanding.push(done)
      else done()
    },
    hang() {
      isHanging = true
    },
    resume() {
      isHanging = false
      for (const done of outstanding.splice(0)) done()
    },
  }
}
