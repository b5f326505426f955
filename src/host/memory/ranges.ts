/*
 * Checks whether a range of a process's addresses is mapped with the needed rights, for the registration of memory (IBA
 * 10.6.3.1 leaves the check to the host).
 *
 * Since Linux 6.11 an ioctl on the open /proc/PID/maps (PROCMAP_QUERY) returns the mapping of an address in about 1 µs.
 * On older kernels the text of the file is read: 0.1 to 0.3 ms for 500 mappings, 1 ms and more under load. So the text
 * is reused for the rest of the event loop's turn. For a guest, a process of another user (guest.ts), its mover makes
 * the calls. The caller has checked that the pid still belongs to its process.
 */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { EINVAL, ENOTTY, SystemError } from '../errno.ts'
import { nowMicroseconds } from '../event-loop/clock.ts'
import { TWO_32 } from '../halves.ts'
import { libcFunctions, orErrno } from '../native.ts'
import type { Guest } from './guest.ts'
import { type Arena, mapArena } from './mapping.ts'
import type { ArenaRange } from './mover.ts'
import { procFolder } from './process.ts'

const sys = libcFunctions({ ioctl: 'int ioctl(int fd, uint64_t request, int64_t argument)' })

/** PRIVATE: stores to the mapping do not reach other processes. */
export const Rights = { READ: 1, WRITE: 2, PRIVATE: 16 } as const

/** Offsets in struct procmap_query, and its size. `VMA_FLAGS`: see `rightsOf`. */
const Query = {
  SIZE: 0,
  ADDRESS: 16,
  START: 24,
  END: 32,
  VMA_FLAGS: 40,
  PAGE_SIZE: 48,
  MAJOR: 72,
  MINOR: 76,
  BYTES: 104,
} as const
/** _IOWR('f', 17, struct procmap_query). */
const PROCMAP_QUERY = 0xc068_6611

/**
 * Work between two yields: microseconds of queries, at most so many, or bytes of a maps file. A mover needs up to 50 µs
 * for a query.
 */
export const SLICE = { microseconds: 200, queries: 256, bytes: 0x4000 } as const

let arena: Arena | undefined
const workArena = (): Arena => {
  arena ??= mapArena(SLICE.bytes)
  return arena
}

export interface MappedRanges {
  /**
   * Whether every byte of [start, end) is mapped and permits all `rights` (bits of `Rights`). start must be below end.
   * False for a process that has ended. `turn`: number of the event loop's turn; an answer may be as old as the first
   * of the turn.
   */
  permits(start: number, end: number, rights: number, turn: number): boolean
  /**
   * Like `permits`, in steps, for programs with very many mappings. Yields the address up to which it has come: a
   * slice's mappings are between two. `currentTurn` returns the number of the present turn. In the turn in which the
   * last search ended, `permits` repeats its answer without queries. The caller may `close` before the last step.
   */
  search(start: number, end: number, rights: number, currentTurn: () => number): Generator<number, boolean>
  /** Bytes of the pages of the mapping at an address, more than a page for huge pages; undefined if there is none. */
  pageBytes?(address: number): number | undefined
  close(): void
}

/** An open maps file. */
interface MapsFile {
  /** Returns 0 or -errno. */
  ioctl(request: number, argument: ArenaRange): number
  /** Returns the number of bytes or -errno. Throws the error of node:fs. */
  read(offset: number, into: ArenaRange): number
  close(): void
}

const fileOf = (fd: number): MapsFile => ({
  ioctl: (request, { arena, at }) => orErrno(sys().ioctl(fd, request, arena.address + at)),
  read: (offset, { arena, at, length }) => readSync(fd, arena.bytes, at, length, offset),
  close: () => closeSync(fd),
})
/** Throws the error of node:fs. */
const openMaps = (pid: number): MapsFile => fileOf(openSync(`${procFolder(pid)}/maps`, 'r'))

/** The maps file of a guest; the guest's mover keeps it open. */
const guestMaps = (guest: Guest): MapsFile => ({
  ioctl: guest.ioctlMaps,
  read: guest.readMaps,
  close() {},
})

/**
 * Queries the mapping that contains `address` into the arena. Returns 0 or -errno: -ENOENT if there is none, -ENOTTY or
 * -EINVAL if the kernel does not support the query.
 */
const query = (file: MapsFile, address: number): number => {
  const { bytes, u32 } = workArena()
  bytes.fill(0, 0, Query.BYTES)
  u32[Query.SIZE >> 2] = Query.BYTES
  u32[Query.ADDRESS >> 2] = address % TWO_32
  u32[(Query.ADDRESS >> 2) + 1] = Math.floor(address / TWO_32)
  return file.ioctl(PROCMAP_QUERY, { arena: workArena(), at: 0, length: Query.BYTES })
}

/** PROCMAP_QUERY_VMA_SHARED. */
const SHARED = 8

/**
 * The mapping that contains an address; undefined if there is none. `fd`: an open maps file. `device`: of the mapped
 * file, "major:minor" in decimal.
 */
export const mappingAt = (
  fd: number,
  address: number,
): { start: number; end: number; device: string; isShared: boolean } | 'unsupported' | undefined => {
  const answer = query(fileOf(fd), address)
  if (answer === -ENOTTY || answer === -EINVAL) return 'unsupported'
  if (answer < 0) return undefined
  const { u32 } = workArena()
  return {
    start: u32[Query.START >> 2]! + u32[(Query.START >> 2) + 1]! * TWO_32,
    end: u32[Query.END >> 2]! + u32[(Query.END >> 2) + 1]! * TWO_32,
    device: `${u32[Query.MAJOR >> 2]}:${u32[Query.MINOR >> 2]}`,
    isShared: (u32[Query.VMA_FLAGS >> 2]! & SHARED) !== 0,
  }
}

/** `flags`: PROCMAP_QUERY_VMA_…; the bits of READ and WRITE are those of `Rights`. */
const rightsOf = (flags: number): number =>
  (flags & (Rights.READ | Rights.WRITE)) | ((flags & SHARED) === 0 ? Rights.PRIVATE : 0)

/** Adds start, end and rights of each line to `ranges`. `lines`: whole lines of a maps file. */
const addRanges = (lines: string, ranges: number[]): void => {
  for (let at = 0; at < lines.length; at = lines.indexOf('\n', at) + 1) {
    const dash = lines.indexOf('-', at)
    const space = lines.indexOf(' ', dash)
    ranges.push(
      Number.parseInt(lines.slice(at, dash), 16),
      Number.parseInt(lines.slice(dash + 1, space), 16),
      (lines[space + 1] === 'r' ? Rights.READ : 0) |
        (lines[space + 2] === 'w' ? Rights.WRITE : 0) |
        (lines[space + 4] === 'p' ? Rights.PRIVATE : 0),
    )
  }
}

/**
 * Ranges of a maps file, ascending, three numbers each: start, end, rights. Throws the error of node:fs, or
 * SystemError.
 */
function* readRanges(file: MapsFile): Generator<number, readonly number[]> {
  const ranges: number[] = []
  let partialLine = ''
  let offset = 0
  for (let sliceBytes = 0; ; ) {
    const length = file.read(offset, { arena: workArena(), at: 0, length: SLICE.bytes })
    if (length < 0) throw new SystemError('read', length, 'a maps file')
    if (length === 0) return ranges
    const text = partialLine + Buffer.from(workArena().buffer, 0, length).toString('latin1')
    const end = text.lastIndexOf('\n') + 1
    addRanges(text.slice(0, end), ranges)
    partialLine = text.slice(end)
    offset += length
    sliceBytes += length
    if (sliceBytes < SLICE.bytes) continue
    sliceBytes = 0
    yield ranges.at(-2) ?? 0
  }
}

/** Whether ranges of `readRanges` permit `rights` in all of [start, end). */
const isPermitted = (ranges: readonly number[], start: number, end: number, rights: number): boolean => {
  let reached = start
  for (let i = 0; i < ranges.length; i += 3) {
    const rangeEnd = ranges[i + 1]!
    if (rangeEnd <= reached) continue
    if (ranges[i]! > reached || (ranges[i + 2]! & rights) !== rights) return false
    reached = rangeEnd
    if (reached >= end) return true
  }
  return false
}

const runToEnd = <T>(search: Generator<number, T>): T => {
  for (;;) {
    const { done, value } = search.next()
    if (done) return value
  }
}

/** The mapped ranges of a process, from the text of its maps file: on every kernel. */
export const textRanges = (pid: number, guest?: Guest): MappedRanges => {
  let ranges: readonly number[] = []
  /** The turn in which `ranges` were read; -1: never. */
  let readInTurn = -1
  /** Reads the ranges, valid in the turn in which reading ends. False if they cannot be read. */
  function* renew(currentTurn: () => number): Generator<number, boolean> {
    let file: MapsFile | undefined
    try {
      file = guest ? guestMaps(guest) : openMaps(pid)
      ranges = yield* readRanges(file)
    } catch {
      return false
    } finally {
      file?.close()
    }
    readInTurn = currentTurn()
    return true
  }
  return {
    permits: (start, end, rights, turn) =>
      (readInTurn === turn || runToEnd(renew(() => turn))) && isPermitted(ranges, start, end, rights),
    *search(start, end, rights, currentTurn) {
      return (readInTurn === currentTurn() || (yield* renew(currentTurn))) && isPermitted(ranges, start, end, rights)
    },
    close() {
      ranges = []
      readInTurn = -1
    },
  }
}

/**
 * The mapped ranges of a process, by the ioctl. Undefined if the kernel does not support it, or the file may not be
 * read. The open file keeps referring to the address space that the process has now.
 */
export const queriedRanges = (pid: number, guest?: Guest): MappedRanges | undefined => {
  let file: MapsFile
  try {
    file = guest ? guestMaps(guest) : openMaps(pid)
  } catch {
    return undefined
  }
  const first = query(file, 0)
  if (first === -ENOTTY || first === -EINVAL) {
    file.close()
    return undefined
  }
  let isClosed = false
  function* walk(start: number, end: number, rights: number): Generator<number, boolean> {
    const { u32 } = workArena()
    let reached = start
    // At least one query: beyond 2^53, far outside of user space, `end` can equal `start` after rounding.
    let sliceBegin = nowMicroseconds()
    for (let queries = 1; ; queries++) {
      // After `close` the number of the file's descriptor may be that of another file.
      if (isClosed || query(file, reached) < 0 || (rightsOf(u32[Query.VMA_FLAGS >> 2]!) & rights) !== rights)
        return false
      reached = u32[Query.END >> 2]! + u32[(Query.END >> 2) + 1]! * TWO_32
      if (reached >= end) return true
      if (queries < SLICE.queries && nowMicroseconds() - sliceBegin < SLICE.microseconds) continue
      yield reached
      queries = 0
      sliceBegin = nowMicroseconds()
    }
  }
  /** The last search, valid for its turn. */
  let lastSearch: { start: number; end: number; rights: number; turn: number; permits: boolean } | undefined
  return {
    permits(start, end, rights, turn) {
      const found = lastSearch
      if (found?.turn === turn && found.start === start && found.end === end && found.rights === rights)
        return found.permits
      return runToEnd(walk(start, end, rights))
    },
    *search(start, end, rights, currentTurn) {
      const permits = yield* walk(start, end, rights)
      lastSearch = { start, end, rights, turn: currentTurn(), permits }
      return permits
    },
    pageBytes(address) {
      const { u32 } = workArena()
      if (isClosed || query(file, address) < 0) return undefined
      return u32[Query.PAGE_SIZE >> 2]! + u32[(Query.PAGE_SIZE >> 2) + 1]! * TWO_32
    },
    close() {
      isClosed = true
      file.close()
    },
  }
}

/** By the fastest method of the kernel. */
export const mappedRanges = (pid: number, guest?: Guest): MappedRanges =>
  queriedRanges(pid, guest) ?? textRanges(pid, guest)

/**
 * The shared mappings of a file by a process, found by the file's inode among memory files; none if the process has
 * ended. `offset`: in the file. Reading takes the mmap lock of the process.
 */
export const mappingsOfFile = (
  pid: number,
  inode: number,
): { start: number; end: number; offset: number; isWritable: boolean }[] => {
  let lines: string[]
  try {
    lines = readFileSync(`/proc/${pid}/maps`, 'latin1').split('\n')
  } catch {
    return []
  }
  return lines.flatMap(line => {
    const found = /^([0-9a-f]+)-([0-9a-f]+) .([-w]).s ([0-9a-f]+) \S+ (\d+) +\/memfd:/.exec(line)
    if (found === null || Number(found[5]) !== inode) return []
    const [start = 0, end = 0, offset = 0] = [found[1], found[2], found[4]].map(text =>
      Number.parseInt(text as string, 16),
    )
    return [{ start, end, offset, isWritable: found[3] === 'w' }]
  })
}
