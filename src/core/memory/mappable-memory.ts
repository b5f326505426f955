/*
 * Memory that a context's client can map (R28): rings, queues, and other memory shared by a driver. The context's
 * carrier provides it (a memory file whose descriptor the client has); a caller in this process needs no mapping and
 * gets plain memory.
 */
import { wholePages } from '../../spec/memory.ts'

/** Consecutive bytes `at` … `at + length` of a larger shared piece. */
export interface MappedChunk {
  /** The offset at which the client maps it. */
  readonly offset: number
  /** Bytes that may be mapped, a multiple of the page size. */
  readonly length: number
  readonly at: number
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly words: Int32Array
}

export interface MappedMemory {
  /**
   * Present if the client can find parts by offset: a driver may then put many objects into one piece, and counts them
   * here.
   */
  readonly packed?: { count: number } | undefined
  /** Zeroed, rounded up to pages. Throws CallError ENOMEM when the context's quota is used. */
  allocate(bytes: number): MappedChunk
  free(piece: MappedChunk): void
  /** The device is removed: freed memory stays as it is for the client, until it closes the context. */
  keep?(): void
}

const plainPiece = (bytes: number, offset: number): MappedChunk => {
  const length = wholePages(bytes)
  const buffer = new ArrayBuffer(length)
  return {
    offset,
    length,
    at: 0,
    bytes: new Uint8Array(buffer),
    view: new DataView(buffer),
    words: new Int32Array(buffer),
  }
}

/** Memory of callers in this process, one buffer for each piece, without offsets. */
export const bufferMemory = (): MappedMemory => ({
  allocate: bytes => plainPiece(bytes, 0),
  free() {},
})

/** The same with offsets, for callers that find their rings by what calls return. */
export interface FindableMemory extends MappedMemory {
  /** The piece at an offset. Throws an Error if none lies there. */
  at(offset: bigint): MappedChunk
}

export const findableMemory = (): FindableMemory => {
  const pieces = new Map<number, MappedChunk>()
  let next = 0
  return {
    allocate(bytes) {
      const piece = plainPiece(bytes, next)
      pieces.set(next, piece)
      next += piece.length
      return piece
    },
    free({ offset }) {
      pieces.delete(offset)
    },
    at(offset) {
      const piece = pieces.get(Number(offset))
      if (piece === undefined) throw new Error(`no ring lies at ${offset}`)
      return piece
    },
  }
}

const plain = bufferMemory()

/** The memory that the client of this context can map. */
export const mappedMemoryOf = (context: { readonly mapped: MappedMemory | undefined }): MappedMemory =>
  context.mapped ?? plain
