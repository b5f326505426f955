/*
 * Consequences of registration for a program's memory: it counts as locked, as in Linux, and once the program unmaps
 * it, later mappings at the address do not belong to the region.
 *
 * Linux counts the pages of each region, also where regions overlap, against RLIMIT_MEMLOCK of the registering process
 * (ib_umem_get): EPERM if that is 0, ENOMEM beyond it, unless the process has CAP_IPC_LOCK in the initial user
 * namespace.
 */
import { closeSync } from 'node:fs'
import { closeElsewhere } from '../../host/memory/mover.ts'
import { isAddressSpaceGone, type ProcessHandle } from '../../host/memory/process.ts'
import { type UnmapWatch, watchUnmapping } from '../../host/memory/unmapping.ts'
import { hasCapabilityEverywhere, lockLimit } from '../../host/process-status.ts'
import { CallError } from '../../spec/errno.ts'
import { PAGE_BYTES } from '../../spec/memory.ts'
import type { Containment } from '../containment.ts'

export interface HeldRanges {
  /**
   * Registers a range of `length` bytes at `start`; call the result when the region ends. `lost` is called once if any
   * of its pages is unmapped before. Throws CallError EPERM or ENOMEM.
   */
  hold(start: number, length: number, lost: () => void): () => void
  /** Takes over the program's userfaultfd, which reports what it unmaps; without it no region is lost. */
  learnBy(fd: number): void
  close(): void
}

export interface HoldOptions {
  /** Whether the process may exceed the limit. */
  readonly ignoreLimit?: boolean
  /** Contains exceptions of event loop callbacks. */
  readonly guard?: Containment['guard']
  /** Called once for a registration beyond the limit. */
  readonly log?: (sentence: string) => void
}

interface Range {
  readonly start: number
  readonly end: number
  readonly lost: () => void
}

const CAP_IPC_LOCK = 14
/** Each takes up to two of the program's 65,530 mappings. */
const MAX_WATCHED = 1024
/**
 * A larger range stays watched when its region ends: ending the watch takes longer than the event when it is unmapped.
 */
const MAX_UNWATCHED = 2 ** 20

const pageBelow = (address: number): number => address - (address % PAGE_BYTES)
const pageAbove = (address: number): number => pageBelow(address + PAGE_BYTES - 1)

const unguarded: Containment['guard'] = (_where, body) => body

export const createHeldRanges = (
  process: ProcessHandle,
  { ignoreLimit = false, guard = unguarded, log = () => {} }: HoldOptions = {},
): HeldRanges => {
  const { pid } = process
  let locked = 0
  let isLogged = false
  const watched = new Set<Range>()
  /** -1: no watcher. */
  let given = -1
  let watcher: UnmapWatch | undefined

  const unmapped = (start: number, end: number): void => {
    for (const range of watched)
      if (range.start < end && start < range.end) {
        watched.delete(range)
        range.lost()
      }
  }

  /** The kernel takes the mmap lock of an address space in use, and a thread that waits for its pages may hold it. */
  const forgetGiven = (): void => {
    if (given < 0) return
    if (isAddressSpaceGone(process)) closeSync(given)
    else closeElsewhere(given)
    given = -1
  }

  const watch = (): UnmapWatch | undefined => {
    if (given >= 0 && watcher === undefined) {
      watcher = watchUnmapping(given, guard('memory that was unmapped', unmapped))
      if (watcher === undefined) forgetGiven()
    }
    return watcher
  }

  /** Throws if the process may not lock this many more bytes. */
  const requireUnlimited = (bytes: number): void => {
    const limit = lockLimit(pid)
    if ((limit !== 0 && locked + bytes <= limit) || hasCapabilityEverywhere(pid, CAP_IPC_LOCK)) return
    const sentence = `process ${pid} may lock ${limit} bytes (RLIMIT_MEMLOCK), has registered ${locked} and requests ${bytes} more: raise the limit (ulimit -l), or start the daemon with --ignore-memlock`
    if (!isLogged) log(sentence)
    isLogged = true
    throw new CallError(limit === 0 ? 'EPERM' : 'ENOMEM', sentence)
  }

  const overlapsAny = (start: number, end: number): boolean => {
    for (const other of watched) if (other.start < end && start < other.end) return true
    return false
  }

  return {
    hold(from, length, lost) {
      const start = pageBelow(from)
      const end = pageAbove(from + length)
      const bytes = end - start
      if (!ignoreLimit) requireUnlimited(bytes)
      locked += bytes
      const range = { start, end, lost }
      if (bytes > 0 && watched.size < MAX_WATCHED && watch()?.add(start, end)) watched.add(range)
      return () => {
        locked -= bytes
        if (watched.delete(range) && bytes <= MAX_UNWATCHED && !overlapsAny(start, end)) watch()?.remove(start, end)
      }
    },
    learnBy(fd) {
      if (given >= 0) closeSync(fd)
      else given = fd
    },
    close() {
      watcher?.stop()
      watcher = undefined
      forgetGiven()
      watched.clear()
    },
  }
}
