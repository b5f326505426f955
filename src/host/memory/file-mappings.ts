/*
 * Finds the pages of a process that belong to shared mappings of disk files. A write to such a page may wait for the
 * file system although the page is present: after each write-back the file system must prepare the page again.
 *
 * A file system is in memory if its type is in `IN_MEMORY` (tmpfs, …), or if its device has no mount (memfd_create,
 * shared anonymous memory, huge pages).
 */
import { closeSync, openSync, readFileSync } from 'node:fs'
import { mappingAt } from './ranges.ts'

interface FileMappings {
  /**
   * Whether a write to [start, end) may wait for a file system; false if the mappings cannot be read. `now`:
   * microseconds, always of the same clock.
   */
  mayWait(start: number, end: number, now: number): boolean
  close(): void
}

interface CachedMapping {
  readonly start: number
  readonly end: number
  /** A shared mapping of a file on disk. */
  readonly mayWait: boolean
  readonly validUntil: number
}

/** Minimum validity of results, microseconds. */
const VALID = 1_000_000
/**
 * Maximum cached mappings, if the kernel answers queries of single mappings. Otherwise all shared mappings are cached.
 */
const MAX_MAPPINGS = 64
const IN_MEMORY = new Set(['tmpfs', 'ramfs', 'hugetlbfs', 'devtmpfs'])

/** Devices ("8:1") of the disk file systems that are mounted for a process. */
const diskDevices = (pid: number): ReadonlySet<string> => {
  const devices = new Set<string>()
  for (const line of readFileSync(`/proc/${pid}/mountinfo`, 'latin1').split('\n')) {
    const [mount = '', source = ''] = line.split(' - ')
    const device = mount.split(' ')[2]
    if (device !== undefined && !IN_MEMORY.has(source.split(' ')[0] ?? '')) devices.add(device)
  }
  return devices
}

/** All shared mappings, from the text of the maps file. */
const sharedMappings = (pid: number, devices: ReadonlySet<string>): Omit<CachedMapping, 'validUntil'>[] =>
  [...readFileSync(`/proc/${pid}/maps`, 'latin1').matchAll(/^(\w+)-(\w+) ...s \w+ (\w+):(\w+) /gm)].map(
    ([, start = '', end = '', major = '', minor = '']) => ({
      start: Number.parseInt(start, 16),
      end: Number.parseInt(end, 16),
      mayWait: devices.has(`${Number.parseInt(major, 16)}:${Number.parseInt(minor, 16)}`),
    }),
  )

/** `queryMapping`: replaced by tests. */
export const fileMappings = (pid: number, queryMapping: typeof mappingAt = mappingAt): FileMappings => {
  let maps = -1
  let cached: CachedMapping[] = []
  let devices: ReadonlySet<string> = new Set()
  let devicesUntil = Number.NEGATIVE_INFINITY
  /** If single mappings cannot be queried: until when `cached` has all shared mappings. */
  let allUntil = Number.NEGATIVE_INFINITY

  /**
   * Queries the mapping at an address into `cached`, and returns it. Undefined if nothing is mapped there (a write to
   * the range then fails anyway), or if `cached` now has all shared mappings.
   */
  const learn = (address: number, now: number): CachedMapping | undefined => {
    if (now > devicesUntil) {
      devices = diskDevices(pid)
      devicesUntil = now + VALID
    }
    if (maps < 0) maps = openSync(`/proc/${pid}/maps`, 'r')
    const mapping = queryMapping(maps, address)
    if (mapping === undefined) return undefined
    if (mapping === 'unsupported') {
      const begin = performance.now()
      const shared = sharedMappings(pid, devices)
      const readingMicroseconds = (performance.now() - begin) * 1000
      // So that a process with very many mappings costs at most 1 % of the time.
      allUntil = now + Math.max(VALID, 100 * readingMicroseconds)
      cached = shared.map(one => ({ ...one, validUntil: allUntil }))
      return undefined
    }
    const { start, end, device, isShared } = mapping
    cached = cached
      .filter(one => one.validUntil >= now && (one.end <= start || one.start >= end))
      .slice(1 - MAX_MAPPINGS)
    const learned = { start, end, mayWait: isShared && devices.has(device), validUntil: now + VALID }
    cached.push(learned)
    return learned
  }

  return {
    mayWait(start, end, now) {
      try {
        for (let at = start; at < end && now > allUntil; ) {
          const known = cached.find(one => one.start <= at && at < one.end && one.validUntil >= now)
          const mapping = known ?? learn(at, now)
          if (mapping === undefined) break
          // Checked here too, because `cached` may not have room for all mappings of a long range.
          if (mapping.mayWait) return true
          at = mapping.end
        }
      } catch {
        return false
      }
      return cached.some(one => one.mayWait && one.validUntil >= now && one.start < end && start < one.end)
    },
    close() {
      if (maps >= 0) closeSync(maps)
    },
  }
}
