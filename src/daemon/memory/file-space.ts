/*
 * A memory file of a program as core's AddressSpace, for memory regions of kind FILE. The file must support seals (of
 * memfd_create or tmpfs), because access to other files could block the daemon.
 */
import { closeSync } from 'node:fs'
import { fileMemory, isAppending } from '../../assembly/file-memory.ts'
import type { Account, FileMemory } from '../../core/model.ts'
import { orRelease, take } from '../../core/objects/limits.ts'
import { EINVAL } from '../../host/errno.ts'
import { sealsOf } from '../../host/memory/memfd.ts'
import { type ProcessHandle, pidfdGetfd } from '../../host/memory/process.ts'
import { CallError, errnoName } from '../../spec/errno.ts'

/**
 * The file behind descriptor `number` of a program. Throws CallError: EBADF if the descriptor cannot be duplicated;
 * EINVAL if it is not of a memory file, or has O_APPEND; EMFILE or ENFILE if the account, the daemon or the system has no
 * descriptors left.
 */
export const openFileMemory = (process: ProcessHandle, number: number, account: Account): FileMemory => {
  const releaseDescriptor = take(account.descriptors, account, 'a memory file')
  const { space, close } = orRelease(releaseDescriptor, () => open(process, number))
  return {
    space,
    close() {
      close()
      releaseDescriptor()
    },
  }
}

/** The error for EMFILE and ENFILE; undefined for other codes. */
const outOfDescriptors = (code: string | undefined): CallError | undefined => {
  if (code === 'EMFILE') return new CallError(code, 'the daemon has no descriptors left')
  return code === 'ENFILE' ? new CallError(code, 'the system has no descriptors left') : undefined
}

const open = (process: ProcessHandle, number: number): FileMemory => {
  const fd = pidfdGetfd(process, number)
  // EINVAL: the descriptor of a guest (host/memory/guest.ts) is not of a memory file.
  if (fd < 0 && fd !== -EINVAL) {
    const code = errnoName(-fd)
    throw (
      outOfDescriptors(code) ??
      new CallError('EBADF', `descriptor ${number} of the caller cannot be duplicated: ${code}`)
    )
  }
  try {
    if (fd < 0 || sealsOf(fd) < 0)
      throw new CallError('EINVAL', `descriptor ${number} is not a memory file (memfd_create)`)
    if (isAppending(fd))
      throw new CallError('EINVAL', `descriptor ${number} has O_APPEND: all writes would be at the end of the file`)
    return fileMemory(fd, process.guest?.file(fd))
  } catch (error) {
    if (fd >= 0) closeSync(fd)
    // `isAppending` and `fileMemory` open files of /proc, for which there may be no descriptor.
    throw outOfDescriptors((error as { code?: string }).code) ?? error
  }
}
