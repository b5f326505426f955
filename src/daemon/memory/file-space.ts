/*
 * A memory file or dma-buf of a program as core's AddressSpace, for memory regions of kind FILE. Access to other files could
 * block the daemon. A memory file supports seals (of memfd_create or tmpfs); a dma-buf is memory of a device, or of
 * /dev/udmabuf. Of users other than the daemon's only files are accepted whose reads and writes a mover makes.
 */
import { closeSync, fstatSync, readFileSync, statfsSync } from 'node:fs'
import { type FileAccess, fileMemory, isAppending, isWritable } from '../../assembly/file-memory.ts'
import type { Account, FileMemory } from '../../core/model.ts'
import { orRelease, take } from '../../core/objects/limits.ts'
import { EINVAL, ENOMEM, SystemError } from '../../host/errno.ts'
import { mapFile } from '../../host/memory/mapped-file.ts'
import { sealsOf } from '../../host/memory/memfd.ts'
import { type ProcessHandle, pidfdGetfd } from '../../host/memory/process.ts'
import { CallError, errnoName } from '../../spec/errno.ts'

/**
 * The file behind descriptor `number` of a program. Throws CallError: EBADF if the descriptor cannot be duplicated;
 * EINVAL if it is of another file, or has O_APPEND; EOPNOTSUPP if it is of a dma-buf that cannot be mapped; EMFILE or ENFILE
 * if the account, the daemon or the system has no descriptors left; ENOMEM if the daemon cannot map the file.
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

const open = (process: ProcessHandle, descriptor: number): FileMemory => {
  // A program probes for dma-bufs with -1.
  const number = descriptor | 0
  if (number < 0) throw new CallError('EBADF', `descriptor ${number} is negative`)
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
    const isMemoryFile = fd >= 0 && sealsOf(fd) >= 0
    if (!isMemoryFile && (fd < 0 || !isDmaBuf(fd)))
      throw new CallError('EINVAL', `descriptor ${number} is neither a memory file (memfd_create) nor a dma-buf`)
    if (isAppending(fd))
      throw new CallError('EINVAL', `descriptor ${number} has O_APPEND: all writes would be at the end of the file`)
    if (isMemoryFile && !hasHugePages(fd)) return fileMemory(fd, process.guest?.file(fd))
    if (process.guest !== undefined)
      throw new CallError('EINVAL', `descriptor ${number} has huge pages: not for programs of another user`)
    return fileMemory(fd, mapped(fd, number))
  } catch (error) {
    if (fd >= 0) closeSync(fd)
    // `isAppending` and `fileMemory` open files of /proc, for which there may be no descriptor.
    throw outOfDescriptors((error as { code?: string }).code) ?? error
  }
}

/** Only a dma-buf's file has this line there. Unlike a query of the file, to read it never waits for a file's server. */
const isDmaBuf = (fd: number): boolean => /^exp_name:/m.test(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))

const HUGETLBFS_MAGIC = 0x958458f6

/** Whether a memory file has huge pages (MFD_HUGETLB), which write(2) refuses. */
const hasHugePages = (fd: number): boolean => statfsSync(`/proc/self/fd/${fd}`).type === HUGETLBFS_MAGIC

const mapped = (fd: number, number: number): FileAccess => {
  const { size } = fstatSync(fd)
  if (size === 0) throw new CallError('EINVAL', `descriptor ${number} has no bytes`)
  try {
    return mapFile(fd, size, isWritable(fd))
  } catch (error) {
    if (!(error instanceof SystemError)) throw error
    const code = error.errno === ENOMEM ? 'ENOMEM' : 'EOPNOTSUPP'
    throw new CallError(code, `descriptor ${number} cannot be mapped: ${error.message}`)
  }
}
