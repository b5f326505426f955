/*
 * One ring in memory that a hostile program shares: geometry, allocation and the two indices, in either layout
 * (spec/drivers/ring-layout.ts).
 *
 * The device trusts nothing that it reads: size and mask are its own copies, its own index is kept elsewhere and only
 * published, and the program's index is masked at every read. Accesses to indices and elements are ordered where the
 * program is another process (`loadIndex`).
 */
import type { MappedChunk } from '../../../core/memory/mappable-memory.ts'
import { compactLayout } from '../../../spec/drivers/compact-rings.ts'
import { loadIndex, type RingLayout, storeIndex, wrapOf } from '../../../spec/drivers/ring-layout.ts'

/** A ring: byte offsets of its header and its first element in a buffer that others may share. */
export interface RingRoom {
  readonly area: MappedChunk
  readonly head: number
  readonly data: number
}

/** Memory for rings of one layout. */
export interface RingMemory {
  readonly layout: RingLayout
  /**
   * Whether slots may look occupied that are not in use (drivers/rxe/torment/queues.ts): the user library compares
   * indices only to find free slots, and does not count requests with them.
   */
  readonly mayHideSlots?: true
  /** Memory for a header and `bytes` bytes of elements. Throws CallError ENOMEM. */
  allocate(bytes: number): RingRoom
  free(room: RingRoom): void
}

export interface Ring extends RingRoom {
  readonly layout: RingLayout
  /** Slots minus one, and log2 of the bytes of an element. */
  readonly mask: number
  readonly log2: number
  /** Bits of an index that are stored: all, or those of the mask. */
  readonly wrap: number
  /** Elements that it holds. */
  readonly capacity: number
}

const log2Above = (n: number): number => Math.max(0, 32 - Math.clz32(n - 1))

/** Slots minus one of a ring that holds at least `elements`, at most 2^30. */
export const ringMask = ({ counting }: RingLayout, elements: number): number =>
  (1 << log2Above(counting ? Math.max(elements, 1) : elements + 1)) - 1

/** A ring for at least `elements` elements of at least `elementBytes` bytes; it is empty. */
export const createRing = (memory: RingMemory, elements: number, elementBytes: number): Ring => {
  const { layout } = memory
  const { header, counting } = layout
  const log2 = log2Above(Math.max(elementBytes, layout.minElement))
  const mask = ringMask(layout, elements)
  const { area, head, data } = memory.allocate((mask + 1) * (1 << log2))
  area.view.setUint32(head + header.LOG2_ELEMENT, log2, true)
  area.view.setUint32(head + header.INDEX_MASK, mask, true)
  const capacity = counting ? (elements === 0 ? 0 : mask + 1) : mask
  const ring = { area, head, data, layout, mask, log2, wrap: wrapOf(layout, mask), capacity }
  clearRing(ring)
  return ring
}

/** Byte offset of the element with index `index` (any integer; it is masked). */
export const elementAt = (ring: Ring, index: number): number => ring.data + ((index & ring.mask) << ring.log2)

const producerOf = ({ head, layout }: Ring): number => (head + layout.header.PRODUCER) >> 2
const consumerOf = ({ head, layout }: Ring): number => (head + layout.header.CONSUMER) >> 2

export const loadProducer = (ring: Ring): number =>
  loadIndex(ring.layout, ring.area.words, producerOf(ring)) & ring.wrap
export const loadConsumer = (ring: Ring): number =>
  loadIndex(ring.layout, ring.area.words, consumerOf(ring)) & ring.wrap
export const storeProducer = (ring: Ring, index: number): void => {
  storeIndex(ring.layout, ring.area.words, producerOf(ring), index & ring.wrap)
}
export const storeConsumer = (ring: Ring, index: number): void => {
  storeIndex(ring.layout, ring.area.words, consumerOf(ring), index & ring.wrap)
}
/** Of a ring without elements whose producer index is a count, modulo 2^32. */
export const storeCount = (ring: Ring, count: number): void => {
  storeIndex(ring.layout, ring.area.words, producerOf(ring), count | 0)
}
/** Empties a ring, for the program too. */
export const clearRing = (ring: Ring): void => {
  storeProducer(ring, 0)
  storeConsumer(ring, 0)
}

/** Moves a ring: `count` elements from index `from` on become the first ones of `next`. */
export const copyElements = (ring: Ring, from: number, count: number, next: Ring): void => {
  for (let i = 0; i < count; i++) {
    const at = elementAt(ring, from + i)
    next.area.bytes.set(ring.area.bytes.subarray(at, at + 2 ** ring.log2), elementAt(next, i))
  }
}

const nowhere = new ArrayBuffer(compactLayout.header.DATA)

/** A queue that does not exist: it has no slots, and nothing can be posted to it. */
export const emptyRing: Ring = {
  area: {
    offset: 0,
    length: 0,
    at: 0,
    bytes: new Uint8Array(nowhere),
    view: new DataView(nowhere),
    words: new Int32Array(nowhere),
  },
  head: 0,
  data: 0,
  layout: compactLayout,
  mask: 0,
  log2: 0,
  wrap: 0,
  capacity: 0,
}
