/*
 * Memory that a context's client can map (R28): rings, queues, whatever a driver shares with it. The carrier of
 * the context provides it (a memory file of which the client has the descriptor); a caller in this process needs
 * no mapping and gets plain memory. Nothing is known here of files, processes or layouts.
 */
import { wholePages } from '../../spec/memory.ts'

/** Consecutive bytes `at` … `at + length` of a larger shared piece, whose views many drivers' pieces use. */
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
  /** There if the client finds what lies apart: a piece may hold many things of a driver, which counts them here. */
  readonly packed?: { count: number } | undefined
  /** Zeroed, rounded up to pages. Throws CallError ENOMEM when the context may have no more. */
  allocate(bytes: number): MappedChunk
  free(piece: MappedChunk): void
  /** The device goes: what is freed from now on stays as it is for the client, until that closes the context. */
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

/** Memory of callers in this process, one buffer for each piece. Their offsets name nothing. */
export const bufferMemory = (): MappedMemory => ({
  allocate: bytes => plainPiece(bytes, 0),
  free() {},
})

/** The same with offsets by which pieces are found: for callers that get at their rings by what calls answer. */
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

/** What the client of this context can map. */
export const mappedMemoryOf = (context: { readonly mapped: MappedMemory | undefined }): MappedMemory =>
  context.mapped ?? plain
