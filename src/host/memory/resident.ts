/*
 * Finds the pages of a process that are in memory, so that a copy does not wait (/proc/PID/pagemap, proc(5)). Not
 * counted as resident: pages of shared mappings of disk files (file-mappings.ts), pages that userfaultfd protects from
 * writes, and pages that the program may protect at any moment (`mayFreeze`).
 *
 * A page that was found is not checked again for a millisecond: then a copy of 64 KiB costs 0.05 µs more, otherwise 1.1
 * (measured; 0.6 for one page). The page can be evicted in that time, so this does not protect against a program that
 * removes pages on purpose (moves.ts).
 */
import { closeSync, openSync } from 'node:fs'
import { TWO_32 } from '../halves.ts'
import { libcFunctions } from '../native.ts'
import { fileMappings } from './file-mappings.ts'
import { type Arena, mapArena, pageSize } from './mapping.ts'

const sys = libcFunctions({ pread: 'int64_t pread(int fd, int64_t bytes, uint64_t length, int64_t offset)' })

/**
 * Bits of the high half of a pagemap entry: the page is in memory (bit 63), userfaultfd is notified of writes to it
 * (bit 57), it is of a file or shared (bit 61).
 */
const PRESENT = 0x8000_0000
const WRITE_PROTECTED = 0x0200_0000
const FILE = 0x2000_0000
/** Bytes of a pagemap entry. */
const ENTRY = 8
/** Entries per read. */
const BATCH = 512
/** Number of cached pages, a power of two: 32 MiB with pages of 4 KiB. */
const CACHED_PAGES = 8192
/** How long a cached page is not checked again, microseconds. */
const VALID = 1000

let arena: Arena | undefined

export interface ResidentPages {
  /** `now` of the last query that found pages, so the address space had users then. */
  readonly foundAt: number
  /** Whether all pages of the `length` bytes at hi:lo are in memory. `now`: microseconds, always of the same clock. */
  areResident(hi: number, lo: number, length: number, now: number): boolean
  /** The pages from `start` to `end` are checked again. */
  forget(start: number, end: number): void
  /** Number of pages that `areResident` has found missing so far. */
  readonly missing: number
  close(): void
}

/** Whether pages from address `start` to `end` may be protected from writes at any moment, and then not for long. */
export type MayFreeze = (start: number, end: number) => boolean

/** The resident pages of a process; undefined if /proc/PID/pagemap cannot be opened. */
export const residentPages = (pid: number, mayFreeze: MayFreeze = () => false): ResidentPages | undefined => {
  let fd: number
  try {
    fd = openSync(`/proc/${pid}/pagemap`, 'r')
  } catch {
    return undefined
  }
  /** By slot: the number of a page that was in memory, and the time of the check. */
  const cachedPages = new Float64Array(CACHED_PAGES).fill(-1)
  const checkedAt = new Float64Array(CACHED_PAGES)
  const files = fileMappings(pid)
  let missing = 0
  const pageBytes = pageSize()
  const pageBits = Math.log2(pageBytes)
  /** A multiple of CACHED_PAGES, so the slot of a page depends only on the low half of its address. */
  const pagesPer4GiB = TWO_32 / pageBytes

  let foundAt = Number.NEGATIVE_INFINITY

  /** Checks pages [first, last], and caches those in memory. True if all are. */
  const query = (first: number, last: number, now: number): boolean => {
    arena ??= mapArena(BATCH * ENTRY)
    const { address, u32 } = arena
    let areAll = true
    for (let page = first; page <= last; page += BATCH) {
      const count = last - page < BATCH ? last - page + 1 : BATCH
      // No entry: no process uses the address space any more. The copy will report that.
      if (sys().pread(fd, address, count * ENTRY, page * ENTRY) !== count * ENTRY) return false
      foundAt = now
      let anyBits = 0
      for (let i = 0; i < count; i++) anyBits |= u32[2 * i + 1]!
      const mayWaitBit =
        (anyBits & FILE) !== 0 && files.mayWait(page * pageBytes, (page + count) * pageBytes, now) ? FILE : 0
      const anyFreezes = mayFreeze(page * pageBytes, (page + count) * pageBytes)
      for (let i = 0; i < count; i++) {
        const isMissing = (u32[2 * i + 1]! & PRESENT) === 0
        if (isMissing) missing++
        const freezes = anyFreezes && mayFreeze((page + i) * pageBytes, (page + i + 1) * pageBytes)
        if (isMissing || freezes || (u32[2 * i + 1]! & (WRITE_PROTECTED | mayWaitBit)) !== 0) {
          areAll = false
          continue
        }
        const slot = (page + i) % CACHED_PAGES
        cachedPages[slot] = page + i
        checkedAt[slot] = now
      }
    }
    return areAll
  }

  return {
    get foundAt() {
      return foundAt
    },
    areResident(hi, lo, length, now) {
      const pageInBlock = lo >>> pageBits
      const first = hi * pagesPer4GiB + pageInBlock
      const count = ((lo & (pageBytes - 1)) + length + (pageBytes - 1)) >>> pageBits
      for (let i = 0; i < count; i++) {
        const slot = (pageInBlock + i) & (CACHED_PAGES - 1)
        if (cachedPages[slot] !== first + i || now - checkedAt[slot]! >= VALID)
          return query(first, first + count - 1, now)
      }
      return true
    },
    forget(start, end) {
      const first = Math.floor(start / pageBytes)
      const count = Math.min(Math.ceil(end / pageBytes) - first, CACHED_PAGES)
      for (let i = 0; i < count; i++) cachedPages[(first + i) % CACHED_PAGES] = -1
    },
    get missing() {
      return missing
    },
    close() {
      closeSync(fd)
      files.close()
    },
  }
}
