/*
 * Files that a command writes for people (host/output-file.ts); one that cannot be written is a mistake of the user.
 */
import { createOutputFile } from '../host/output-file.ts'
import { UsageError } from './fail.ts'

/** An empty file, or a device or FIFO, to write to; its descriptor. Throws UsageError with a sentence. */
export const createOutput = (name: string): number => {
  try {
    return createOutputFile(name)
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}
