/*
 * Finds the pages of a process that are in memory: a copy to or from them does not wait (/proc/PID/pagemap, proc(5)).
 * Pages of shared mappings of disk files never count as such (file-mappings.ts).
 *
 * A page that was found is not checked again for a millisecond: then a copy of 64 KiB costs 0.05 µs more, otherwise 1.1
 * (measured; 0.6 for one page). In that time it can be evicted, so this does not protect against a program that removes
 * it on purpose (moves.ts).
 */
import { closeSync, openSync } from 'node:fs'
import { libcFunctions } from '../native.ts'
import { fileMappings } from './file-mappings.ts'
import { type Arena, mapArena } from './mapping.ts'

const sys = libcFunctions({ pread: 'int64_t pread(int fd, int64_t bytes, uint64_t length, int64_t offset)' })

const PAGE_BITS = 12
const PAGE = 1 << PAGE_BITS
const PAGES_PER_4_GIB = 2 ** 20
/** Bits of the high half of an entry: the page is in memory; userfaultfd is notified of writes to it. */
const PRESENT = 0x8000_0000
const GUARDED = 0x0200_0000
/** The page belongs to a file, or is shared. */
const FILE = 0x2000_0000
const ENTRY = 8
/** Entries that are read with one call. */
const BATCH = 512
/** Cached pages, a power of two: 32 MiB. */
const KNOWN = 8192
/** Microseconds. */
const VALID = 1000

let arena: Arena | undefined

export interface ResidentPages {
  /** Whether all pages with bytes of [hi:lo, + length) are in memory. `now`: microseconds of any clock. */
  holds(hi: number, lo: number, length: number, now: number): boolean
  close(): void
}

/** Pages of a process. Undefined where /proc does not show them. */
export const residentPages = (pid: number): ResidentPages | undefined => {
  let fd: number
  try {
    fd = openSync(`/proc/${pid}/pagemap`, 'r')
  } catch {
    return undefined
  }
  const known = new Float64Array(KNOWN).fill(-1)
  const since = new Float64Array(KNOWN)
  const files = fileMappings(pid)

  const query = (first: number, last: number, now: number): boolean => {
    arena ??= mapArena(BATCH * ENTRY)
    const { address, u32 } = arena
    let all = true
    for (let page = first; page <= last; page += BATCH) {
      const count = last - page < BATCH ? last - page + 1 : BATCH
      // No entry: the address space has ended; the copy will report that.
      if (sys().pread(fd, address, count * ENTRY, page * ENTRY) !== count * ENTRY) return false
      let kinds = 0
      for (let i = 0; i < count; i++) kinds |= u32[2 * i + 1]
      const unsure = (kinds & FILE) !== 0 && files.mayWait(page * PAGE, (page + count) * PAGE, now) ? FILE : 0
      for (let i = 0; i < count; i++) {
        if ((u32[2 * i + 1] & PRESENT) === 0 || (u32[2 * i + 1] & (GUARDED | unsure)) !== 0) {
          all = false
          continue
        }
        const slot = (page + i) % KNOWN
        known[slot] = page + i
        since[slot] = now
      }
    }
    return all
  }

  return {
    holds(hi, lo, length, now) {
      const low = lo >>> PAGE_BITS
      const base = hi * PAGES_PER_4_GIB
      const count = ((lo & ((1 << PAGE_BITS) - 1)) + length + ((1 << PAGE_BITS) - 1)) >>> PAGE_BITS
      for (let i = 0; i < count; i++) {
        const slot = (low + i) & (KNOWN - 1)
        if (known[slot] !== base + low + i || now - since[slot] > VALID)
          return query(base + low, base + low + count - 1, now)
      }
      return true
    },
    close() {
      closeSync(fd)
      files.close()
    },
  }
}
