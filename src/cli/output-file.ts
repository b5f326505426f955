/*
 * Output files of commands (host/output-file.ts); one that cannot be written is a usage error.
 */
import { writeSync } from 'node:fs'
import { createOutputFile } from '../host/output-file.ts'
import { UsageError } from './fail.ts'

/** Opens an empty file, a device or a FIFO for writing; returns its descriptor. Throws UsageError with a message. */
export const createOutput = (name: string): number => {
  try {
    return createOutputFile(name)
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/** Writes everything, also to a pipe that is temporarily full. */
export const writeAll = (fd: number, text: string): void => {
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(fd, bytes, at)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EAGAIN') continue
      // The reader of our output has closed it; the program goes on.
      if (code === 'EPIPE') return
      throw error
    }
  }
}
