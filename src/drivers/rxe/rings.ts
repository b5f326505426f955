/*
 * One ring in memory that a hostile program shares: geometry, allocation and the two indices
 * (spec/drivers/rxe-rings.ts).
 *
 * The device trusts nothing that it reads back: size and mask are its own copies, its own index lives here and is only
 * published, and the program's index is masked at every look. Indices are read and published with Atomics, which order
 * them against the elements.
 */
import type { MappedMemory, MappedPiece } from '../../core/mapped.ts'
import { MIN_ELEMENT, RingHeader } from '../../spec/drivers/rxe-rings.ts'

/** Memory that the program can map. */
export type { MappedMemory as RingMemory, MappedPiece as RingPiece }

export interface Ring {
  readonly piece: MappedPiece
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly words: Int32Array
  readonly mask: number
  readonly log2: number
  /** Byte offset of the first element, word offsets of the two indices. */
  readonly data: number
  readonly producer: number
  readonly consumer: number
}

const log2Above = (n: number): number => Math.max(0, 32 - Math.clz32(n - 1))

/** Slots minus one of a ring that holds at least `elements`. */
export const ringMask = (elements: number): number => 2 ** log2Above(elements + 1) - 1

/** A ring for at least `elements` elements of at least `elementBytes` bytes, zeroed but for its header. */
export const createRing = (memory: MappedMemory, elements: number, elementBytes: number): Ring => {
  const log2 = log2Above(Math.max(elementBytes, MIN_ELEMENT))
  const mask = ringMask(elements)
  const piece = memory.allocate(RingHeader.DATA + (mask + 1) * 2 ** log2)
  const { at, bytes, view, words } = piece
  view.setUint32(at + RingHeader.LOG2_ELEMENT, log2, true)
  view.setUint32(at + RingHeader.INDEX_MASK, mask, true)
  return {
    piece,
    bytes,
    view,
    words,
    mask,
    log2,
    data: at + RingHeader.DATA,
    producer: (at + RingHeader.PRODUCER) >> 2,
    consumer: (at + RingHeader.CONSUMER) >> 2,
  }
}

/** Byte offset of the element with index `index` (any integer; it is masked). */
export const elementAt = (ring: Ring, index: number): number => ring.data + ((index & ring.mask) << ring.log2)

export const loadProducer = (ring: Ring): number => Atomics.load(ring.words, ring.producer) & ring.mask
export const loadConsumer = (ring: Ring): number => Atomics.load(ring.words, ring.consumer) & ring.mask
export const storeProducer = (ring: Ring, index: number): void => {
  Atomics.store(ring.words, ring.producer, index & ring.mask)
}
export const storeConsumer = (ring: Ring, index: number): void => {
  Atomics.store(ring.words, ring.consumer, index & ring.mask)
}
/** Empties a ring, for the program too. */
export const clearRing = (ring: Ring): void => {
  storeProducer(ring, 0)
  storeConsumer(ring, 0)
}
