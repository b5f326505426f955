/*
 * The memory file of a context (docs/decisions/context-file.md). The program has it as its uverbs descriptor, and maps
 * rings (queues shared with the driver) from it.
 *
 * The file is sparse, and sealed, so that no program can cause a SIGBUS in the daemon by truncating it. The first page
 * is unused, so that a stray write(2) damages no ring. A freed range is reused for rings of equal size. When a chunk
 * has no rings left, its memory is returned to the system. A program that still maps a freed range sees rings of its
 * own context, or zeros.
 */

import type { MappedChunk, MappedMemory } from '../../core/memory/mappable-memory.ts'
import { SystemError } from '../../host/errno.ts'
import { type Mapping, pageSize, type RingPool } from '../../host/memory/mapping.ts'
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
import { ContextFile, EventLog, firstRingOffset, TakenCounts } from '../../spec/session.ts'

/** The name by which the shim recognises our memory files among inherited descriptors. */
const NAME = 'userdma-context'
/**
 * Rings share mappings of this size: a process has at most 65,530 mappings (vm.max_map_count), and mapping is most of
 * the cost of creating a queue. A larger ring has its own mapping.
 */
const { chunk: CHUNK } = ContextFile

/** A part of the file with one mapping, for many ranges. */
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

/** `isPacked`: see `MappedMemory.packed`. Ranges begin and end at multiples of `pageBytes`. */
export class ContextMemory implements MappedMemory {
  readonly #pool: RingPool
  readonly packed: { count: number } | undefined
  readonly fd = createMemfd(NAME, ContextFile.bytes)
  readonly #chunks = new Set<Chunk>()
  readonly #chunkOf = new Map<MappedChunk, Chunk>()
  /** Chunks with freed ranges, by length. */
  readonly #reusable = new Map<number, Set<Chunk>>()
  /** File offsets of released chunks, by length. They are holes of the file. */
  readonly #holes = new Map<number, number[]>()
  /** The chunk from which new ranges are allocated. */
  #current: Chunk | undefined
  /** Offset in the file of the next new chunk. */
  #nextOffset: number
  readonly #pageBytes: number
  #usedBytes = 0
  /** Set by `keepMapped`: freed ranges are not reused. */
  #isKept = false
  #takenCounts: Mapping | undefined
  /** Device and inode identify the file in every process. */
  readonly dev: number
  readonly inode: number

  constructor(pool: RingPool, isPacked = false, pageBytes = pageSize()) {
    this.#pool = pool
    this.#pageBytes = pageBytes
    this.#nextOffset = firstRingOffset(pageBytes)
    this.packed = isPacked ? { count: 0 } : undefined
    addSeals(this.fd, SEAL_SHRINK | SEAL_GROW | SEAL_SEAL)
    const { dev, ino } = fileIdentity(this.fd)
    this.dev = dev
    this.inode = ino
  }

  /** Number of rings in use. */
  get ringCount(): number {
    return this.packed?.count ?? this.#chunkOf.size
  }

  /** Bytes of the ranges that contain the rings in use. */
  get ringBytes(): number {
    return this.#usedBytes
  }

  /** A new descriptor of the file for a program. The caller passes it and then closes it. Throws as `openHeld`. */
  share(access?: number): number {
    return openHeld(this.fd, access)
  }

  /** Whether any program has a descriptor or mapping of the file. Descriptors in transit count too. */
  get isHeld(): boolean {
    return isHeld(this.fd)
  }

  allocate(bytes: number): MappedChunk {
    const length = wholePages(bytes, this.#pageBytes)
    const { chunk, at } = this.#reuse(length) ?? this.#allocateNew(length)
    const { bytes: all, view, i32 } = chunk.mapping
    const range: MappedChunk = { offset: chunk.offset + at, length, at, bytes: all, view, words: i32 }
    this.#chunkOf.set(range, chunk)
    chunk.live++
    this.#usedBytes += length
    return range
  }

  free(range: MappedChunk): void {
    const chunk = this.#chunkOf.get(range)
    if (!chunk) throw new Error('the ring does not belong to this context, or was freed before')
    this.#chunkOf.delete(range)
    this.#usedBytes -= range.length
    chunk.live--
    if (this.#isKept) return
    if (chunk.live === 0) {
      this.#dropChunk(chunk)
      return
    }
    appendTo(chunk.free, range.length, range.at)
    const chunksOfLength = this.#reusable.get(range.length)
    if (chunksOfLength) chunksOfLength.add(chunk)
    else this.#reusable.set(range.length, new Set([chunk]))
  }

  keepMapped(): void {
    this.#isKept = true
  }

  /** Maps the taken counts, for `takenCompletions`. Throws SystemError. */
  mapTakenCounts(): void {
    this.#takenCounts = this.#pool.map(this.fd, TakenCounts.offset, TakenCounts.entries * 4, 'read')
  }

  takenCompletions(handle: number): number {
    const counts = this.#takenCounts
    return counts === undefined || handle >= TakenCounts.entries ? 0 : Atomics.load(counts.u32, handle)
  }

  /** Releases everything; no range may be used afterwards. */
  close(): void {
    for (const chunk of this.#chunks) this.#pool.release(chunk.mapping)
    if (this.#takenCounts !== undefined) this.#pool.release(this.#takenCounts)
    this.#takenCounts = undefined
    this.#chunks.clear()
    this.#chunkOf.clear()
    if (this.packed !== undefined) this.packed.count = 0
    this.#reusable.clear()
    this.#current = undefined
    this.#usedBytes = 0
    close(this.fd)
  }

  #addChunk(length: number): Chunk {
    let offset = this.#holes.get(length)?.pop()
    if (offset === undefined) {
      if (this.#nextOffset + length > EventLog.offset)
        throw new CallError(
          'ENOMEM',
          `the rings of one context have at most ${EventLog.offset - firstRingOffset(this.#pageBytes)} bytes`,
        )
      offset = this.#nextOffset
      this.#nextOffset += length
    }
    try {
      const mapping = this.#pool.map(this.fd, offset, length)
      const chunk: Chunk = { offset, length, mapping, nextOffset: 0, free: new Map(), live: 0 }
      this.#chunks.add(chunk)
      return chunk
    } catch (error) {
      appendTo(this.#holes, length, offset)
      if (error instanceof SystemError) throw new CallError('ENOMEM', `memory for rings: ${error.message}`)
      throw error
    }
  }

  /** A freed range of this length, zeroed; undefined if none is free. `at`: offset in the chunk. */
  #reuse(length: number): { chunk: Chunk; at: number } | undefined {
    const [chunk] = this.#reusable.get(length) ?? []
    if (!chunk) return undefined
    const freed = chunk.free.get(length) as number[]
    const at = freed.pop() as number
    if (freed.length === 0) {
      chunk.free.delete(length)
      this.#reusable.get(length)?.delete(chunk)
    }
    chunk.mapping.bytes.fill(0, at, at + length)
    return { chunk, at }
  }

  #allocateNew(length: number): { chunk: Chunk; at: number } {
    let chunk = this.#current
    if (length > CHUNK) chunk = this.#addChunk(length)
    else if (!chunk || chunk.nextOffset + length > chunk.length) {
      chunk = this.#addChunk(CHUNK)
      this.#current = chunk
    }
    const at = chunk.nextOffset
    chunk.nextOffset += length
    return { chunk, at }
  }

  #dropChunk(chunk: Chunk): void {
    for (const length of chunk.free.keys()) this.#reusable.get(length)?.delete(chunk)
    if (this.#current === chunk) this.#current = undefined
    this.#pool.release(chunk.mapping)
    this.#chunks.delete(chunk)
    punchHole(this.fd, chunk.offset, chunk.length)
    appendTo(this.#holes, chunk.length, chunk.offset)
  }
}

const appendTo = (map: Map<number, number[]>, length: number, value: number): void => {
  const values = map.get(length)
  if (values) values.push(value)
  else map.set(length, [value])
}
