/*
 * Finds the pages of a process that belong to shared mappings of disk files. A write to such a page may wait for the
 * file system although the page is present: after each write-back the file system must prepare it again.
 *
 * Results are valid for a second. Devices of file systems in memory are those of mounts with such a type, and those
 * without a mount (memfd_create, shared anonymous memory, huge pages).
 */
import { closeSync, openSync, readFileSync } from 'node:fs'
import { mappingAt } from './ranges.ts'

export interface FileMappings {
  /** Whether a write to [start, end) may wait; false for a process that has ended. `now`: microseconds of any clock. */
  mayWait(start: number, end: number, now: number): boolean
  close(): void
}

interface Found {
  readonly start: number
  readonly end: number
  readonly waits: boolean
  readonly until: number
}

/** Microseconds. */
const VALID = 1_000_000
/** Maximum cached mappings, where the kernel answers queries of single mappings. */
const MAX_MAPPINGS = 64
const IN_MEMORY = new Set(['tmpfs', 'ramfs', 'hugetlbfs', 'devtmpfs'])

/** Devices ("8:1") of disk file systems that are mounted where a process sees them. */
const slowDevices = (pid: number): ReadonlySet<string> => {
  const devices = new Set<string>()
  for (const line of readFileSync(`/proc/${pid}/mountinfo`, 'latin1').split('\n')) {
    const [mount = '', source = ''] = line.split(' - ')
    const device = mount.split(' ')[2]
    if (device !== undefined && !IN_MEMORY.has(source.split(' ')[0] ?? '')) devices.add(device)
  }
  return devices
}

/** Shared mappings, by the text of the maps file. */
const sharedMappings = (pid: number, devices: ReadonlySet<string>): Omit<Found, 'until'>[] =>
  [...readFileSync(`/proc/${pid}/maps`, 'latin1').matchAll(/^(\w+)-(\w+) ...s \w+ (\w+):(\w+) /gm)].map(
    ([, start = '', end = '', major = '', minor = '']) => ({
      start: Number.parseInt(start, 16),
      end: Number.parseInt(end, 16),
      waits: devices.has(`${Number.parseInt(major, 16)}:${Number.parseInt(minor, 16)}`),
    }),
  )

/** `ask`: queries one mapping, if the kernel supports that. */
export const fileMappings = (pid: number, ask: typeof mappingAt = mappingAt): FileMappings => {
  let maps = -1
  let known: Found[] = []
  let devices: ReadonlySet<string> = new Set()
  let devicesUntil = Number.NEGATIVE_INFINITY
  /** Without queries of single mappings: all are known until this time. */
  let allUntil = Number.NEGATIVE_INFINITY

  /** Queries the mapping at an address; returns where it ends. */
  const learn = (address: number, now: number): number => {
    if (now > devicesUntil) {
      devices = slowDevices(pid)
      devicesUntil = now + VALID
    }
    if (maps < 0) maps = openSync(`/proc/${pid}/maps`, 'r')
    const mapping = ask(maps, address)
    if (mapping === undefined) return Number.POSITIVE_INFINITY
    if (mapping === 'unsupported') {
      const begin = performance.now()
      const shared = sharedMappings(pid, devices)
      // Reading very many mappings takes long.
      allUntil = now + Math.max(VALID, (performance.now() - begin) * 100_000)
      known = shared.map(one => ({ ...one, until: allUntil }))
      return Number.POSITIVE_INFINITY
    }
    const { start, end, device, isShared } = mapping
    known = known.filter(one => one.until >= now && (one.end <= start || one.start >= end)).slice(1 - MAX_MAPPINGS)
    known.push({ start, end, waits: isShared && devices.has(device), until: now + VALID })
    return end
  }

  return {
    mayWait(start, end, now) {
      try {
        for (let at = start; at < end && now > allUntil; )
          at = known.find(one => one.start <= at && at < one.end && one.until >= now)?.end ?? learn(at, now)
      } catch {
        return false
      }
      return known.some(one => one.waits && one.until >= now && one.start < end && start < one.end)
    },
    close() {
      if (maps >= 0) closeSync(maps)
    },
  }
}
