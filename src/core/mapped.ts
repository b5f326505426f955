/*
 * Memory that a context's client can map (R28): rings, queues, whatever a driver shares with it. The carrier of
 * the context provides it (a memory file of which the client has the descriptor); a caller in this process needs
 * no mapping and gets plain memory. Nothing is known here of files, processes or layouts.
 */
import { wholePages } from '../spec/memory.ts'

/** Consecutive bytes `at` … `at + length` of a larger shared piece, whose views many drivers' pieces use. */
export interface MappedPiece {
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
  /** Zeroed, rounded up to pages. Throws CallError ENOMEM when the context may have no more. */
  allocate(bytes: number): MappedPiece
  free(piece: MappedPiece): void
}

/** Memory of callers in this process, one buffer for each piece. Their offsets name nothing. */
export const plainMemory = (): MappedMemory => ({
  allocate(bytes) {
    const length = wholePages(bytes)
    const buffer = new ArrayBuffer(length)
    return {
      offset: 0,
      length,
      at: 0,
      bytes: new Uint8Array(buffer),
      view: new DataView(buffer),
      words: new Int32Array(buffer),
    }
  },
  free() {},
})

const plain = plainMemory()

/** What the client of this context can map. */
export const mappedOf = (context: { readonly mapped: MappedMemory | undefined }): MappedMemory =>
  context.mapped ?? plain
