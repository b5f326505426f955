/*
 * Observes posts and polls for the check of a device (`open({ check })` or `userdma check`). An accessor on completion
 * objects observes polls, so that the hot code is the same with and without a check.
 */
import type { Finding } from '../../../spec/check/finding.ts'
import type { Omission } from '../../../spec/check/omissions.ts'
import type { ProgramEvent } from '../../../spec/check/program-events.ts'
import type { Severity } from '../../../spec/check/severity.ts'
import type { Wait } from '../../../spec/check/waits.ts'
import type { Carrier, MmapInfo } from '../carrier.ts'
import type { ProgramRing } from '../ring.ts'

/**
 * Records the posts and polls of a checked device. `queue` (PostQueue) and `number` name a work queue; `number`: the
 * QPN, or the handle of the SRQ.
 */
export interface PostWatch {
  /** Starts to record the posts to a work queue, until `forget` is called with the `info` of its ring. */
  watch(queue: number, number: number, info: MmapInfo, ring: ProgramRing): void
  /** Forgets the work queue with this ring, which the program releases. */
  forget(info: MmapInfo): void
  /**
   * Reports a post that was refused with `error`, a positive errno. `state`: state of the queue pair (ibv_qp_state);
   * always RTS for ENOMEM (the queue is full), which does not depend on the state. `severity`: default: the finding's.
   */
  refused(queue: number, number: number, wrId: number, error: number, state: number, severity?: Severity): void
  // Set only with the search for races:
  /** Starts to record the completions that are polled from the CQ with handle `cq`. */
  watchPolls?(cq: number, completion: PolledCompletion): void
  /** Marks a CQ that the library polls for promises: the program learns of a completion by its promise. */
  pollsForPromises?(cq: number): void
  /** Records `count` completions of a CQ of kind 'counting'. */
  counted?(cq: number, count: number): void
}

/** The completion object of a CQ. A poll that finds a completion sets `at`, the offset of the CQE. `id`: wr_id. */
interface PolledCompletion {
  readonly id: number
  at: number
}

/** A finding, with how often it was found. */
export interface CountedFinding extends Finding {
  /** Number of findings with this id, program and stack, and with the same text except for numbers. */
  readonly count: number
}

/** Fields: see the event `lent` (spec/check/program-events.ts). `milliseconds`: 0: until it is taken back. */
interface DeclaredLend extends Pick<ProgramEvent<'lent'>, 'start' | 'end' | 'rights' | 'label' | 'qpn' | 'hash'> {
  readonly milliseconds: number
}

export interface DeviceCheck {
  readonly posts: PostWatch
  /** The findings about the device; empty for a daemon's device, because `userdma check` reports them. */
  readonly findings: readonly CountedFinding[]
  /** What the check of the device's network has left out. */
  readonly omissions: readonly Omission[]
  /** Marks an object that the library has created for itself: it is no leak if only the device's close closes it. */
  markInternal(className: string, handle: number): void
  /**
   * Marks an RC queue pair with `connection.messages()`: its requests are frames of the library, which repeats or drops
   * them when the connection ends. Calls of messages tell the program what was lost.
   */
  markMessages(qp: number): void
  /**
   * The program lends bytes of its memory (`MemoryRegion.lend`). Returns what takes them back. Absent: nobody checks.
   */
  lend?(lend: DeclaredLend): () => void
  /** Reports what the program waits for. */
  waits(wait: Wait): void
  /** Called when the device is closed. Throws FindingsError if there are findings that fail. */
  end(): void
}

/** The carrier of an opened device. */
export interface OpenedCarrier extends Carrier {
  /** Set only for a checked device. */
  readonly check: DeviceCheck | undefined
}

/** Calls `note` with the wr_id of each completion that is polled. */
const onPoll = (completion: PolledCompletion, note: (wrId: number) => void): void => {
  // The accessors of its class, which these hide.
  const own: object = Object.getPrototypeOf(completion)
  Object.defineProperty(completion, 'at', {
    get: () => Reflect.get(own, 'at', completion),
    set(next: number) {
      Reflect.set(own, 'at', next, completion)
      note(completion.id)
    },
  })
}

/** The functions of `PostWatch` about polls: they call `note` when the program learns of completions. */
export const pollWatch = (
  note: (cq: number, count: number, wrId: bigint) => void,
): Pick<PostWatch, 'watchPolls' | 'pollsForPromises' | 'counted'> => {
  const promiseCqs = new Set<number>()
  return {
    watchPolls(cq, completion) {
      // A closed CQ may have had this handle.
      promiseCqs.delete(cq)
      onPoll(completion, wrId => {
        // The poll may run within another call of the program, which has not learned of the completion yet. This
        // microtask runs before the code that awaits the promise, because the promise is resolved after the poll.
        if (promiseCqs.has(cq)) queueMicrotask(() => note(cq, 1, BigInt(wrId)))
        else note(cq, 1, BigInt(wrId))
      })
    },
    pollsForPromises: cq => void promiseCqs.add(cq),
    counted: (cq, count) => note(cq, count, 0n),
  }
}

/** Returns `ring`. If the device is checked, posts to `ring` are recorded. `queue`, `number`: see `PostWatch`. */
export const watchedRing = (
  { check }: { readonly check: DeviceCheck | undefined },
  queue: number,
  number: number,
  info: MmapInfo | undefined,
  ring: ProgramRing,
): ProgramRing => {
  if (info !== undefined) check?.posts.watch(queue, number, info, ring)
  return ring
}
