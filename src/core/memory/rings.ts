/*
 * One ring in memory that a hostile program shares: geometry, allocation and the two indices, in either layout
 * (spec/drivers/ring-layout.ts).
 *
 * The device trusts nothing that it reads. Size and mask are its own copies. It publishes its own index (the consumer
 * of requests, the producer of completions) and never reads it back. It masks the program's index at every read.
 */
import { compactLayout } from '../../spec/drivers/compact-rings.ts'
import { indexMask, loadIndex, mappedLayout, type RingLayout, storeIndex } from '../../spec/drivers/ring-layout.ts'
import type { MappedChunk, MappedMemory } from './mappable-memory.ts'

/** Where a ring lies: a buffer, which other rings may share, and byte offsets in it. */
export interface RingLocation {
  readonly area: MappedChunk
  readonly headerAt: number
  readonly elementsAt: number
}

/** Memory for rings of one layout. */
export interface RingMemory {
  readonly layout: RingLayout
  /**
   * Present if the device may publish a consumer index behind its own, so that free slots look occupied
   * (drivers/rings/exact-rings.ts). The user library must not count completed requests by the index.
   */
  readonly mayHideSlots?: true
  /** Memory for a header and `bytes` bytes of elements. Throws CallError ENOMEM. */
  allocate(bytes: number): RingLocation
  free(location: RingLocation): void
}

/** Rings that a program maps: each is a range of its context's memory, a header and then the elements. */
export const mappedRings = (memory: MappedMemory): RingMemory => ({
  layout: mappedLayout,
  mayHideSlots: true,
  allocate(bytes) {
    const area = memory.allocate(mappedLayout.header.DATA + bytes)
    return { area, headerAt: area.at, elementsAt: area.at + mappedLayout.header.DATA }
  },
  free: ({ area }) => memory.free(area),
})

export interface Ring extends RingLocation {
  readonly layout: RingLayout
  /** Slots minus one: mask from an index to its slot. */
  readonly mask: number
  /** Log2 of the bytes of an element. */
  readonly log2Element: number
  /** Mask from an index to its stored value: `mask`, or 0x7fffffff with `hasFreeRunningIndices`. */
  readonly wrap: number
  /** Maximum number of elements. */
  readonly capacity: number
}

/** log2 of the smallest power of two that is at least `n`. */
const ceilLog2 = (n: number): number => Math.max(0, 32 - Math.clz32(n - 1))

/** Slots minus one of a ring for at least `elements` elements; `elements` is at most 2^30 - 1. */
export const ringMask = ({ hasFreeRunningIndices }: RingLayout, elements: number): number =>
  (1 << ceilLog2(hasFreeRunningIndices ? Math.max(elements, 1) : elements + 1)) - 1

/** Creates an empty ring for at least `elements` elements of at least `elementBytes` bytes. Throws CallError ENOMEM. */
export const createRing = (memory: RingMemory, elements: number, elementBytes: number): Ring => {
  const { layout } = memory
  const { header, hasFreeRunningIndices } = layout
  const log2Element = ceilLog2(Math.max(elementBytes, layout.minElement))
  const mask = ringMask(layout, elements)
  const { area, headerAt, elementsAt } = memory.allocate((mask + 1) * (1 << log2Element))
  area.view.setUint32(headerAt + header.LOG2_ELEMENT, log2Element, true)
  area.view.setUint32(headerAt + header.INDEX_MASK, mask, true)
  // without free-running indices, one slot of a full ring is empty
  const maxElements = hasFreeRunningIndices ? mask + 1 : mask
  // a queue that was created for no requests accepts none, although the ring has a slot
  const capacity = elements === 0 ? 0 : maxElements
  const wrap = indexMask(layout, mask)
  const ring: Ring = { area, headerAt, elementsAt, layout, mask, log2Element, wrap, capacity }
  clearRing(ring)
  return ring
}

/** Byte offset of the element with index `index`, any integer. */
export const elementAt = (ring: Ring, index: number): number =>
  ring.elementsAt + ((index & ring.mask) << ring.log2Element)

/** Offsets of the two indices in `area.words`. */
const producerAt = ({ headerAt, layout }: Ring): number => (headerAt + layout.header.PRODUCER) >> 2
const consumerAt = ({ headerAt, layout }: Ring): number => (headerAt + layout.header.CONSUMER) >> 2

export const loadProducer = (ring: Ring): number =>
  loadIndex(ring.layout, ring.area.words, producerAt(ring)) & ring.wrap
export const loadConsumer = (ring: Ring): number =>
  loadIndex(ring.layout, ring.area.words, consumerAt(ring)) & ring.wrap
export const storeProducer = (ring: Ring, index: number): void => {
  storeIndex(ring.layout, ring.area.words, producerAt(ring), index & ring.wrap)
}
export const storeConsumer = (ring: Ring, index: number): void => {
  storeIndex(ring.layout, ring.area.words, consumerAt(ring), index & ring.wrap)
}
/** Stores the count of a counting CQ as its producer index, modulo 2^32. */
export const storeCount = (ring: Ring, count: number): void => {
  storeIndex(ring.layout, ring.area.words, producerAt(ring), count | 0)
}
/** Empties a ring: device and program both find index 0. */
export const clearRing = (ring: Ring): void => {
  storeProducer(ring, 0)
  storeConsumer(ring, 0)
}

/** Copies `count` elements of `ring`, beginning at index `from`, into the first slots of `next`. */
export const copyElements = (ring: Ring, from: number, count: number, next: Ring): void => {
  for (let i = 0; i < count; i++) {
    const at = elementAt(ring, from + i)
    next.area.bytes.set(ring.area.bytes.subarray(at, at + 2 ** ring.log2Element), elementAt(next, i))
  }
}

const emptyBuffer = new ArrayBuffer(compactLayout.header.DATA)

/** The ring of a queue that does not exist: nothing can be posted to it. */
export const emptyRing: Ring = {
  area: {
    offset: 0,
    length: 0,
    at: 0,
    bytes: new Uint8Array(emptyBuffer),
    view: new DataView(emptyBuffer),
    words: new Int32Array(emptyBuffer),
  },
  headerAt: 0,
  elementsAt: 0,
  layout: compactLayout,
  mask: 0,
  log2Element: 0,
  wrap: 0,
  capacity: 0,
}

/** struct mminfo of rxe's ABI: offset and size with which the user library maps a ring. */
export interface MmapInfo {
  readonly offset: bigint
  readonly size: number
}

// These convert a number below 2^53 to a bigint in half the time of `BigInt()`.
const halves = new Uint32Array(2)
const whole = new BigUint64Array(halves.buffer)

/** The range that the user library maps: from the ring's header to the end of the ring's allocation. */
export const mmapInfo = ({ area, headerAt }: Ring): MmapInfo => {
  const offset = area.offset + headerAt - area.at
  halves[0] = offset
  halves[1] = offset / 2 ** 32
  return { offset: whole[0]!, size: area.length - (headerAt - area.at) }
}
