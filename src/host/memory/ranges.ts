/*
 * Whether a range of a process's addresses is mapped, and for what: what the registration of memory asks (IBA 10.6.3.1
 * leaves it to the host).
 *
 * Linux 6.11 answers for one address by an ioctl on the open /proc/PID/maps (PROCMAP_QUERY), about 1 µs whatever the
 * process has mapped. Before, the text of the file is made and read: 0.1 to 0.3 ms for a program of 500 mappings, 1 ms
 * and more under load, so ranges that were read can be used again for as long as the caller says. Which process it is
 * the caller has checked.
 */
import { closeSync, openSync, readFileSync } from 'node:fs'
import { EINVAL, ENOTTY } from '../errno.ts'
import { libcFunctions, orErrno } from '../native.ts'
import { type Arena, mapArena } from './mapping.ts'

const sys = libcFunctions({ ioctl: 'int ioctl(int fd, uint64_t request, int64_t argument)' })

/** What may be done with a range. */
export const Rights = { READ: 1, WRITE: 2 } as const

/** struct procmap_query, and _IOWR('f', 17, struct procmap_query); the rights are the kernel's bits too. */
const Query = { SIZE: 0, FLAGS: 8, ADDRESS: 16, START: 24, END: 32, RIGHTS: 40, BYTES: 104 } as const
const PROCMAP_QUERY = 0xc068_6611
const TWO_32 = 2 ** 32

let arena: Arena | undefined
const workArena = (): Arena => {
  arena ??= mapArena(Query.BYTES)
  return arena
}

export interface MappedRanges {
  /**
   * Whether every byte of [start, end) is mapped and permits all of `rights` (bits of `Rights`); start is below end.
   * False for a process that is gone. `turn`: answers about the same turn may be as old as its first one.
   */
  permits(start: number, end: number, rights: number, turn: number): boolean
  close(): void
}

/** Answers 0 and fills the query with the mapping that `address` lies in; -errno otherwise, -ENOENT if none is. */
const query = (fd: number, address: number): number => {
  const { address: at, bytes, u32 } = workArena()
  bytes.fill(0, 0, Query.BYTES)
  u32[Query.SIZE >> 2] = Query.BYTES
  u32[Query.ADDRESS >> 2] = address % TWO_32
  u32[(Query.ADDRESS >> 2) + 1] = Math.floor(address / TWO_32)
  return orErrno(sys().ioctl(fd, PROCMAP_QUERY, at))
}

/** Ranges of a maps file, ascending: start, end, rights. */
const readRanges = (pid: number): Float64Array => {
  const lines = readFileSync(`/proc/${pid}/maps`, 'latin1').split('\n')
  const ranges = new Float64Array(3 * lines.length)
  lines.forEach((line, i) => {
    if (line === '') return
    const dash = line.indexOf('-')
    const space = line.indexOf(' ', dash)
    ranges[3 * i] = Number.parseInt(line.slice(0, dash), 16)
    ranges[3 * i + 1] = Number.parseInt(line.slice(dash + 1, space), 16)
    ranges[3 * i + 2] = (line[space + 1] === 'r' ? Rights.READ : 0) | (line[space + 2] === 'w' ? Rights.WRITE : 0)
  })
  return ranges
}

const none = new Float64Array()

/** By the text of the file, as every Linux has it. */
export const textRanges = (pid: number): MappedRanges => {
  let ranges: Float64Array = none
  let asked = -1
  return {
    permits(start, end, rights, turn) {
      if (asked !== turn) {
        try {
          ranges = readRanges(pid)
        } catch {
          return false
        }
        asked = turn
      }
      let reached = start
      for (let i = 0; i < ranges.length; i += 3) {
        const to = ranges[i + 1]
        if (to <= reached) continue
        if (ranges[i] > reached || (ranges[i + 2] & rights) !== rights) return false
        reached = to
        if (reached >= end) return true
      }
      return false
    },
    close() {
      ranges = none
      asked = -1
    },
  }
}

/**
 * By the ioctl; undefined where the kernel does not know it, or the file may not be read. Holds the file open, which
 * goes on meaning the address space of the program that the process runs now.
 */
export const queriedRanges = (pid: number): MappedRanges | undefined => {
  let fd: number
  try {
    fd = openSync(`/proc/${pid}/maps`, 'r')
  } catch {
    return undefined
  }
  const first = query(fd, 0)
  if (first === -ENOTTY || first === -EINVAL) {
    closeSync(fd)
    return undefined
  }
  return {
    permits(start, end, rights) {
      const { u32 } = workArena()
      let reached = start
      // At least once: far beyond user space a Number's end can be its start.
      do {
        if (query(fd, reached) < 0 || (u32[Query.RIGHTS >> 2] & rights) !== rights) return false
        reached = u32[Query.END >> 2] + u32[(Query.END >> 2) + 1] * TWO_32
      } while (reached < end)
      return true
    },
    close: () => closeSync(fd),
  }
}

/** The ranges of a process that is known to be the one that is meant, as fast as the kernel has it. */
export const mappedRanges = (pid: number): MappedRanges => queriedRanges(pid) ?? textRanges(pid)
