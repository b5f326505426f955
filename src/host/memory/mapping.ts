/*
 * Memory visible to JavaScript and the kernel: arenas of this process, and parts of memory files shared with others.
 *
 * Two rules prevent crashes:
 * - An address range with an ArrayBuffer is never unmapped: an access through a remaining view would fault. So new
 *   anonymous pages are mapped over a released range, and the range is reused.
 * - A file is mapped only if it cannot shrink: an access behind its end raises SIGBUS. So it must have SEAL_SHRINK and
 *   be long enough.
 */
import { constants } from 'node:buffer'
import { fstatSync } from 'node:fs'
import { EINVAL, ENOMEM, EPERM, SystemError } from '../errno.ts'
import { koffi, lastErrno, libcFunctions } from '../native.ts'
import { SEAL_SHRINK, sealsOf } from './memfd.ts'

const sys = libcFunctions({
  mmap: 'int64_t mmap(int64_t address, uint64_t length, int protection, int flags, int fd, int64_t offset)',
  madvise: 'int madvise(int64_t address, uint64_t length, int advice)',
  mincore: 'int mincore(int64_t address, uint64_t length, int64_t resident)',
  getpagesize: 'int getpagesize()',
})

const PROT_READ = 1
const PROT_READ_WRITE = 3
const MAP_SHARED = 1
const MAP_PRIVATE = 2
const MAP_FIXED = 0x10
const MAP_ANONYMOUS = 0x20
const MAP_NORESERVE = 0x4000
const MADV_DONTNEED = 4
const ANONYMOUS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE

/** Memory with a fixed address, and its views. `address` is below 2^53. */
export interface Arena {
  readonly address: number
  readonly length: number
  /** Of an arena of `mapArena`, exactly its bytes; of a `Mapping`, also others' bytes. */
  readonly buffer: ArrayBufferLike
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly i32: Int32Array
  readonly u32: Uint32Array
}

const mmap = (
  address: number,
  length: number,
  flags: number,
  fd: number,
  offset: number,
  protection = PROT_READ_WRITE,
): number => {
  const result = sys().mmap(address, length, protection, flags, fd, offset)
  if (result === -1) {
    const source = fd < 0 ? 'of anonymous memory' : `of fd ${fd} at offset ${offset}`
    throw new SystemError('mmap', lastErrno(), `${length} bytes ${source} (see vm.max_map_count if ENOMEM)`)
  }
  return result
}

/** Bytes of the system's pages: 4 KiB, on arm64 also 16 or 64 KiB. */
export const pageSize = (() => {
  let size = 0
  return () => {
    if (size === 0) size = sys().getpagesize()
    return size
  }
})()

const roundUp = (length: number, unit: number): number => Math.ceil(length / unit) * unit

/** `length` bytes of `buffer`, which is at `bufferAddress`, from byte `at`. */
const partOf = (buffer: ArrayBufferLike, bufferAddress: number, at: number, length: number): Arena => ({
  address: bufferAddress + at,
  length,
  buffer,
  bytes: new Uint8Array(buffer, at, length),
  view: new DataView(buffer, at, length),
  i32: new Int32Array(buffer, at, length / 4),
  u32: new Uint32Array(buffer, at, length / 4),
})

const requireArrayLength = (length: number): void => {
  if (length > constants.MAX_LENGTH)
    throw new SystemError('mmap', ENOMEM, `${length} bytes; an array has at most ${constants.MAX_LENGTH}`)
}

/** Maps zeroed private memory. Throws SystemError ENOMEM, also if a view of `length` bytes is too large for V8. */
const mapAnonymous = (length: number): Arena => {
  requireArrayLength(length)
  const address = mmap(0, length, ANONYMOUS, -1, 0)
  return partOf(koffi().view(address, length), address, 0, length)
}

/** Released arenas, by length. */
const releasedArenas = new Map<number, Arena[]>()

/**
 * Zeroed private memory of at least `bytes` bytes, rounded up to pages, until `releaseArena`. A page uses memory from
 * its first write on. Throws SystemError (ENOMEM), and RangeError if the size is not a positive integer.
 */
export const mapArena = (bytes: number): Arena => {
  if (!Number.isSafeInteger(bytes) || bytes <= 0)
    throw new RangeError(`arena size is ${bytes}; it must be a positive integer`)
  const length = roundUp(bytes, pageSize())
  return releasedArenas.get(length)?.shift() ?? mapAnonymous(length)
}

/** Frees the memory of an arena. Its views show zeros, and later another arena of this length. */
export const releaseArena = (arena: Arena): void => {
  const { address, length } = arena
  mmap(address, length, ANONYMOUS | MAP_FIXED, -1, 0)
  const released = releasedArenas.get(length)
  if (released) released.push(arena)
  else releasedArenas.set(length, [arena])
}

/**
 * The address of an array's bytes, valid while the array is referenced and its buffer is not transferred; 0n for an
 * empty array. Reading `buffer` first moves a small array off V8's heap, where garbage collection could move it.
 */
export const addressOf = (bytes: Uint8Array): bigint => {
  if (bytes.buffer.byteLength === 0 || bytes.length === 0) return 0n
  return BigInt(koffi().address(bytes))
}

/**
 * A part of a file, mapped shared. The views span the whole range, whose size is a power of two: first the `length`
 * bytes of the file, rounded up to a page, then private pages. After release the views show zeros, and later another
 * file, so they must not be kept.
 */
export interface Mapping extends Omit<Arena, 'length'> {
  /** Bytes of the file, not of the range. */
  readonly length: number
}

/** Bytes of a file of which `zeroResident` asks at a time. */
const ASKED_BYTES = 2 ** 22
let residentPages: Arena | undefined

/**
 * Zeroes the pages of a range of a mapping that are in memory; the others are holes of the file, and stay so. Takes no
 * lock of the file. `at`, `length`: whole pages. Returns the number of bytes that were in memory.
 */
export const zeroResident = ({ address, bytes }: Mapping, at: number, length: number): number => {
  const page = pageSize()
  residentPages ??= mapArena(ASKED_BYTES / page)
  let zeroed = 0
  for (let from = at; from < at + length; from += ASKED_BYTES) {
    const asked = Math.min(ASKED_BYTES, at + length - from)
    // If the kernel does not tell, all may be.
    if (sys().mincore(address + from, asked, residentPages.address) !== 0) residentPages.bytes.fill(1)
    for (let i = 0; i < asked / page; i++) {
      if ((residentPages.bytes[i]! & 1) === 0) continue
      bytes.fill(0, from + i * page, from + (i + 1) * page)
      zeroed += page
    }
  }
  return zeroed
}

/** This process gives up its page table entries of a range, not the file its pages: so a later release is short. */
export const dropEntries = ({ address }: Mapping, at: number, length: number): void => {
  sys().madvise(address + at, length, MADV_DONTNEED)
}

interface RingPoolCounters {
  /** Ranges with a file. */
  readonly mapped: number
  /** Bytes of files mapped now, in whole pages. */
  readonly mappedBytes: number
  /** Ranges that wait for reuse; they use address space but no memory. */
  readonly idle: number
}

interface FilePart {
  readonly offset: number
  readonly length: number
}

export interface RingPool {
  /**
   * Maps `length` bytes of `fd` from `offset`, a multiple of the page size; 'read': read-only, so that a write ends the
   * process (SIGSEGV). The fd may be closed afterwards. Throws SystemError: EINVAL if offset or length do not fit the
   * file or `fd` is no memory file, EPERM if the file may shrink, or is sealed against writing and mapped for writing.
   * ENOMEM as `mapArena`.
   */
  map(fd: number, offset: number, length: number, access?: 'read' | 'write'): Mapping
  /** The same for several parts of the file, one behind the other, of whole pages. */
  mapParts(fd: number, parts: readonly FilePart[], access?: 'read' | 'write'): Mapping
  /** Unmaps the file, and keeps the range for reuse. Throws an Error if the pool does not have the mapping. */
  release(mapping: Mapping): void
  readonly counters: RingPoolCounters
}

const requireMappable = (fd: number, offset: number, length: number): void => {
  if (!Number.isSafeInteger(length) || length <= 0) {
    throw new SystemError('mmap', EINVAL, `length ${length}; it must be a positive integer`)
  }
  if (!Number.isSafeInteger(offset) || offset < 0 || offset % pageSize() !== 0) {
    throw new SystemError('mmap', EINVAL, `offset ${offset}; it must be a multiple of ${pageSize()}`)
  }
  const seals = sealsOf(fd)
  if (seals < 0) throw new SystemError('fcntl(F_GET_SEALS)', -seals, `fd ${fd} is not a memory file`)
  if ((seals & SEAL_SHRINK) === 0) throw new SystemError('mmap', EPERM, `fd ${fd} is not sealed against shrinking`)
  const { size } = fstatSync(fd)
  if (offset + length > size) {
    throw new SystemError('mmap', EINVAL, `bytes ${offset} to ${offset + length} of a file of ${size} bytes`)
  }
}

/**
 * Bytes of an area, of which a pool takes its ranges, so that its ranges are neighbours. A larger range has its own
 * area.
 */
const AREA = { smallest: 2 ** 22, largest: 2 ** 30 }

/** All areas. V8 would free the memory of one that nothing refers to, with the files that are mapped over it. */
const areas: SharedArrayBuffer[] = []

/**
 * Address space for files. V8 allocates it, in a SharedArrayBuffer, whose bytes it does not count as used memory: for
 * 64 MiB of ArrayBuffers it collects garbage for up to 20 ms (docs/decisions/rings.md). Throws as `mapAnonymous`.
 */
const mapArea = (length: number): Arena => {
  const page = pageSize()
  requireArrayLength(length + page)
  let area: SharedArrayBuffer
  try {
    area = new SharedArrayBuffer(length + page)
  } catch {
    throw new SystemError('mmap', ENOMEM, `${length} bytes of anonymous memory`)
  }
  areas.push(area)
  const allocated = Number(koffi().address(new Uint8Array(area)))
  const address = roundUp(allocated, page)
  mmap(address, length, ANONYMOUS | MAP_FIXED, -1, 0)
  return partOf(area, allocated, address - allocated, length)
}

/** A pool of address ranges for shared memory. */
export const createRingPool = (): RingPool => {
  const idle = new Map<number, Arena[]>()
  const inUse = new Map<Mapping, Arena>()
  let mappedBytes = 0
  let idleCount = 0
  let area: Arena | undefined
  /** Bytes of `area` that were taken, and bytes of all areas. */
  let takenBytes = 0
  let areaBytes = 0

  const newRange = (size: number): Arena => {
    if (size > AREA.largest) return mapArea(size)
    if (area === undefined || takenBytes + size > area.length) {
      area = mapArea(Math.max(size, AREA.smallest, Math.min(areaBytes, AREA.largest)))
      areaBytes += area.length
      takenBytes = 0
    }
    takenBytes += size
    return partOf(area.buffer, area.address - area.bytes.byteOffset, area.bytes.byteOffset + takenBytes - size, size)
  }

  const takeRange = (size: number): Arena => {
    // Oldest first, so that a stale view shows zeros for as long as possible.
    const range = idle.get(size)?.shift()
    if (!range) return newRange(size)
    idleCount--
    return range
  }

  const putRange = (range: Arena): void => {
    const ranges = idle.get(range.length)
    if (ranges) ranges.push(range)
    else idle.set(range.length, [range])
    idleCount++
  }

  const mapParts = (fd: number, parts: readonly FilePart[], access: 'read' | 'write' = 'write'): Mapping => {
    let length = 0
    for (const part of parts) {
      requireMappable(fd, part.offset, part.length)
      length += part.length
    }
    const fileBytes = roundUp(length, pageSize())
    const range = takeRange(2 ** Math.ceil(Math.log2(fileBytes)))
    const protection = access === 'read' ? PROT_READ : PROT_READ_WRITE
    try {
      let at = range.address
      for (const part of parts) {
        const partBytes = roundUp(part.length, pageSize())
        mmap(at, partBytes, MAP_SHARED | MAP_FIXED, fd, part.offset, protection)
        at += partBytes
      }
    } catch (error) {
      // A failed MAP_FIXED may have unmapped the old pages: the range must be covered before it can be read again.
      mmap(range.address, range.length, ANONYMOUS | MAP_FIXED, -1, 0)
      putRange(range)
      throw error
    }
    const mapping: Mapping = { ...range, length }
    inUse.set(mapping, range)
    mappedBytes += fileBytes
    return mapping
  }

  return {
    map: (fd, offset, length, access) => mapParts(fd, [{ offset, length }], access),
    mapParts,
    release(mapping) {
      const range = inUse.get(mapping)
      if (!range) throw new Error('release of a mapping that this pool does not hold (released twice?)')
      // The whole range, because private pages behind the file may have been written.
      mmap(range.address, range.length, ANONYMOUS | MAP_FIXED, -1, 0)
      inUse.delete(mapping)
      mappedBytes -= roundUp(mapping.length, pageSize())
      putRange(range)
    },

    get counters() {
      return { mapped: inUse.size, mappedBytes, idle: idleCount }
    },
  }
}
