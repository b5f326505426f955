/*
 * What the library keeps for a checked device (`open({ check })`): the checker itself is loaded with the first checked
 * device.
 */
import type { Finding } from '../../spec/check/findings.ts'
import type { RingPlace } from '../carrier.ts'
import type { ProgramRing } from '../ring.ts'

/** Records the posts of a checked device (`open({ check })`). `queue`: PostQueue; `number`: as in the post log. */
export interface PostWatch {
  /** Starts to watch a work queue, whose ring is at `place`. */
  watch(queue: number, number: number, place: RingPlace, ring: ProgramRing): void
  /** Ends the watch: the work queue is not used any more. */
  forget(place: RingPlace): void
  /** Reports a post that was refused with `error`, a positive errno, in this state of its queue pair. */
  refused(queue: number, number: number, wrId: number, error: number, state: number): void
}

/** A finding, and how often it was found. */
export interface CountedFinding extends Finding {
  /** How often: the same id, place and kind of sentence. */
  readonly count: number
}

/** A checked device. */
export interface Checked {
  readonly posts: PostWatch
  /** The findings about the device. */
  readonly findings: readonly CountedFinding[]
  /** Ends the check when the device is closed. Throws FindingsError. */
  end(): void
}

/**
 * Calls `note` with the slot of each post to a work queue, just before the device can see it. The index of the ring
 * becomes an accessor, so that the hot code of posts (ring.ts) does not know of it.
 */
export const onPost = (ring: ProgramRing, note: (slot: number) => void): void => {
  let { index } = ring
  Object.defineProperty(ring, 'index', {
    get: () => index,
    set(next: number) {
      // A post advances it by one; a move to RESET sets it to 0.
      if (next === ((index + 1) | 0)) note(index & ring.mask)
      index = next
    },
  })
}

interface Owner {
  readonly checked: Checked | undefined
}

/**
 * Records the posts to a work queue, if its device is checked. `number`: of the queue pair, or the handle of the SRQ.
 */
export const watched = (
  { checked }: Owner,
  queue: number,
  number: number,
  place: RingPlace | undefined,
  ring: ProgramRing,
): ProgramRing => {
  if (place !== undefined) checked?.posts.watch(queue, number, place, ring)
  return ring
}
