/*
 * The program's side of the rings that it shares with a device (spec/drivers/rxe-rings.ts): requests go in at the
 * producer's end, completions come out at the consumer's. Indices are read and published with Atomics, which order them
 * against the elements, since the device may be another process.
 */
import { RingHeader } from '../spec/drivers/rxe-rings.ts'
import type { RingBytes } from './carrier.ts'

export interface ProgramRing {
  readonly view: DataView
  readonly bytes: Uint8Array
  readonly words: Int32Array
  readonly mask: number
  readonly log2: number
  /** Byte offset of the first element, word offsets of the indices. */
  readonly data: number
  readonly producer: number
  readonly consumer: number
  /** Our own index, not masked: it only counts up. */
  index: number
}

/** A ring as the device has laid it out. `index`: where this side stands, if it is not new. */
export const programRing = ({ at, bytes, view, words }: RingBytes, index = 0): ProgramRing => ({
  view,
  bytes,
  words,
  mask: view.getUint32(at + RingHeader.INDEX_MASK, true),
  log2: view.getUint32(at + RingHeader.LOG2_ELEMENT, true),
  data: at + RingHeader.DATA,
  producer: (at + RingHeader.PRODUCER) >> 2,
  consumer: (at + RingHeader.CONSUMER) >> 2,
  index,
})

/** Where the next request goes, byte offset; -1 if the ring is full. */
export const nextSlot = (ring: ProgramRing): number => {
  const used = (ring.index - Atomics.load(ring.words, ring.consumer)) & ring.mask
  return used === ring.mask ? -1 : ring.data + ((ring.index & ring.mask) << ring.log2)
}

/** The request at `nextSlot` is complete: the device may take it. */
export const produce = (ring: ProgramRing): void => {
  ring.index = (ring.index + 1) | 0
  Atomics.store(ring.words, ring.producer, ring.index & ring.mask)
}

/** Requests that the device has not finished. */
export const outstanding = (ring: ProgramRing): number =>
  (ring.index - Atomics.load(ring.words, ring.consumer)) & ring.mask

/** Where the oldest completion lies, byte offset; -1 if there is none. */
export const oldest = (ring: ProgramRing): number =>
  Atomics.load(ring.words, ring.producer) === (ring.index & ring.mask)
    ? -1
    : ring.data + ((ring.index & ring.mask) << ring.log2)

/** The completion at `oldest` has been read: its room is the device's again. */
export const consume = (ring: ProgramRing): void => {
  ring.index = (ring.index + 1) | 0
  Atomics.store(ring.words, ring.consumer, ring.index & ring.mask)
}

/** Both sides begin anew, as after a move of the queue pair to RESET. */
export const restart = (ring: ProgramRing): void => {
  ring.index = 0
}
