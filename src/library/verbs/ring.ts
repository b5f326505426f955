/*
 * The program's side of the rings that it shares with a device (spec/drivers/ring-layout.ts): the program produces
 * requests and consumes completions.
 */
import { indexMask, loadIndex, type RingLayout, storeIndex } from '../../spec/drivers/ring-layout.ts'
import type { Carrier, MmapInfo } from './carrier.ts'

export interface ProgramRing {
  readonly view: DataView
  readonly bytes: Uint8Array
  readonly words: Int32Array
  readonly layout: RingLayout
  /**
   * Elements in a full ring: one less than slots, unless the layout `hasFreeRunningIndices`; at most the depth that the
   * program asked for.
   */
  readonly capacity: number
  /** Mask from an index to its slot. */
  readonly mask: number
  /** Mask of stored indices. */
  readonly wrap: number
  /** Log2 of the bytes of an element. */
  readonly log2Element: number
  /** Byte offset of the first element in `bytes` and `view`. */
  readonly elementsAt: number
  /** Offsets of the producer's and the consumer's index in `words`. */
  readonly producer: number
  readonly consumer: number
  /** The program's index, not masked: producer of requests, or consumer of completions. */
  index: number
  /** Of a checked device: called with the slot of each request, before the device can see it. */
  onPost: ((slot: number) => void) | undefined
}

const NO_OFFSET = -1
/** The inverse of `offsetOf`. Queue pairs keep offset and size as numbers, because an `MmapInfo` is larger. */
export const mmapInfoOf = (offset: number, size: number): MmapInfo | undefined =>
  offset === NO_OFFSET ? undefined : { offset: BigInt(offset), size }
/** The offset of a ring as a number; -1 without a ring. */
export const offsetOf = (info: MmapInfo | undefined): number => (info === undefined ? NO_OFFSET : Number(info.offset))

/**
 * Maps a ring; the program's index is 0. `depth`: maximum of `capacity`, because a device may round the number of slots
 * up.
 */
export const programRing = (
  { layout, ring }: Pick<Carrier, 'layout' | 'ring'>,
  info: MmapInfo,
  depth = Number.POSITIVE_INFINITY,
): ProgramRing => {
  const { header, hasFreeRunningIndices } = layout
  const { headerAt, elementsAt, bytes, view, words } = ring(info)
  const mask = view.getUint32(headerAt + header.INDEX_MASK, true)
  return {
    view,
    bytes,
    words,
    layout,
    capacity: Math.min(hasFreeRunningIndices ? mask + 1 : mask, depth),
    mask,
    wrap: indexMask(layout, mask),
    log2Element: view.getUint32(headerAt + header.LOG2_ELEMENT, true),
    elementsAt,
    producer: (headerAt + header.PRODUCER) >> 2,
    consumer: (headerAt + header.CONSUMER) >> 2,
    index: 0,
    onPost: undefined,
  }
}

/** Maps a ring that already contains requests. */
export const producingRing = (carrier: Pick<Carrier, 'layout' | 'ring'>, info: MmapInfo): ProgramRing => {
  const ring = programRing(carrier, info)
  ring.index = loadIndex(ring.layout, ring.words, ring.producer)
  return ring
}

/** The producer's and the consumer's index, both 0. */
const emptyHeader = new ArrayBuffer(8)

/** A ring of capacity 0, where there is no ring: for example of a closed queue. */
export const noProgramRing = (layout: RingLayout): ProgramRing => ({
  view: new DataView(emptyHeader),
  bytes: new Uint8Array(emptyHeader),
  words: new Int32Array(emptyHeader),
  layout,
  capacity: 0,
  mask: 0,
  wrap: 0,
  log2Element: 0,
  elementsAt: 0,
  producer: 0,
  consumer: 1,
  index: 0,
  onPost: undefined,
})

/** Maps the ring that a creation returned; `noProgramRing` if the driver returned none. `depth`: see `programRing`. */
export const ringOrNone = (
  carrier: Pick<Carrier, 'layout' | 'ring'>,
  info: MmapInfo | undefined,
  depth?: number,
): ProgramRing => (info === undefined ? noProgramRing(carrier.layout) : programRing(carrier, info, depth))

/** Byte offset of the next request; -1 if the ring is full. */
export const nextSlot = (ring: ProgramRing): number => {
  const used = (ring.index - loadIndex(ring.layout, ring.words, ring.consumer)) & ring.wrap
  return used === ring.capacity ? -1 : ring.elementsAt + ((ring.index & ring.mask) << ring.log2Element)
}

/** Publishes the request at `nextSlot` to the device. */
export const produce = (ring: ProgramRing): void => {
  ring.onPost?.(ring.index & ring.mask)
  ring.index = (ring.index + 1) | 0
  storeIndex(ring.layout, ring.words, ring.producer, ring.index & ring.wrap)
}

/** Number of requests that the device has not consumed: sends are consumed when they complete. */
export const outstandingRequests = (ring: ProgramRing): number =>
  (ring.index - loadIndex(ring.layout, ring.words, ring.consumer)) & ring.wrap

/** Byte offset of the oldest unread completion; -1 if there is none. */
export const oldestCompletion = (ring: ProgramRing): number =>
  loadIndex(ring.layout, ring.words, ring.producer) === (ring.index & ring.wrap)
    ? -1
    : ring.elementsAt + ((ring.index & ring.mask) << ring.log2Element)

/** Number of unread completions. */
export const unreadCompletions = (ring: ProgramRing): number =>
  (loadIndex(ring.layout, ring.words, ring.producer) - ring.index) & ring.wrap

/** Returns the slot at `oldestCompletion` to the device. */
export const consume = (ring: ProgramRing): void => {
  ring.index = (ring.index + 1) | 0
  storeIndex(ring.layout, ring.words, ring.consumer, ring.index & ring.wrap)
}

/** Sets the program's index to 0 after a move to RESET, where the device sets the stored indices to 0. */
export const restart = (ring: ProgramRing): void => {
  ring.index = 0
}
