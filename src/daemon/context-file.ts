/*
 * A context's memory file: what a program holds as its uverbs descriptor, with the rings at the offsets at which it maps them.
 *
 * The file is sized once, sparse and sealed, so that no program can make us fault by shrinking it (design.md section 6). The first page stays
 * unused, so that a stray write(2) on the descriptor hits no ring. Freed pieces are given back to the system and reused for rings of the same
 * size; a program that still maps a freed piece sees its own later rings there, never another process's.
 */

import type { RingMemory, RingPiece } from '../drivers/rxe/rings.ts'
import type { Mapping, RingPool } from '../host/mapping.ts'
import { addSeals, createMemfd, fileIdentity, SEAL_GROW, SEAL_SEAL, SEAL_SHRINK } from '../host/memfd.ts'
import { close } from '../host/sockets.ts'
import { CallError } from '../spec/errno.ts'
import { ContextFile } from '../spec/session.ts'

/** How the shim recognises a memory file of ours among inherited descriptors. */
const NAME = 'userdma-context'
const PAGE = 4096
/** Rings share mappings of this size, since a process may have some ten thousand mappings only; a larger ring has its own. */
const CHUNK = 256 * 1024

export interface ContextMemory extends RingMemory {
  readonly fd: number
  readonly inode: number
  /** Bytes of rings that exist now. */
  readonly used: number
  /** Releases all that is left; no piece may be used afterwards. */
  close(): void
}

interface Chunk {
  readonly offset: number
  readonly length: number
  readonly mapping: Mapping
  /** Where the next new piece goes, and freed pieces by length. */
  next: number
  readonly free: Map<number, number[]>
  live: number
}

export const createContextMemory = (pool: RingPool): ContextMemory => {
  const fd = createMemfd(NAME, ContextFile.bytes)
  addSeals(fd, SEAL_SHRINK | SEAL_GROW | SEAL_SEAL)
  const chunks = new Set<Chunk>()
  const chunkOf = new Map<RingPiece, Chunk>()
  /** Places in the file of chunks that were given back, by length. */
  const places = new Map<number, number[]>()
  let next: number = ContextFile.firstRing
  let used = 0

  const addChunk = (length: number): Chunk => {
    let offset = places.get(length)?.pop()
    if (offset === undefined) {
      offset = next
      if (offset + length > ContextFile.bytes)
        throw new CallError(
          'ENOMEM',
          `a ring of ${length} bytes: all rings of one context have ${ContextFile.bytes} bytes together`,
        )
      next += length
    }
    const chunk: Chunk = { offset, length, mapping: pool.map(fd, offset, length), next: 0, free: new Map(), live: 0 }
    chunks.add(chunk)
    return chunk
  }

  const placeIn = (chunk: Chunk, length: number): number | undefined => {
    const freed = chunk.free.get(length)?.pop()
    if (freed !== undefined || chunk.next + length > chunk.length) return freed
    chunk.next += length
    return chunk.next - length
  }

  const place = (length: number): { chunk: Chunk; at: number } => {
    for (const chunk of chunks) {
      const at = placeIn(chunk, length)
      if (at !== undefined) return { chunk, at }
    }
    const chunk = addChunk(Math.max(length, CHUNK))
    chunk.next = length
    return { chunk, at: 0 }
  }

  const pushTo = (map: Map<number, number[]>, length: number, value: number): void => {
    const values = map.get(length)
    if (values) values.push(value)
    else map.set(length, [value])
  }

  const dropChunk = (chunk: Chunk): void => {
    pool.release(chunk.mapping)
    chunks.delete(chunk)
    pushTo(places, chunk.length, chunk.offset)
  }

  return {
    fd,
    inode: fileIdentity(fd).ino,
    get used() {
      return used
    },
    allocate(bytes) {
      const length = Math.ceil(bytes / PAGE) * PAGE
      const { chunk, at } = place(length)
      const { bytes: all, view, i32 } = chunk.mapping
      all.fill(0, at, at + length)
      const piece: RingPiece = { offset: chunk.offset + at, length, at, bytes: all, view, words: i32 }
      chunkOf.set(piece, chunk)
      chunk.live++
      used += length
      return piece
    },
    free(piece) {
      const chunk = chunkOf.get(piece)
      if (!chunk) throw new Error('a ring that is not of this context, or was freed before')
      chunkOf.delete(piece)
      used -= piece.length
      if (--chunk.live === 0) dropChunk(chunk)
      else pushTo(chunk.free, piece.length, piece.at)
    },
    close() {
      for (const chunk of chunks) pool.release(chunk.mapping)
      chunks.clear()
      chunkOf.clear()
      used = 0
      close(fd)
    },
  }
}
