/*
 * Checks whether a range of a process's addresses is mapped, with the needed rights, for the registration of memory
 * (IBA 10.6.3.1 leaves it to the host).
 *
 * Linux 6.11 answers for one address by an ioctl on the open /proc/PID/maps (PROCMAP_QUERY), about 1 µs whatever the
 * process has mapped. On older kernels the text of the file is read: 0.1 to 0.3 ms for a program of 500 mappings, 1 ms
 * and more under load, so ranges that were read are reused as long as the caller allows. The caller has checked that
 * the process is the right one.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { EINVAL, ENOTTY, SystemError } from '../errno.ts'
import { libcFunctions, orErrno } from '../native.ts'
import type { Guest } from './guest.ts'
import { type Arena, mapArena } from './mapping.ts'
import type { Room } from './mover.ts'

const sys = libcFunctions({ ioctl: 'int ioctl(int fd, uint64_t request, int64_t argument)' })

/** Permitted accesses to a range. */
export const Rights = { READ: 1, WRITE: 2 } as const

/** struct procmap_query, and _IOWR('f', 17, struct procmap_query); the rights are the kernel's bits too. */
const Query = {
  SIZE: 0,
  FLAGS: 8,
  ADDRESS: 16,
  START: 24,
  END: 32,
  RIGHTS: 40,
  MAJOR: 72,
  MINOR: 76,
  BYTES: 104,
} as const
const PROCMAP_QUERY = 0xc068_6611
const TWO_32 = 2 ** 32

/** Size of a slice, some 0.5 ms: mappings that are queried one by one, and bytes of a maps file. */
export const SLICE = { queries: 512, bytes: 0x8000 } as const

let arena: Arena | undefined
const workArena = (): Arena => {
  arena ??= mapArena(SLICE.bytes)
  return arena
}

export interface MappedRanges {
  /**
   * Whether every byte of [start, end) is mapped and permits all of `rights` (bits of `Rights`); start is below end.
   * False for a process that has ended. `turn`: answers in the same turn may be as old as its first one.
   */
  permits(start: number, end: number, rights: number, turn: number): boolean
  /**
   * Answers like `permits`, in slices, for programs with very many mappings: yields between them. `turn` is called at
   * the end, and `permits` then gives the same answer in that turn.
   */
  search(start: number, end: number, rights: number, turn: () => number): Generator<undefined, boolean>
  close(): void
}

/** An open maps file. */
interface MapsFile {
  /** 0 or -errno. */
  ask(request: number, room: Room): number
  /** Reads from an offset on; bytes or -errno. Throws as the system does. */
  read(offset: number, room: Room): number
  close(): void
}

const fileOf = (fd: number): MapsFile => ({
  ask: (request, { arena, at }) => orErrno(sys().ioctl(fd, request, arena.address + at)),
  read: (offset, { arena, at, length }) => readSync(fd, arena.bytes, at, length, offset),
  close: () => closeSync(fd),
})
/** Throws as the system does. */
const openMaps = (pid: number): MapsFile => fileOf(openSync(`/proc/${pid}/maps`, 'r'))

/** The maps file of a guest, which its mover has open. */
const guestMaps = (guest: Guest): MapsFile => ({
  ask: guest.askMaps,
  read: guest.readMaps,
  close() {},
})

/**
 * Returns 0 and fills the query with the mapping that contains `address`; -errno otherwise, -ENOENT if there is none.
 */
const query = (file: MapsFile, address: number): number => {
  const { bytes, u32 } = workArena()
  bytes.fill(0, 0, Query.BYTES)
  u32[Query.SIZE >> 2] = Query.BYTES
  u32[Query.ADDRESS >> 2] = address % TWO_32
  u32[(Query.ADDRESS >> 2) + 1] = Math.floor(address / TWO_32)
  return file.ask(PROCMAP_QUERY, { arena: workArena(), at: 0, length: Query.BYTES })
}

/** Bit of the rights of a query. */
const SHARED = 8

/** The mapping of an open maps file that contains an address; undefined if there is none. */
export const mappingAt = (
  fd: number,
  address: number,
): { start: number; end: number; device: string; isShared: boolean } | 'unsupported' | undefined => {
  const answer = query(fileOf(fd), address)
  if (answer === -ENOTTY || answer === -EINVAL) return 'unsupported'
  if (answer < 0) return undefined
  const { u32 } = workArena()
  return {
    start: u32[Query.START >> 2] + u32[(Query.START >> 2) + 1] * TWO_32,
    end: u32[Query.END >> 2] + u32[(Query.END >> 2) + 1] * TWO_32,
    device: `${u32[Query.MAJOR >> 2]}:${u32[Query.MINOR >> 2]}`,
    isShared: (u32[Query.RIGHTS >> 2] & SHARED) !== 0,
  }
}

/** Adds the ranges of whole lines of a maps file: start, end, rights. */
const addRanges = (lines: string, ranges: number[]): void => {
  for (let at = 0; at < lines.length; at = lines.indexOf('\n', at) + 1) {
    const dash = lines.indexOf('-', at)
    const space = lines.indexOf(' ', dash)
    ranges.push(
      Number.parseInt(lines.slice(at, dash), 16),
      Number.parseInt(lines.slice(dash + 1, space), 16),
      (lines[space + 1] === 'r' ? Rights.READ : 0) | (lines[space + 2] === 'w' ? Rights.WRITE : 0),
    )
  }
}

/** Ranges of a maps file, ascending. The kernel generates its text while it is read. Throws as the system does. */
function* readRanges(file: MapsFile): Generator<undefined, readonly number[]> {
  const ranges: number[] = []
  let begun = ''
  let offset = 0
  for (let read = 0; ; ) {
    const length = file.read(offset, { arena: workArena(), at: 0, length: SLICE.bytes })
    if (length < 0) throw new SystemError('read', length, 'a maps file')
    if (length === 0) return ranges
    const text = begun + Buffer.from(workArena().buffer, 0, length).toString('latin1')
    const end = text.lastIndexOf('\n') + 1
    addRanges(text.slice(0, end), ranges)
    begun = text.slice(end)
    offset += length
    read += length
    if (read < SLICE.bytes) continue
    read = 0
    yield
  }
}

/** Whether ascending ranges permit `rights` for all of [start, end). */
const permit = (ranges: readonly number[], start: number, end: number, rights: number): boolean => {
  let reached = start
  for (let i = 0; i < ranges.length; i += 3) {
    const to = ranges[i + 1]
    if (to <= reached) continue
    if (ranges[i] > reached || (ranges[i + 2] & rights) !== rights) return false
    reached = to
    if (reached >= end) return true
  }
  return false
}

/** Runs a generator to its end immediately. */
const atOnce = <T>(search: Generator<undefined, T>): T => {
  for (;;) {
    const { done, value } = search.next()
    if (done) return value
  }
}

/** By the text of the maps file, which every Linux has. */
export const textRanges = (pid: number, guest?: Guest): MappedRanges => {
  let ranges: readonly number[] = []
  let queries = -1
  /** Reads the ranges, for the turn in which that is finished; false for a process that has ended. */
  function* renew(turn: () => number): Generator<undefined, boolean> {
    let file: MapsFile | undefined
    try {
      file = guest ? guestMaps(guest) : openMaps(pid)
      ranges = yield* readRanges(file)
    } catch {
      return false
    } finally {
      file?.close()
    }
    queries = turn()
    return true
  }
  return {
    permits: (start, end, rights, turn) =>
      (queries === turn || atOnce(renew(() => turn))) && permit(ranges, start, end, rights),
    *search(start, end, rights, turn) {
      return (queries === turn() || (yield* renew(turn))) && permit(ranges, start, end, rights)
    },
    close() {
      ranges = []
      queries = -1
    },
  }
}

/**
 * By the ioctl; undefined where the kernel does not support it, or the file may not be read. Holds the file open, which
 * keeps referring to the address space of the program that the process runs now.
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
  function* walk(start: number, end: number, rights: number): Generator<undefined, boolean> {
    const { u32 } = workArena()
    let reached = start
    // At least one query: far beyond user space a Number's end can equal its start.
    for (let queries = 1; ; queries++) {
      if (query(file, reached) < 0 || (u32[Query.RIGHTS >> 2] & rights) !== rights) return false
      reached = u32[Query.END >> 2] + u32[(Query.END >> 2) + 1] * TWO_32
      if (reached >= end) return true
      if (queries % SLICE.queries === 0) yield
    }
  }
  /** Result of a query, valid for its turn. */
  let known: { start: number; end: number; rights: number; turn: number; permits: boolean } | undefined
  return {
    permits(start, end, rights, turn) {
      const found = known
      if (found?.turn === turn && found.start === start && found.end === end && found.rights === rights)
        return found.permits
      return atOnce(walk(start, end, rights))
    },
    *search(start, end, rights, turn) {
      const permits = yield* walk(start, end, rights)
      known = { start, end, rights, turn: turn(), permits }
      return permits
    },
    close: () => file.close(),
  }
}

/** The ranges of a process that the caller has checked to be the right one, by the fastest method of the kernel. */
export const mappedRanges = (pid: number, guest?: Guest): MappedRanges =>
  queriedRanges(pid, guest) ?? textRanges(pid, guest)
