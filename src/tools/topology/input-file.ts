/*
 * Files that users write and programs read whole, such as topologies and scenarios.
 */
import { closeSync, openSync, readSync, statSync } from 'node:fs'
import { InputError, UnreadableFile } from './input-error.ts'

/** Bytes per read. */
const PART = 2 ** 16

/**
 * The text of a file. `what`: what it has, such as "scenario". Throws InputError: longer than `maxBytes`;
 * UnreadableFile.
 */
export const readInputFile = (file: string, what: string, maxBytes: number): string => {
  let fd: number | undefined
  try {
    const status = statSync(file)
    if (status.isCharacterDevice()) throw new UnreadableFile(`${file} is a device; a ${what} is a file`)
    if (status.size > maxBytes)
      throw new InputError(`${file} has ${status.size} bytes; a ${what} has at most ${maxBytes}`)
    fd = openSync(file, 'r')
    // A pipe does not say its size, nor does a file of the kernel.
    const parts: Buffer[] = []
    for (let length = 0; ; ) {
      const part = Buffer.alloc(PART)
      const count = readSync(fd, part)
      if (count === 0) return Buffer.concat(parts).toString('utf8')
      length += count
      if (length > maxBytes) throw new InputError(`${file} has more than ${maxBytes} bytes, the most of a ${what}`)
      parts.push(part.subarray(0, count))
    }
  } catch (error) {
    if (error instanceof InputError) throw error
    throw new UnreadableFile(`cannot read the ${what} ${file}: ${(error as NodeJS.ErrnoException).code}`)
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}
