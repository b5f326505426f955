/*
 * The program's side of the rings shared with a device, in either layout (spec/drivers/ring-layout.ts): it produces
 * requests and consumes completions. If the device is in another process, index accesses are ordered against the
 * elements (`loadIndex`).
 */
import { loadIndex, type RingLayout, storeIndex, wrapOf } from '../spec/drivers/ring-layout.ts'
import type { Carrier, RingPlace } from './carrier.ts'

export interface ProgramRing {
  readonly view: DataView
  readonly bytes: Uint8Array
  readonly words: Int32Array
  readonly layout: RingLayout
  /** In elements: all slots if stored indices only count up (layout `counting`), otherwise one less. */
  readonly capacity: number
  /** Mask from an index to its slot. */
  readonly mask: number
  /** Mask from an index to its stored value. */
  readonly wrap: number
  readonly log2: number
  /** Byte offset of the first element, word offsets of the indices. */
  readonly data: number
  readonly producer: number
  readonly consumer: number
  /** Our own index, not masked: it only counts up. */
  index: number
}

/**
 * Position of a ring, as objects keep it: two Numbers, smaller than the ring record that a call returns. NOWHERE: none.
 */
const NOWHERE = -1
export const placeAt = (at: number, size: number): RingPlace | undefined =>
  at === NOWHERE ? undefined : { offset: BigInt(at), size }
export const offsetOf = (place: RingPlace | undefined): number => (place === undefined ? NOWHERE : Number(place.offset))

/** A new ring; this side starts at its beginning. */
export const programRing = ({ layout, ring }: Pick<Carrier, 'layout' | 'ring'>, place: RingPlace): ProgramRing => {
  const { header, counting } = layout
  const { head, data, bytes, view, words } = ring(place)
  const mask = view.getUint32(head + header.INDEX_MASK, true)
  return {
    view,
    bytes,
    words,
    layout,
    capacity: counting ? mask + 1 : mask,
    mask,
    wrap: wrapOf(layout, mask),
    log2: view.getUint32(head + header.LOG2_ELEMENT, true),
    data,
    producer: (head + header.PRODUCER) >> 2,
    consumer: (head + header.CONSUMER) >> 2,
    index: 0,
  }
}

/** A ring that already has requests; this side continues behind them. */
export const producingRing = (carrier: Pick<Carrier, 'layout' | 'ring'>, place: RingPlace): ProgramRing => {
  const ring = programRing(carrier, place)
  ring.index = loadIndex(ring.layout, ring.words, ring.producer)
  return ring
}

const none = new ArrayBuffer(8)

/** Stands for a queue of size 0. */
export const noProgramRing = (layout: RingLayout): ProgramRing => ({
  view: new DataView(none),
  bytes: new Uint8Array(none),
  words: new Int32Array(none),
  layout,
  capacity: 0,
  mask: 0,
  wrap: 0,
  log2: 0,
  data: 0,
  producer: 0,
  consumer: 1,
  index: 0,
})

/** The ring that a call returned, or none: a driver may lack rings, or rings of this kind. */
export const ringOrNone = (carrier: Pick<Carrier, 'layout' | 'ring'>, place: RingPlace | undefined): ProgramRing =>
  place === undefined ? noProgramRing(carrier.layout) : programRing(carrier, place)

/** Byte offset of the next request; -1 if the ring is full. */
export const nextSlot = (ring: ProgramRing): number => {
  const used = (ring.index - loadIndex(ring.layout, ring.words, ring.consumer)) & ring.wrap
  return used === ring.capacity ? -1 : ring.data + ((ring.index & ring.mask) << ring.log2)
}

/** Publishes the request at `nextSlot` to the device. */
export const produce = (ring: ProgramRing): void => {
  ring.index = (ring.index + 1) | 0
  storeIndex(ring.layout, ring.words, ring.producer, ring.index & ring.wrap)
}

/** Requests that the device has not finished. */
export const outstandingRequests = (ring: ProgramRing): number =>
  (ring.index - loadIndex(ring.layout, ring.words, ring.consumer)) & ring.wrap

/** Byte offset of the oldest completion; -1 if there is none. */
export const oldestCompletion = (ring: ProgramRing): number =>
  loadIndex(ring.layout, ring.words, ring.producer) === (ring.index & ring.wrap)
    ? -1
    : ring.data + ((ring.index & ring.mask) << ring.log2)

/** Number of unread completions. */
export const unreadCompletions = (ring: ProgramRing): number =>
  (loadIndex(ring.layout, ring.words, ring.producer) - ring.index) & ring.wrap

/** Returns the slot at `oldestCompletion` to the device. */
export const consume = (ring: ProgramRing): void => {
  ring.index = (ring.index + 1) | 0
  storeIndex(ring.layout, ring.words, ring.consumer, ring.index & ring.wrap)
}

/** Starts at slot 0 again: the device has done so when the queue pair was moved to RESET. */
export const restart = (ring: ProgramRing): void => {
  ring.index = 0
}
