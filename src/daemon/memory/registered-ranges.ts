/*
 * The registered ranges of a program's memory. Registration has two effects: the pages count as locked, as in Linux;
 * and once the program unmaps them, the region does not cover later mappings at that address, if the range is watched
 * (userfaultfd).
 *
 * As in Linux (ib_umem_get), the pages of each region count against RLIMIT_MEMLOCK of the registering process, also
 * where regions overlap: EPERM if the limit is 0, ENOMEM beyond it, unless the process has CAP_IPC_LOCK in the initial
 * user namespace.
 */
import { closeSync } from 'node:fs'
import { closeElsewhere } from '../../host/memory/mover.ts'
import { isAddressSpaceGone, type ProcessHandle } from '../../host/memory/process.ts'
import { type UnmapWatch, watchUnmapping } from '../../host/memory/unmapping.ts'
import { hasInitialCapability, lockLimit } from '../../host/process-status.ts'
import { CallError } from '../../spec/errno.ts'
import { pageAbove, pageBelow } from '../../spec/memory.ts'
import type { Containment } from '../containment.ts'

export interface RegisteredRanges {
  /**
   * Registers a range of `length` bytes at `start`; the returned function ends the registration. `onUnmapped` is called
   * once if the range is watched and any of its pages is unmapped before. Throws CallError EPERM or ENOMEM.
   */
  register(start: number, length: number, onUnmapped: () => void): () => void
  /**
   * Takes ownership of the program's userfaultfd, which reports unmapped ranges. Without one `onUnmapped` is never
   * called.
   */
  setUserfault(fd: number): void
  close(): void
}

export interface RegistrationOptions {
  /** Whether the process may exceed the limit. */
  readonly ignoreLimit?: boolean
  /** Contains exceptions of event loop callbacks. */
  readonly guard?: Containment['guard']
  /** Called once, for the first registration beyond the limit. */
  readonly log?: (message: string) => void
}

interface Range {
  readonly start: number
  readonly end: number
  readonly onUnmapped: () => void
}

/** Linux's capability number. */
const CAP_IPC_LOCK = 14
/** Maximum number of watched ranges: each takes up to two of the program's 65,530 mappings. */
const MAX_WATCHED = 1024
/**
 * Maximum bytes of a range that the userfaultfd stops watching when its registration ends: unregistering a larger one
 * takes longer than handling the event when it is unmapped.
 */
const MAX_UNWATCH_BYTES = 2 ** 20

const unguarded: Containment['guard'] = (_where, body) => body

export const createRegisteredRanges = (
  process: ProcessHandle,
  { ignoreLimit = false, guard = unguarded, log = () => {} }: RegistrationOptions = {},
): RegisteredRanges => {
  const { pid } = process
  /** Bytes registered, of whole pages. */
  let locked = 0
  let isLogged = false
  const watched = new Set<Range>()
  /** The userfaultfd; -1: none. */
  let userfaultFd = -1
  let watcher: UnmapWatch | undefined

  const reportUnmapped = (start: number, end: number): void => {
    for (const range of watched)
      if (range.start < end && start < range.end) {
        watched.delete(range)
        range.onUnmapped()
      }
  }

  /**
   * Closing takes the mmap lock of the address space, which a thread that waits for its pages may hold. So another
   * process closes the userfaultfd, unless the address space is gone.
   */
  const closeUserfault = (): void => {
    if (userfaultFd < 0) return
    if (isAddressSpaceGone(process)) closeSync(userfaultFd)
    else closeElsewhere(userfaultFd)
    userfaultFd = -1
  }

  const watch = (): UnmapWatch | undefined => {
    if (userfaultFd >= 0 && watcher === undefined) {
      watcher = watchUnmapping(userfaultFd, guard('memory that was unmapped', reportUnmapped))
      if (watcher === undefined) closeUserfault()
    }
    return watcher
  }

  /** Throws if the process may not lock this many more bytes. */
  const requireLockable = (bytes: number): void => {
    const limit = lockLimit(pid)
    if ((limit !== 0 && locked + bytes <= limit) || hasInitialCapability(pid, CAP_IPC_LOCK)) return
    const message = `process ${pid} may lock ${limit} bytes (RLIMIT_MEMLOCK), has registered ${locked} and requests ${bytes} more: raise the limit (ulimit -l), or start the daemon with --ignore-memlock`
    if (!isLogged) log(message)
    isLogged = true
    throw new CallError(limit === 0 ? 'EPERM' : 'ENOMEM', message)
  }

  const overlapsAny = (start: number, end: number): boolean => {
    for (const other of watched) if (other.start < end && start < other.end) return true
    return false
  }

  return {
    register(address, length, onUnmapped) {
      const start = pageBelow(address)
      const end = pageAbove(address + length)
      const bytes = end - start
      if (!ignoreLimit) requireLockable(bytes)
      locked += bytes
      const range = { start, end, onUnmapped }
      if (bytes > 0 && watched.size < MAX_WATCHED && watch()?.add(start, end)) watched.add(range)
      return () => {
        locked -= bytes
        if (watched.delete(range) && bytes <= MAX_UNWATCH_BYTES && !overlapsAny(start, end)) watch()?.remove(start, end)
      }
    },
    setUserfault(fd) {
      if (userfaultFd >= 0) closeSync(fd)
      else userfaultFd = fd
    },
    close() {
      watcher?.stop()
      watcher = undefined
      closeUserfault()
      watched.clear()
    },
  }
}
