/*
 * Files of this program as memory of its devices (class `mr`, kind FILE): any regular file, since a slow one delays the
 * program only. Needs no native code: the descriptor is reopened by its name in /proc.
 */
import { constants, fstatSync, openSync } from 'node:fs'
import type { FileMemory } from '../../core/model.ts'
import { fileMemory, isWritable } from '../../drivers/rxe/file-memory.ts'
import { CallError } from '../../spec/errno.ts'

const { O_RDONLY, O_RDWR } = constants

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? String(error)

/** The file behind a descriptor. Throws CallError EBADF, EINVAL if it is not a regular file, EACCES. */
export const openOwnFile = (number: number): FileMemory => {
  let isFile: boolean
  try {
    isFile = fstatSync(number).isFile()
  } catch {
    throw new CallError('EBADF', `there is no descriptor ${number}`)
  }
  if (!isFile) throw new CallError('EINVAL', `descriptor ${number} is not a regular file`)
  try {
    return fileMemory(openSync(`/proc/self/fd/${number}`, isWritable(number) ? O_RDWR : O_RDONLY))
  } catch (error) {
    throw new CallError('EACCES', `the file of descriptor ${number} cannot be opened again (${codeOf(error)})`)
  }
}
