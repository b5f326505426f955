/*
 * Writes parts of a file in the background, so that a slow disk delays nobody (record/writer.ts).
 */
import { write as writeFile } from 'node:fs'

export interface FileSink {
  /** Writes `bytes` at `position`, in any order; then calls `done`, with the system's error if there was one. */
  write(position: number, bytes: Uint8Array, done: (error?: Error) => void): void
}

/** `fd`: a regular file; the caller closes it when all writes are done. */
export const createFileSink = (fd: number): FileSink => ({
  write(position, bytes, done) {
    const writeFrom = (start: number): void => {
      writeFile(fd, bytes, start, bytes.length - start, position + start, (error, written) => {
        if (error !== null) done(error)
        else if (start + written < bytes.length) writeFrom(start + written)
        else done()
      })
    }
    writeFrom(0)
  },
})
