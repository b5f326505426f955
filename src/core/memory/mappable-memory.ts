/*
 * Memory that a context's client can map (R28): rings, queues, and other memory that a driver shares. The context's
 * carrier provides it (a memory file whose descriptor the client has); a caller in this process needs no mapping and
 * gets ordinary memory.
 */
import { wholePages } from '../../spec/memory.ts'

/** The bytes `at` … `at + length` of a larger mapping. */
export interface MappedChunk {
  /** The offset at which the client maps it. */
  readonly offset: number
  /** Number of bytes that may be mapped, a multiple of the page size. */
  readonly length: number
  readonly at: number
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly words: Int32Array
}

export interface MappedMemory {
  /**
   * Defined if the client can find parts of a range by offset: a driver may then put many objects into one range, and
   * counts them here.
   */
  readonly packed?: { count: number } | undefined
  /** Zeroed memory, rounded up to pages. Throws CallError ENOMEM if the context has no more. */
  allocate(bytes: number): MappedChunk
  free(piece: MappedChunk): void
  /** The device is being removed: freed memory must stay readable for the client until it closes the context. */
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

/** Memory of callers in this process: one buffer per range, without offsets. */
export const bufferMemory = (): MappedMemory => ({
  allocate: bytes => plainPiece(bytes, 0),
  free() {},
})

/** Memory with offsets, for callers that find their rings by the offsets that calls return. */
export interface FindableMemory extends MappedMemory {
  /** The range at an offset. Throws an Error if there is none. */
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
      if (piece === undefined) throw new Error(`there is no ring at offset ${offset}`)
      return piece
    },
  }
}

const plain = bufferMemory()

/** The memory that the client of this context can map. */
export const mappedMemoryOf = (context: { readonly mapped: MappedMemory | undefined }): MappedMemory =>
  context.mapped ?? plain
