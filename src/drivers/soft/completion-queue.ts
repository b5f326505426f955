/*
 * A completion queue as the soft device knows it, in any format: how many completions it holds. A format's class writes
 * entries, and reads the program's index.
 *
 * The device counts the completions that are not consumed. The program, which may be hostile, advances the consumer
 * index, which only lowers the count, and never below 0. So a consumer index ahead of the producer index is no overrun;
 * Debian's extended CQ calls cause such indices. If the queue is full, a completion is lost and the CQ is in error, as
 * on Linux, unless it ignores overruns.
 *
 * A counting CQ (R11) has no entries: its producer index is the number of completions, modulo 2^32. It never overruns.
 */
import { CqKind } from '../../spec/enums.ts'
import { WcStatus } from '../../spec/work.ts'
import { Completion } from '../../transport/engine/types.ts'

const { SUCCESS } = WcStatus.values
const { COUNTING } = CqKind.values

const noClock = (): number => 0

export interface CqOptions {
  /** `CqKind`. */
  readonly kind: number
  readonly compVector: number
  /** Completions beyond the capacity are lost without an error (CqFlags.IGNORE_OVERRUN). */
  readonly ignoresOverrun: boolean
}

export abstract class CompletionQueue {
  readonly kind: number
  readonly compVector: number
  readonly ignoresOverrun: boolean
  /** Programs see all fields of a completion in error, also those without a meaning. */
  abstract readonly showsAllFields: boolean
  /** The CQ's number in the engine; -1 until it has one. */
  number = -1
  /** Index of the next entry. */
  producer = 0
  /** The program's consumer index when it was read last. */
  consumer = 0
  /** Number of completions that are not consumed. */
  outstanding = 0
  hasOverrun = false
  /** Number of completions since creation, and of those with an error status. */
  completions = 0
  errors = 0
  /** Position of the last one with an error status, from 1; 0: there was none. */
  lastError = 0

  constructor({ kind, compVector, ignoresOverrun }: CqOptions) {
    this.kind = kind
    this.compVector = compVector
    this.ignoresOverrun = ignoresOverrun
  }

  /** The program may poll without storing its index, so how much it has polled is not known. */
  get hidesPolls(): boolean {
    return false
  }
  /** Maximum number of completions. */
  abstract get capacity(): number
  /** Mask of indices. */
  abstract get wrap(): number
  /** The program's index. */
  abstract loadConsumer(): number
  /**
   * Writes the completion `words` (`Completion`) as the next entry: there is room. `now`: microseconds, for its time
   * stamp.
   */
  abstract write(words: Uint32Array, now: () => number): void
  /** `producer`, or of a counting CQ `completions`, has changed. */
  abstract publish(): void
  /** The QPN of the last message among the last `max` completions; undefined if there is none. */
  abstract lastReceiver(max: number): number | undefined
}

/** Reads the program's consumer index, and lowers `outstanding` by the number of newly consumed completions. */
export const readConsumer = (cq: CompletionQueue): void => {
  const { wrap } = cq
  const consumer = cq.loadConsumer()
  const consumed = ((consumer - cq.consumer) & wrap) >>> 0
  const unconsumed = consumed > cq.outstanding ? 0 : cq.outstanding - consumed
  // A program whose consumer index was ahead never consumes the completions up to that index. The distance of the
  // indices bounds the count, so that these completions do not stay outstanding.
  cq.outstanding = Math.min(unconsumed, ((cq.producer - consumer) & wrap) >>> 0)
  cq.consumer = consumer
}

/**
 * Number of completions that the program has polled since creation; all of a counting CQ, or of one whose polls are not
 * seen.
 */
export const polledCompletions = (cq: CompletionQueue): number => {
  if (cq.kind === COUNTING || cq.hidesPolls) return cq.completions
  readConsumer(cq)
  return cq.completions - cq.outstanding
}

const countCompletion = (cq: CompletionQueue, words: Uint32Array): void => {
  cq.completions++
  if (words[Completion.STATUS] === SUCCESS) return
  cq.errors++
  cq.lastError = cq.completions
}

/** Writes the completion `words` (`Completion`); false if the queue is full. `now`: see `CompletionQueue.write`. */
export const pushCompletion = (cq: CompletionQueue, words: Uint32Array, now: () => number = noClock): boolean => {
  if (cq.kind === COUNTING) {
    countCompletion(cq, words)
    cq.publish()
    return true
  }
  // at every completion: the index is stored masked, so a later read would not show how often it has wrapped
  readConsumer(cq)
  if (cq.outstanding >= cq.capacity) {
    cq.hasOverrun = !cq.ignoresOverrun
    return false
  }
  cq.write(words, now)
  countCompletion(cq, words)
  cq.producer = (cq.producer + 1) & cq.wrap
  cq.outstanding++
  cq.publish()
  return true
}
