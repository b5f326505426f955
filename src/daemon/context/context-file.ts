/*
 * The memory file of a context. The program has it as its uverbs descriptor, and maps rings (queues shared with the
 * driver) at the offsets at which they lie in the file.
 *
 * The file is sized once, sparse and sealed, so that no program can cause a SIGBUS here by truncating it
 * (docs/decisions/context-file.md). The first page is unused, so that a stray write(2) damages no ring. A freed range
 * is reused for rings of the same size. Its memory is returned once its chunk has no rings left; a program that still
 * maps a freed range sees zeros or later rings of the same context, never those of another.
 */

import type { MappedChunk, MappedMemory } from '../../core/memory/mappable-memory.ts'
import { SystemError } from '../../host/errno.ts'
import type { Mapping, RingPool } from '../../host/memory/mapping.ts'
import {
  addSeals,
  createMemfd,
  fileIdentity,
  isHeld,
  openHeld,
  punchHole,
  SEAL_GROW,
  SEAL_SEAL,
  SEAL_SHRINK,
} from '../../host/memory/memfd.ts'
import { close } from '../../host/net/sockets.ts'
import { CallError } from '../../spec/errno.ts'
import { wholePages } from '../../spec/memory.ts'
import { ContextFile, EventLog } from '../../spec/session.ts'

/** The name by which the shim recognises our memory files among inherited descriptors. */
const NAME = 'userdma-context'
/**
 * Rings share mappings of this size, because a process has at most 65,530 mappings (vm.max_map_count), and mapping
 * dominates the cost of creating a queue. A larger ring has its own mapping.
 */
const { chunk: CHUNK } = ContextFile

export interface ContextMemory extends MappedMemory {
  readonly fd: number
  /** Identifies the file in every process: device and inode. */
  readonly dev: number
  readonly inode: number
  /** Number of rings in use, and bytes of the ranges that contain them. */
  readonly ringCount: number
  readonly ringBytes: number
  /** A new descriptor of the file for a program; the caller passes it on and closes it. Throws as `openHeld`. */
  share(): number
  /** Whether any program has a descriptor or mapping of the file, or a descriptor is in transit between programs. */
  readonly isHeld: boolean
  /** Releases everything; no range may be used afterwards. */
  close(): void
}

/** A part of the file that is mapped as a whole, for many ranges. */
interface Chunk {
  /** Offset in the file. */
  readonly offset: number
  readonly length: number
  readonly mapping: Mapping
  /** Offset in the chunk of the next new range. */
  nextOffset: number
  /** Offsets in the chunk of freed ranges, by length. */
  readonly free: Map<number, number[]>
  /** Number of ranges in use. */
  live: number
}

/** `isPacked`: the driver may put many rings into one range (`MappedMemory.packed`). */
export const createContextMemory = (pool: RingPool, isPacked = false): ContextMemory => {
  const packed = isPacked ? { count: 0 } : undefined
  const fd = createMemfd(NAME, ContextFile.bytes)
  addSeals(fd, SEAL_SHRINK | SEAL_GROW | SEAL_SEAL)
  const chunks = new Set<Chunk>()
  const chunkOf = new Map<MappedChunk, Chunk>()
  /** Chunks with freed ranges, by length. */
  const reusable = new Map<number, Set<Chunk>>()
  /** File offsets of released chunks, by length. They are holes, which read as zeros and use no memory. */
  const holes = new Map<number, number[]>()
  /** The chunk from which new ranges are allocated. */
  let current: Chunk | undefined
  /** Offset in the file of the next new chunk. */
  let nextOffset: number = ContextFile.firstRing
  let ringBytes = 0
  /** Whether freed ranges are not reused any more (`keep`). */
  let isKept = false

  const addChunk = (length: number): Chunk => {
    let offset = holes.get(length)?.pop()
    if (offset === undefined) {
      if (nextOffset + length > EventLog.offset)
        throw new CallError(
          'ENOMEM',
          `a ring of ${length} bytes: the rings of one context have at most ${EventLog.offset} bytes`,
        )
      offset = nextOffset
      nextOffset += length
    }
    try {
      const mapping = pool.map(fd, offset, length)
      const chunk: Chunk = { offset, length, mapping, nextOffset: 0, free: new Map(), live: 0 }
      chunks.add(chunk)
      return chunk
    } catch (error) {
      appendTo(holes, length, offset)
      if (error instanceof SystemError) throw new CallError('ENOMEM', `a ring of ${length} bytes: ${error.message}`)
      throw error
    }
  }

  /** A freed range of this length, zeroed; undefined if there is none. `at`: offset in the chunk. */
  const reuse = (length: number): { chunk: Chunk; at: number } | undefined => {
    const [chunk] = reusable.get(length) ?? []
    if (!chunk) return undefined
    const freed = chunk.free.get(length) as number[]
    const at = freed.pop() as number
    if (freed.length === 0) {
      chunk.free.delete(length)
      reusable.get(length)?.delete(chunk)
    }
    chunk.mapping.bytes.fill(0, at, at + length)
    return { chunk, at }
  }

  /** A new range. The file's pages are zero and take memory when first touched. */
  const allocateNew = (length: number): { chunk: Chunk; at: number } => {
    let chunk = current
    if (length > CHUNK) chunk = addChunk(length)
    else if (!chunk || chunk.nextOffset + length > chunk.length) {
      chunk = addChunk(CHUNK)
      current = chunk
    }
    const at = chunk.nextOffset
    chunk.nextOffset += length
    return { chunk, at }
  }

  const dropChunk = (chunk: Chunk): void => {
    for (const length of chunk.free.keys()) reusable.get(length)?.delete(chunk)
    if (current === chunk) current = undefined
    pool.release(chunk.mapping)
    chunks.delete(chunk)
    punchHole(fd, chunk.offset, chunk.length)
    appendTo(holes, chunk.length, chunk.offset)
  }

  const { dev, ino } = fileIdentity(fd)
  return {
    fd,
    packed,
    dev,
    inode: ino,
    get ringCount() {
      return packed?.count ?? chunkOf.size
    },
    get ringBytes() {
      return ringBytes
    },
    share: () => openHeld(fd),
    get isHeld() {
      return isHeld(fd)
    },
    allocate(bytes) {
      const length = wholePages(bytes)
      const { chunk, at } = reuse(length) ?? allocateNew(length)
      const { bytes: all, view, i32 } = chunk.mapping
      const range: MappedChunk = { offset: chunk.offset + at, length, at, bytes: all, view, words: i32 }
      chunkOf.set(range, chunk)
      chunk.live++
      ringBytes += length
      return range
    },
    free(range) {
      const chunk = chunkOf.get(range)
      if (!chunk) throw new Error('the ring does not belong to this context, or was freed before')
      chunkOf.delete(range)
      ringBytes -= range.length
      chunk.live--
      if (isKept) return
      if (chunk.live === 0) {
        dropChunk(chunk)
        return
      }
      appendTo(chunk.free, range.length, range.at)
      const chunksOfLength = reusable.get(range.length)
      if (chunksOfLength) chunksOfLength.add(chunk)
      else reusable.set(range.length, new Set([chunk]))
    },
    keep() {
      isKept = true
    },
    close() {
      for (const chunk of chunks) pool.release(chunk.mapping)
      chunks.clear()
      chunkOf.clear()
      if (packed !== undefined) packed.count = 0
      reusable.clear()
      current = undefined
      ringBytes = 0
      close(fd)
    },
  }
}

const appendTo = (map: Map<number, number[]>, length: number, value: number): void => {
  const values = map.get(length)
  if (values) values.push(value)
  else map.set(length, [value])
}
