/*
 * Files as memory regions of devices in this process (class `mr`, kind FILE). Any regular file is accepted, because a
 * slow file delays only this program. The file is opened again in /proc/self/fd, which needs no native code.
 */
import { constants, fstatSync, openSync } from 'node:fs'
import type { FileMemory } from '../../core/model.ts'
import { fileMemory, isWritable } from '../../drivers/rxe/file-memory.ts'
import { CallError } from '../../spec/errno.ts'

const { O_RDONLY, O_RDWR } = constants

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? String(error)

/**
 * The file of a descriptor. Throws CallError: EBADF without such a descriptor, EINVAL if it is not a regular file,
 * EACCES if it cannot be opened again.
 */
export const openOwnFile = (fd: number): FileMemory => {
  let isFile: boolean
  try {
    isFile = fstatSync(fd).isFile()
  } catch {
    throw new CallError('EBADF', `there is no descriptor ${fd}`)
  }
  if (!isFile) throw new CallError('EINVAL', `descriptor ${fd} is not a regular file`)
  try {
    return fileMemory(openSync(`/proc/self/fd/${fd}`, isWritable(fd) ? O_RDWR : O_RDONLY))
  } catch (error) {
    throw new CallError('EACCES', `the file of descriptor ${fd} cannot be opened again (${codeOf(error)})`)
  }
}
