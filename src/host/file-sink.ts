/*
 * Writes parts of a file in the background, so that a slow disk delays nobody (tools/record/writer.ts).
 */
import { write as writeFile, writeSync } from 'node:fs'

interface FileSink {
  /** Writes `bytes` at `position`, in any order; then calls `done`, with the system's error if there was one. */
  write(position: number, bytes: Uint8Array, done: (error?: Error) => void): void
  /** Writes what is not written yet, at the exit of the process. Later writes are done at once. */
  finish(): void
}

/** `fd`: a regular file; the caller closes it when all writes are done. */
export const createFileSink = (fd: number): FileSink => {
  /** Positions of the bytes that are being written. */
  const outstanding = new Map<Uint8Array, number>()
  let isFinished = false
  return {
    write(position, bytes, done) {
      if (isFinished) {
        writeSync(fd, bytes, 0, bytes.length, position)
        done()
        return
      }
      outstanding.set(bytes, position)
      const end = (error?: Error): void => {
        outstanding.delete(bytes)
        done(error)
      }
      const writeFrom = (start: number): void => {
        writeFile(fd, bytes, start, bytes.length - start, position + start, (error, written) => {
          if (error !== null) end(error)
          else if (start + written < bytes.length) writeFrom(start + written)
          else end()
        })
      }
      writeFrom(0)
    },
    finish() {
      isFinished = true
      // The process may end before the background writes do.
      for (const [bytes, position] of outstanding) writeSync(fd, bytes, 0, bytes.length, position)
    },
  }
}
