/*
 * The program's side of the rings that it shares with a device, in either layout (spec/drivers/ring-layout.ts):
 * requests go in at the producer's end, completions come out at the consumer's. Where the device is another process
 * indices are ordered against the elements (`loadIndex`).
 */
import { loadIndex, type RingLayout, storeIndex, wrapOf } from '../spec/drivers/ring-layout.ts'
import type { Carrier, RingPlace } from './carrier.ts'

export interface ProgramRing {
  readonly view: DataView
  readonly bytes: Uint8Array
  readonly words: Int32Array
  readonly layout: RingLayout
  /** Elements that it holds, slots minus one, and what of an index is stored. */
  readonly capacity: number
  readonly mask: number
  readonly wrap: number
  readonly log2: number
  /** Byte offset of the first element, word offsets of the indices. */
  readonly data: number
  readonly producer: number
  readonly consumer: number
  /** Our own index, not masked: it only counts up. */
  index: number
}

/** Where a ring lies, as objects keep it: two Numbers take less than what calls answer. NOWHERE: there is none. */
const NOWHERE = -1
export const placeAt = (at: number, size: number): RingPlace | undefined =>
  at === NOWHERE ? undefined : { offset: BigInt(at), size }
export const offsetOf = (place: RingPlace | undefined): number => (place === undefined ? NOWHERE : Number(place.offset))

/** A ring as the device has laid it out, at whose beginning this side stands. */
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

/** A ring that has requests already: this side goes on behind them. */
export const producingRing = (carrier: Pick<Carrier, 'layout' | 'ring'>, place: RingPlace): ProgramRing => {
  const ring = programRing(carrier, place)
  ring.index = loadIndex(ring.layout, ring.words, ring.producer)
  return ring
}

const none = new ArrayBuffer(8)

/** In place of a queue that has no room at all. */
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

/** What objects that have rings hold of them: a completion queue or one for receives, or a queue pair. */
interface Ringed {
  ring?: ProgramRing
  isHeld?: boolean
  sends?: ProgramRing | undefined
  receives?: ProgramRing | undefined
}

/** The device of `object` is gone: what is posted from now on is refused. */
export const stopPosting = (object: object): void => {
  const ringed = object as Ringed
  if (ringed.sends !== undefined) ringed.sends = undefined
  if (ringed.receives !== undefined) ringed.receives = undefined
}

/** Sends of `object` that its device has not finished; 0 for what has no send queue. */
export const pendingSends = (object: object): number => {
  const { sends } = object as Ringed
  return sends === undefined ? 0 : outstandingRequests(sends)
}

/**
 * The device of `object` is closed: where its rings were, there may be others by now, which nobody reads or writes in
 * its name any more.
 */
export const detachRings = (object: object, layout: RingLayout): void => {
  const ringed = object as Ringed
  if (ringed.ring !== undefined) ringed.ring = noProgramRing(layout)
  if (ringed.isHeld) ringed.isHeld = false
  stopPosting(object)
}

/** A ring that a call answered, or none: a driver may have no rings, or none of this kind. */
export const ringOrNone = (carrier: Pick<Carrier, 'layout' | 'ring'>, place: RingPlace | undefined): ProgramRing =>
  place === undefined ? noProgramRing(carrier.layout) : programRing(carrier, place)

/** Where the next request goes, byte offset; -1 if the ring is full. */
export const nextSlot = (ring: ProgramRing): number => {
  const used = (ring.index - loadIndex(ring.layout, ring.words, ring.consumer)) & ring.wrap
  return used === ring.capacity ? -1 : ring.data + ((ring.index & ring.mask) << ring.log2)
}

/** The request at `nextSlot` is complete: the device may take it. */
export const produce = (ring: ProgramRing): void => {
  ring.index = (ring.index + 1) | 0
  storeIndex(ring.layout, ring.words, ring.producer, ring.index & ring.wrap)
}

/** Requests that the device has not finished. */
export const outstandingRequests = (ring: ProgramRing): number =>
  (ring.index - loadIndex(ring.layout, ring.words, ring.consumer)) & ring.wrap

/** Where the oldest completion lies, byte offset; -1 if there is none. */
export const oldestCompletion = (ring: ProgramRing): number =>
  loadIndex(ring.layout, ring.words, ring.producer) === (ring.index & ring.wrap)
    ? -1
    : ring.data + ((ring.index & ring.mask) << ring.log2)

/** Completions that have not been consumed. */
export const unreadCompletions = (ring: ProgramRing): number =>
  (loadIndex(ring.layout, ring.words, ring.producer) - ring.index) & ring.wrap

/** The completion at `oldest` has been read: its room is the device's again. */
export const consume = (ring: ProgramRing): void => {
  ring.index = (ring.index + 1) | 0
  storeIndex(ring.layout, ring.words, ring.consumer, ring.index & ring.wrap)
}

/** Both sides begin anew, as after a move of the queue pair to RESET. */
export const restart = (ring: ProgramRing): void => {
  ring.index = 0
}
