/*
 * Descriptors of this process: their files as memory regions of devices in this process (class `mr`, kind FILE), and as
 * names of XRC domains. Any regular file is accepted as a region, because a slow file delays only this program. The
 * file is opened again in /proc/self/fd, which needs no native code.
 */
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { fileMemory, isWritable } from '../../assembly/file-memory.ts'
import type { FileMemory } from '../../core/model.ts'
import { CallError, callError } from '../../spec/errno.ts'
import { because } from '../../spec/reason.ts'

const { O_RDONLY, O_RDWR } = constants

/** Device and inode of the file behind a descriptor; undefined without such a descriptor. */
export const ownFile = (fd: number): string | undefined => {
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true })
    return `${dev}:${ino}`
  } catch {
    return undefined
  }
}

/** The error to throw if the file of `fd` cannot be opened again. */
const reopenError = (fd: number, error: unknown): CallError => {
  const code = (error as NodeJS.ErrnoException).code ?? String(error)
  const errno = code === 'EMFILE' || code === 'ENFILE' ? code : 'EACCES'
  return new CallError(errno, because`the file of descriptor ${fd} cannot be opened again (${code})`)
}

/**
 * The file of a descriptor. Throws CallError: EBADF without such a descriptor, EINVAL if it is not a regular file,
 * EMFILE or ENFILE if the process or the system has no descriptors left, EACCES if the file cannot be opened again for
 * another reason.
 */
export const openOwnFile = (fd: number): FileMemory => {
  let isFile: boolean
  try {
    isFile = fstatSync(fd).isFile()
  } catch {
    throw callError.EBADF`there is no descriptor ${fd | 0}`
  }
  if (!isFile) throw callError.EINVAL`descriptor ${fd} is not a regular file`
  let file: number | undefined
  try {
    file = openSync(`/proc/self/fd/${fd}`, isWritable(fd) ? O_RDWR : O_RDONLY)
    return fileMemory(file)
  } catch (error) {
    // `fileMemory` needs another descriptor, to read /proc, and can fail too.
    if (file !== undefined) closeSync(file)
    throw reopenError(fd, error)
  }
}
