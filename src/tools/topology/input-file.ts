/*
 * Files that users write and programs read whole, such as topologies and scenarios.
 */
import { readFileSync, statSync } from 'node:fs'
import { InputError, UnreadableFile } from './input-error.ts'

/** The text of a file. `what`: what it has, such as "scenario". Throws InputError: longer than `maxBytes`; UnreadableFile. */
export const readInputFile = (file: string, what: string, maxBytes: number): string => {
  try {
    const status = statSync(file)
    if (status.isCharacterDevice()) throw new UnreadableFile(`${file} is a device; a ${what} is a file`)
    if (status.size > maxBytes)
      throw new InputError(`${file} has ${status.size} bytes; a ${what} has at most ${maxBytes}`)
    return readFileSync(file, 'utf8')
  } catch (error) {
    if (error instanceof InputError) throw error
    throw new UnreadableFile(`cannot read the ${what} ${file}: ${(error as NodeJS.ErrnoException).code}`)
  }
}
