/*
 * Session files on disk, for commands that read them.
 */
import { closeSync, constants, fstatSync, openSync, read as readFile } from 'node:fs'
import type { SessionSource } from '../tools/record/reader.ts'
import { UsageError } from './fail.ts'

/** A session file on disk. Throws UsageError. */
export const openSessionFile = (name: string): SessionSource & { close(): void } => {
  let fd: number
  try {
    // A pipe would wait for a writer.
    fd = openSync(name, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    throw new UsageError(`cannot read ${name}: ${(error as NodeJS.ErrnoException).code}`)
  }
  const stat = fstatSync(fd)
  if (!stat.isFile()) {
    closeSync(fd)
    throw new UsageError(`cannot read ${name}: it is not a regular file`)
  }
  return {
    size: stat.size,
    read: (offset, length) =>
      new Promise((resolve, reject) => {
        const bytes = new Uint8Array(Math.max(0, Math.min(length, stat.size - offset)))
        readFile(fd, bytes, 0, bytes.length, offset, (error, count) => {
          if (error) reject(error)
          else resolve(bytes.subarray(0, count))
        })
      }),
    close: () => closeSync(fd),
  }
}
