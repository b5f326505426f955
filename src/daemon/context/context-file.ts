/*
 * The memory file of a context: the program's uverbs descriptor, with the rings at the offsets at which the program
 * maps them.
 *
 * The file is sized once, sparse and sealed, so that no program can cause a SIGBUS here by truncating it
 * (docs/decisions/context-file.md). The first page is unused, so that a stray write(2) damages no ring. A freed range
 * is reused for rings of the same size. Its memory is returned once its chunk has no rings left; a program that still
 * maps a freed range sees zeros or its own later rings, never another process's.
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
 * Rings share mappings of this size, because a process has some ten thousand mappings at most, and mapping dominates
 * the cost of creating a queue. A larger ring has its own mapping.
 */
const { chunk: CHUNK } = ContextFile

export interface ContextMemory extends MappedMemory {
  readonly fd: number
  /** Identifies the file in every process: device and inode. */
  readonly dev: number
  readonly inode: number
  /** Current rings, and their bytes. */
  readonly live: number
  readonly used: number
  /** A new descriptor of the file for a program; the caller passes it on and closes it. Throws as `openHeld`. */
  share(): number
  /** Whether any program has a descriptor, or one is in transit. */
  readonly isHeld: boolean
  /** Releases everything; no range may be used afterwards. */
  close(): void
}

interface Chunk {
  readonly offset: number
  readonly length: number
  readonly mapping: Mapping
  /** Offset of the next new range, and freed ranges by length. */
  next: number
  readonly free: Map<number, number[]>
  live: number
}

/** `isPacked`: many rings may share a range (MappedMemory). */
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
  let next: number = ContextFile.firstRing
  let used = 0
  let kept = false

  const addChunk = (length: number): Chunk => {
    let offset = holes.get(length)?.pop()
    if (offset === undefined) {
      if (next + length > EventLog.offset)
        throw new CallError(
          'ENOMEM',
          `a ring of ${length} bytes: the rings of one context have at most ${EventLog.offset} bytes`,
        )
      offset = next
      next += length
    }
    try {
      const mapping = pool.map(fd, offset, length)
      const chunk: Chunk = { offset, length, mapping, next: 0, free: new Map(), live: 0 }
      chunks.add(chunk)
      return chunk
    } catch (error) {
      pushTo(holes, length, offset)
      if (error instanceof SystemError) throw new CallError('ENOMEM', `a ring of ${length} bytes: ${error.message}`)
      throw error
    }
  }

  /** A freed range of this length, zeroed; undefined if there is none. */
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
    else if (!chunk || chunk.next + length > chunk.length) {
      chunk = addChunk(CHUNK)
      current = chunk
    }
    const at = chunk.next
    chunk.next += length
    return { chunk, at }
  }

  const dropChunk = (chunk: Chunk): void => {
    for (const length of chunk.free.keys()) reusable.get(length)?.delete(chunk)
    if (current === chunk) current = undefined
    pool.release(chunk.mapping)
    chunks.delete(chunk)
    punchHole(fd, chunk.offset, chunk.length)
    pushTo(holes, chunk.length, chunk.offset)
  }

  const { dev, ino } = fileIdentity(fd)
  return {
    fd,
    packed,
    dev,
    inode: ino,
    get live() {
      return packed?.count ?? chunkOf.size
    },
    get used() {
      return used
    },
    share: () => openHeld(fd),
    get isHeld() {
      return isHeld(fd)
    },
    allocate(bytes) {
      const length = wholePages(bytes)
      const { chunk, at } = reuse(length) ?? allocateNew(length)
      const { bytes: all, view, i32 } = chunk.mapping
      const piece: MappedChunk = { offset: chunk.offset + at, length, at, bytes: all, view, words: i32 }
      chunkOf.set(piece, chunk)
      chunk.live++
      used += length
      return piece
    },
    free(piece) {
      const chunk = chunkOf.get(piece)
      if (!chunk) throw new Error('the ring does not belong to this context, or was freed before')
      chunkOf.delete(piece)
      used -= piece.length
      chunk.live--
      if (kept) return
      if (chunk.live === 0) {
        dropChunk(chunk)
        return
      }
      pushTo(chunk.free, piece.length, piece.at)
      const known = reusable.get(piece.length)
      if (known) known.add(chunk)
      else reusable.set(piece.length, new Set([chunk]))
    },
    keep() {
      kept = true
    },
    close() {
      for (const chunk of chunks) pool.release(chunk.mapping)
      chunks.clear()
      chunkOf.clear()
      if (packed !== undefined) packed.count = 0
      reusable.clear()
      current = undefined
      used = 0
      close(fd)
    },
  }
}

const pushTo = (map: Map<number, number[]>, length: number, value: number): void => {
  const values = map.get(length)
  if (values) values.push(value)
  else map.set(length, [value])
}
