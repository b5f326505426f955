/*
 * A memory file or dma-buf of a program as core's AddressSpace, for memory regions of kind FILE. Access to other files
 * could block the daemon. A memory file supports seals (of memfd_create or tmpfs); a dma-buf is memory of a device, or
 * of /dev/udmabuf. Of users other than the daemon's only files are accepted whose reads and writes a mover makes.
 */
import { closeSync, fstatSync, readFileSync, readlinkSync, statfsSync } from 'node:fs'
import { type FileAccess, fileMemory, isAppending, isWritable } from '../../assembly/file-memory.ts'
import type { Account, FileMemory } from '../../core/model.ts'
import { orRelease, take } from '../../core/objects/limits.ts'
import { EINVAL, ENOMEM, SystemError } from '../../host/errno.ts'
import { mapFile } from '../../host/memory/mapped-file.ts'
import { SEAL_FUTURE_WRITE, SEAL_WRITE, sealsOf } from '../../host/memory/memfd.ts'
import { closeElsewhere, type PassedFd } from '../../host/memory/mover.ts'
import { type ProcessHandle, pidfdGetfd } from '../../host/memory/process.ts'
import { CallError, callError, errnoName } from '../../spec/errno.ts'
import { because } from '../../spec/reason.ts'

interface OpenFile extends FileMemory {
  readonly key: string
  /** Regions of the file. */
  uses: number
}

/** The files of a program's regions: all regions of a file use one descriptor of the daemon. */
export class FileMemories {
  readonly #process: ProcessHandle
  readonly #account: Account
  /** By identity of the file, and whether it is open for writing. */
  readonly #files = new Map<string, OpenFile>()

  constructor(process: ProcessHandle, account: Account) {
    this.#process = process
    this.#account = account
  }

  /**
   * The file behind descriptor `number` of the program. Throws CallError: EBADF if the descriptor cannot be duplicated;
   * EINVAL if it is of another file or a context, or has O_APPEND; EOPNOTSUPP if it is of a dma-buf that cannot be
   * mapped; EMFILE or ENFILE if the account, the daemon or the system has no descriptors left; ENOMEM if the daemon
   * cannot map the file.
   */
  open(number: number): FileMemory {
    const fd = duplicate(this.#process, number)
    const file = this.#known(fd) ?? this.#add(fd, number)
    file.uses++
    let isOpen = true
    return {
      space: file.space,
      close: () => {
        if (!isOpen) return
        isOpen = false
        if (--file.uses > 0) return
        this.#files.delete(file.key)
        file.close()
      },
    }
  }

  #known(fd: PassedFd): OpenFile | undefined {
    if (fd < 0) return undefined
    try {
      const known = this.#files.get(keyOf(fd))
      if (known === undefined || isAppending(fd)) return undefined
      // Not the last close: the known one is of the same file.
      closeSync(fd)
      return known
    } catch (error) {
      closeElsewhere(fd, this.#process.guest?.user)
      // Files of /proc are opened, for which there may be no descriptor.
      throw outOfDescriptors((error as { code?: string }).code) ?? error
    }
  }

  #add(fd: PassedFd, number: number): OpenFile {
    const closing = (): void => closeElsewhere(fd, this.#process.guest?.user)
    const release = orRelease(closing, () => take(this.#account.descriptors, this.#account, 'a memory file'))
    const { space, close } = orRelease(release, () => open(this.#process, fd, number))
    const file: OpenFile = {
      key: keyOf(fd),
      space,
      uses: 0,
      close() {
        close()
        release()
      },
    }
    this.#files.set(file.key, file)
    return file
  }
}

const keyOf = (fd: number): string => {
  const { dev, ino } = fstatSync(fd)
  return `${dev}:${ino}:${isWritable(fd)}`
}

/** The error for EMFILE and ENFILE; undefined for other codes. */
const outOfDescriptors = (code: string | undefined): CallError | undefined => {
  if (code === 'EMFILE') return new CallError(code, 'the daemon has no descriptors left')
  return code === 'ENFILE' ? new CallError(code, 'the system has no descriptors left') : undefined
}

/** A duplicate of a program's descriptor. -EINVAL: one of a guest (host/memory/guest.ts) is not of a memory file. */
const duplicate = (process: ProcessHandle, descriptor: number): PassedFd => {
  // A program probes for dma-bufs with -1.
  const number = descriptor | 0
  if (number < 0) throw callError.EBADF`descriptor ${number} is negative`
  const fd = pidfdGetfd(process, number)
  if (fd >= 0 || fd === -EINVAL) return fd
  const code = errnoName(-fd)
  throw outOfDescriptors(code) ?? callError.EBADF`descriptor ${number} of the caller cannot be duplicated: ${code}`
}

/** `fd`: of `duplicate`, which is closed with the memory, and if this fails. */
const open = (process: ProcessHandle, fd: PassedFd, number: number): FileMemory => {
  const closeFile = (): void => closeElsewhere(fd, process.guest?.user)
  try {
    const isMemoryFile = fd >= 0 && sealsOf(fd) >= 0
    if (!isMemoryFile && (fd < 0 || !isDmaBuf(fd)))
      throw callError.EINVAL`descriptor ${number} is neither a memory file (memfd_create) nor a dma-buf`
    if (isMemoryFile && isOfDaemon(fd))
      throw callError.EINVAL`descriptor ${number} is a device's, not a memory file of the program's own`
    if (isAppending(fd))
      throw callError.EINVAL`descriptor ${number} has O_APPEND: all writes would be at the end of the file`
    const isSealed = (): boolean => (sealsOf(fd) & (SEAL_WRITE | SEAL_FUTURE_WRITE)) !== 0
    if (isMemoryFile && !hasHugePages(fd)) return fileMemory(fd, process.guest?.file(fd), isSealed, closeFile)
    if (process.guest !== undefined)
      throw callError.EINVAL`descriptor ${number} has huge pages: not for programs of another user`
    return fileMemory(fd, mapped(fd, number), isMemoryFile ? isSealed : undefined, closeFile)
  } catch (error) {
    closeFile()
    // `isAppending` and `fileMemory` open files of /proc, for which there may be no descriptor.
    throw outOfDescriptors((error as { code?: string }).code) ?? error
  }
}

/**
 * Whether a daemon has made a memory file, such as that behind a program's context: other device files are no dma-bufs.
 */
const isOfDaemon = (fd: number): boolean =>
  /^\/memfd:userdma-(?:context|calls|parked) /.test(readlinkSync(`/proc/self/fd/${fd}`))

/**
 * Only a dma-buf's file has this line there. Unlike a query of the file, to read it never waits for a file's server.
 */
const isDmaBuf = (fd: number): boolean => /^exp_name:/m.test(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))

const HUGETLBFS_MAGIC = 0x958458f6

/** Whether a memory file has huge pages (MFD_HUGETLB), which write(2) refuses. */
const hasHugePages = (fd: number): boolean => statfsSync(`/proc/self/fd/${fd}`).type === HUGETLBFS_MAGIC

const mapped = (fd: number, number: number): FileAccess => {
  const { size } = fstatSync(fd)
  if (size === 0) throw callError.EINVAL`descriptor ${number} has no bytes`
  try {
    return mapFile(fd, size, isWritable(fd))
  } catch (error) {
    if (!(error instanceof SystemError)) throw error
    const code = error.errno === ENOMEM ? 'ENOMEM' : 'EOPNOTSUPP'
    throw new CallError(code, because`descriptor ${number} cannot be mapped: ${error.message}`)
  }
}
