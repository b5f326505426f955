/*
 * What the library keeps for a checked device (`open({ check })`): the checker itself is loaded with the first checked
 * device.
 */
import type { Finding } from '../../spec/findings.ts'
import type { RingPlace } from '../carrier.ts'
import type { ProgramRing } from '../ring.ts'

/** Records the posts of a checked device (`open({ check })`). `queue`: PostQueue; `number`: as in the post log. */
export interface PostWatch {
  /** A work queue is mapped at `place`. */
  watch(queue: number, number: number, place: RingPlace, ring: ProgramRing): void
  /** The work queue is not used any more. */
  forget(place: RingPlace): void
  /** A post was refused with `error`, a positive errno, in this state of its queue pair. */
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
  /** The device is closed. Throws FindingsError. */
  end(): void
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
