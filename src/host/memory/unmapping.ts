/*
 * Notifications of memory that another process unmaps (userfaultfd(2)). Any process may open a userfaultfd for itself
 * (UFFD_USER_MODE_ONLY) and pass it on. The ranges are registered for write protection, which is never set, so page
 * faults are not delayed.
 *
 * munmap, mremap, brk, and mmap over a watched range return in that process after the event has been read here, so
 * later mappings at the address come after the event. exit, exec and shmdt raise no events. Measured: 1.2 µs to watch a
 * range, 1.6 µs and 0.02 µs per KiB to end the watch, 20 to 40 µs more for a munmap.
 */
import { watch } from '../event-loop/poll.ts'
import { TWO_32 } from '../halves.ts'
import { libcFunctions } from '../native.ts'
import { type Arena, mapArena } from './mapping.ts'

const sys = libcFunctions({
  ioctl: 'int ioctl(int fd, uint64_t request, int64_t argument)',
  read: 'int64_t read(int fd, int64_t bytes, uint64_t length)',
})

const UFFDIO_API = 0xc018_aa3f
const UFFDIO_REGISTER = 0xc020_aa00
const UFFDIO_UNREGISTER = 0x8010_aa01
/** UFFD_API. */
const API = 0xaa
/** UFFD_FEATURE_…: WP is PAGEFAULT_FLAG_WP, WP_SHARED is WP_HUGETLBFS_SHMEM. */
const Feature = { WP: 1 << 0, EVENT_REMAP: 1 << 2, EVENT_UNMAP: 1 << 6, WP_SHARED: 1 << 12 } as const
const MODE_WP = 2
const Event = { REMAP: 0x14, UNMAP: 0x16 } as const
/** Offsets in struct uffd_msg, and its size. A remapped range is given by start and length. */
const Message = { EVENT: 0, START: 8, UNMAP_END: 16, REMAP_LENGTH: 24, BYTES: 32 } as const
/** Bytes per read: 16 events. */
const BATCH_BYTES = 16 * Message.BYTES

let arena: Arena | undefined
const workArena = (): Arena => {
  arena ??= mapArena(BATCH_BYTES)
  return arena
}

/** `value`: below 2^53. */
const putU64 = (at: number, value: number): void => {
  const { u32 } = workArena()
  u32[at >> 2] = value % TWO_32
  u32[(at >> 2) + 1] = Math.floor(value / TWO_32)
}
const getU64 = (at: number): number => {
  const { u32 } = workArena()
  return u32[at >> 2]! + u32[(at >> 2) + 1]! * TWO_32
}
/** Makes an ioctl with a struct of 64-bit words; true if it succeeded. */
const tryIoctl = (fd: number, request: number, ...words: readonly number[]): boolean => {
  for (let i = 0; i < words.length; i++) putU64(8 * i, words[i]!)
  return sys().ioctl(fd, request, workArena().address) === 0
}

export interface UnmapWatch {
  /**
   * Watches whole pages. False if impossible: pages of a file, pages that another userfaultfd watches, too many
   * mappings.
   */
  add(start: number, end: number): boolean
  remove(start: number, end: number): void
  /**
   * Reads no further events. Not to be called by `unmapped`. The caller closes the descriptor; closing waits for the
   * process's mmap lock.
   */
  stop(): void
}

/**
 * Watches by userfaultfd `fd`. `unmapped` is called from the event loop with ranges that were unmapped or replaced;
 * they may be larger than the watched ranges. Undefined if the descriptor cannot be used.
 */
export const watchUnmapping = (fd: number, unmapped: (start: number, end: number) => void): UnmapWatch | undefined => {
  const features = Feature.WP | Feature.EVENT_REMAP | Feature.EVENT_UNMAP
  // Linux before 5.19 cannot watch shared memory.
  if (!tryIoctl(fd, UFFDIO_API, API, features | Feature.WP_SHARED, 0) && !tryIoctl(fd, UFFDIO_API, API, features, 0))
    return undefined
  const report = (at: number): void => {
    const event = workArena().bytes[at + Message.EVENT]
    const start = getU64(at + Message.START)
    if (event === Event.UNMAP) unmapped(start, getU64(at + Message.UNMAP_END))
    else if (event === Event.REMAP) unmapped(start, start + getU64(at + Message.REMAP_LENGTH))
  }
  const watcher = watch(fd, { readable: true }, () => {
    const { address } = workArena()
    for (let length = BATCH_BYTES; length === BATCH_BYTES; ) {
      length = sys().read(fd, address, BATCH_BYTES)
      for (let at = 0; at < length; at += Message.BYTES) report(at)
    }
  })
  return {
    add: (start, end) => tryIoctl(fd, UFFDIO_REGISTER, start, end - start, MODE_WP, 0),
    remove: (start, end) => void tryIoctl(fd, UFFDIO_UNREGISTER, start, end - start),
    stop: () => watcher.stop(),
  }
}
