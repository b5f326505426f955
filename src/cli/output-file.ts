/*
 * Output files of commands (host/output-file.ts); one that cannot be written is a usage error.
 */
import { createOutputFile } from '../host/output-file.ts'
import { UsageError } from './fail.ts'

/** Opens an empty file, a device or a FIFO for writing; answers its descriptor. Throws UsageError with a sentence. */
export const createOutput = (name: string): number => {
  try {
    return createOutputFile(name)
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}
