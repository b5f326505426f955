/*
 * The library's state of a checked device (`open({ check })`). The checker itself is loaded with the first checked
 * device.
 */
import type { Finding } from '../../spec/check/findings.ts'
import type { Omission } from '../../spec/check/omissions.ts'
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
  // Only with the search for races:
  /** Notes completions that the program polls from the CQ with this handle. */
  watchPolls?(cq: number, cursor: PolledCursor): void
  /** The library polls this CQ for promises: the program learns of a completion when its promise is resolved. */
  pollsForPromises?(cq: number): void
  /** Notes `count` completions of a CQ that only counts them. */
  counted?(cq: number, count: number): void
}

/** The cursor of a CQ at its polled completion: `at` is set by each poll that finds one. */
export interface PolledCursor {
  readonly id: number
  at: number
}

/** A finding, and how often it was found. */
export interface CountedFinding extends Finding {
  /** Occurrences with the same id, program and stack, and the same text except for numbers. */
  readonly count: number
}

/** A checked device. */
export interface Checked {
  readonly posts: PostWatch
  /** The findings about the device. */
  readonly findings: readonly CountedFinding[]
  /** What the check of its network has left out. */
  readonly omissions: readonly Omission[]
  /** Ends the check when the device is closed. Throws FindingsError. */
  end(): void
}

/**
 * Calls `note` with the slot of each post to a work queue, just before the device can see it. The index of the ring
 * becomes an accessor, so that the hot code of posts (ring.ts) stays as it is.
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

/** Calls `note` with the wr_id of each completion that is polled. The hot code of polls stays as it is. */
const onPoll = (cursor: PolledCursor, note: (wrId: number) => void): void => {
  let { at } = cursor
  Object.defineProperty(cursor, 'at', {
    get: () => at,
    set(next: number) {
      at = next
      note(cursor.id)
    },
  })
}

/** Calls `note` with completions when the program learns of them. */
export const pollWatch = (
  note: (cq: number, count: number, wrId: bigint) => void,
): Pick<PostWatch, 'watchPolls' | 'pollsForPromises' | 'counted'> => {
  const promising = new Set<number>()
  return {
    watchPolls(cq, cursor) {
      promising.delete(cq)
      onPoll(cursor, wrId => {
        // Queued before the promise is resolved, so that it runs before the code that awaits the promise.
        if (promising.has(cq)) queueMicrotask(() => note(cq, 1, BigInt(wrId)))
        else note(cq, 1, BigInt(wrId))
      })
    },
    pollsForPromises: cq => void promising.add(cq),
    counted: (cq, count) => note(cq, count, 0n),
  }
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
