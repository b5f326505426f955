/*
 * Completion queues of the library: polled without allocation, awaited, or iterated by `for await`.
 */
import { nextTurn } from '../../host/event-loop/next-turn.ts'
import { Cq } from '../../spec/classes/cq.ts'
import { CqKind } from '../../spec/enums.ts'
import type { Out } from '../../spec/schema/schema.ts'
import type { RingPlace } from '../carrier.ts'
import { checkOptions, type KnownOptions } from '../checks/options.ts'
import { checkChoice, detached, invalidArgument, namingOptions, refused } from '../error.ts'
import { checkSignal, type Until } from '../mailbox.ts'
import { DETACH, defineVerbsClass, RELEASED, SHOWN, VerbsObject } from '../objects/verbs-object.ts'
import { type DeviceContext, eventSource, type Kind, type Plan, plan } from '../plan.ts'
import { consume, noProgramRing, oldestCompletion, type ProgramRing, ringOrNone, unreadCompletions } from '../ring.ts'
import { type Completion, CompletionCursor } from './completion.ts'

const { ENTRIES: PLAIN, EXTENDED, COUNTING } = CqKind.values
const kinds = { entries: PLAIN, timed: EXTENDED, counting: COUNTING } as const

/** Event moderation: when completions raise an event (R36). */
export interface Threshold {
  /** After this many completions, 0 to 65,535; 0 and 1: after the next one. */
  readonly completions?: number
  /** Or this many microseconds after the first of them, 0 to 65,535; 0: no time limit. */
  readonly microseconds?: number
}

/** Event moderation for this event, in place of that set by `moderate`. */
export interface ArmOptions extends Threshold {
  /** Only solicited and failed completions. */
  readonly solicitedOnly?: boolean
}

/** Options of `wait`. */
export interface WaitOptions extends ArmOptions, Until {}

/** A completion queue (IBA 11.4.2), for the queue pairs created with it. */
export interface CompletionQueue extends Disposable, AsyncIterable<Completion>, Kind<'cq'> {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** Number of entries. */
  readonly entries: number
  /** The completion that `poll` found; valid until the next `poll`. */
  readonly completion: Completion
  /** Takes the oldest completion; false if there is none. Allocates nothing. */
  poll(): boolean
  /** Resolves when `poll` may find a completion. */
  wait(options?: WaitOptions): Promise<void>
  /**
   * Yields completions until the queue is closed; always the same object, valid until the next step. Rejects with
   * RdmaError EINVAL for a queue of kind 'counting'.
   */
  completions(options?: WaitOptions): AsyncIterableIterator<Completion>
  /** Resizes the queue to at least `entries`; unread completions stay. Throws RdmaError EINVAL if they do not fit. */
  resize(entries: number): void
  /** Number of completions since creation; without a call for a queue of kind 'counting'. */
  readonly count: number
  /** The device's attributes of the queue: `completions`, `errors`, the event moderation and others. */
  query(): Out<typeof Cq.methods.query>
  /**
   * Sets event moderation (R36): a waiter wakes after `completions` completions, or `microseconds` after the first of
   * them, whichever is first; each 0 to 65,535. Both 0: after the next completion.
   */
  moderate(threshold: Threshold): void
  /**
   * Arms the queue: the next completion raises one event. For queues attached to an event queue; `wait` arms by itself.
   */
  arm(options?: ArmOptions): void
  /** Destroys it. Throws RdmaError EBUSY while a queue pair uses it. */
  close(): void
}

/** Options of `device.cq`. */
export interface CqOptions {
  /** Minimum number of entries; default 256. */
  readonly entries?: number
  /** Completion vector, 0 ≤ vector < device.numCompVectors. */
  readonly vector?: number
  /**
   * 'entries', the default; 'timed': completions have timestamps; 'counting': there are no entries, only `count`, so
   * that it never overflows, and `wait` waits for the count to grow (R11).
   */
  readonly kind?: keyof typeof kinds
}

const cqOptionNames: KnownOptions<CqOptions> = { entries: true, vector: true, kind: true }
const thresholdOptionNames: KnownOptions<Threshold> = { completions: true, microseconds: true }
/** With `signal`, because `wait` passes its options to `arm`. */
const armOptionNames: KnownOptions<WaitOptions> = { ...thresholdOptionNames, solicitedOnly: true, signal: true }

/** The attributes of the options. */
const cqOptions = { cqe: 'entries', compVector: 'vector' }
const thresholdOptions = { count: 'completions', period: 'microseconds' }

const ENTRIES = 256
/** Completions that an iteration yields before the event loop gets a turn. */
const TAKEN_PER_TURN = 256
/** Polls of an empty queue before it is armed. */
const LOOKS = 4

/** The attribute is sent only if it is needed: devices of an older release do not know it. */
const kindOf = (kind: keyof typeof kinds) => (kind === 'entries' ? {} : { kind: kinds[kind] })

type Made = Out<typeof Cq.methods.create> & { readonly queue?: RingPlace }

class CqObject extends VerbsObject implements CompletionQueue {
  /** Its number among the objects with events. */
  readonly number: number
  entries: number
  readonly completion: CompletionCursor
  /** Set by CQ_ERR: completions were lost, and none will follow. */
  isOverrun = false
  readonly #isCounting: boolean
  #place: RingPlace | undefined
  #ring: ProgramRing
  /** The completion found by `poll` keeps its slot until the next poll. */
  #isHeld = false
  /** Reported completions of a counting queue; its ring has them modulo 2^32. */
  #counted = 0

  constructor(kit: DeviceContext, number: number, handle: number, { cqe, queue }: Made, kind: keyof typeof kinds) {
    super(kit, handle)
    this.number = number
    this.entries = cqe
    this.#isCounting = kind === 'counting'
    this.#place = queue
    this.#ring = ringOrNone(kit.carrier, queue)
    this.completion = new CompletionCursor(this.#ring, kind === 'timed')
    kit.checked?.posts.watchPolls?.(handle, this.completion)
  }

  get cls(): typeof Cq {
    return Cq
  }

  get count(): number {
    if (!this.#isCounting) return Number(this.query().completions)
    const count = this.#uncounted()
    this.#counted += count
    if (count > 0) this.kit.checked?.posts.counted?.(this.handle, count)
    return this.#counted
  }

  query() {
    return this.kit.carrier.call(Cq, 'query', this.handle, {}).out
  }

  moderate(threshold: Threshold): void {
    checkOptions('cq.moderate', 'threshold', threshold, thresholdOptionNames)
    const { completions = 0, microseconds = 0 } = threshold
    namingOptions(thresholdOptions, () =>
      this.kit.carrier.call(Cq, 'modify', this.handle, { count: completions, period: microseconds }),
    )
  }

  poll(): boolean {
    if (this?.kit === undefined) throw detached('cq.poll')
    return this.#pollRing() || (this.kit.carrier.drive() && this.#pollRing())
  }

  arm(options: ArmOptions = {}): void {
    checkOptions('cq.arm', 'options', options, armOptionNames)
    const { solicitedOnly = false, completions, microseconds } = options
    const args = {
      solicitedOnly: solicitedOnly ? 1 : 0,
      ...(completions !== undefined && { count: completions }),
      ...(microseconds !== undefined && { period: microseconds }),
    }
    namingOptions(thresholdOptions, () => this.kit.carrier.call(Cq, 'reqNotify', this.handle, args))
  }

  async wait(options: WaitOptions = {}): Promise<void> {
    if (this?.kit === undefined) throw detached('cq.wait')
    checkOptions('cq.wait', 'options', options, armOptionNames)
    checkSignal('cq.wait', options)
    const { signal } = options
    const { carrier, waiters } = this.kit
    signal?.throwIfAborted()
    this.#release()
    const wasOver = waiters.over
    const pause = carrier.pause()
    if (pause !== undefined) await pause
    // other code in this process often completes something within a few microtasks
    for (let i = 0; i < LOOKS; i++) {
      if (this.#hasNews()) return
      if (carrier.awaitsNextTurn()) break
      if (carrier.drive() && this.#hasNews()) return
      if (carrier.remote) break
      await undefined
    }
    signal?.throwIfAborted()
    if (this.isOverrun)
      throw refused(
        'EOVERFLOW',
        'cq.wait',
        `completions were lost: the queue has room for ${this.entries}`,
        'make it for as many requests as can be outstanding on all of its queue pairs',
      )
    // closed during the polls above: return as an existing waiter does; a wait that starts later fails in `arm`
    if (waiters.over && !wasOver) return
    const woken = waiters.wait(this.number, signal)
    try {
      this.arm(options)
    } catch (error) {
      // the device may have been removed: completions that it flushed are read first
      waiters.wake(this.number)
      if (!this.#hasNews()) throw error
    }
    // completions before the queue was armed raise no event
    if (!carrier.awaitsNextTurn()) carrier.drive()
    if (this.#hasNews()) waiters.wake(this.number)
    await woken
  }

  async *completions(options: WaitOptions = {}): AsyncIterableIterator<Completion> {
    if (this.#isCounting)
      throw invalidArgument(
        'cq.completions',
        'a counting queue has no completions to yield',
        'await wait() and read count',
      )
    for (let taken = 1; ; taken++) {
      while (!this.poll()) {
        if (!this.isOpen) return
        await this.wait(options)
      }
      yield this.completion
      options.signal?.throwIfAborted()
      // a loop that posts after each completion could find the next one at once, endlessly
      if (taken % TAKEN_PER_TURN === 0) await nextTurn()
    }
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<Completion> {
    return this.completions()
  }

  resize(wanted: number): void {
    const { carrier } = this.kit
    this.#release()
    const { cqe, queue } = namingOptions(
      cqOptions,
      () => carrier.call(Cq, 'modify', this.handle, { cqe: wanted }).out as Made,
    )
    const old = this.#place
    this.entries = cqe
    this.#place = queue
    // the device has moved the completions to the beginning of the new ring
    this.#ring = ringOrNone(carrier, queue)
    this.completion.ring = this.#ring
    if (old !== undefined) carrier.release(old)
  }

  /** Releases the slot of the completion that was read. */
  #release(): void {
    if (this.#isHeld) consume(this.#ring)
    this.#isHeld = false
  }

  #pollRing(): boolean {
    this.#release()
    if (this.#isCounting) return false
    const at = oldestCompletion(this.#ring)
    if (at < 0) return false
    this.completion.at = at
    this.#isHeld = true
    return true
  }

  #uncounted(): number {
    const ring = this.#ring
    // a detached queue
    if (this.#place === undefined) return 0
    return ((Atomics.load(ring.words, ring.producer) >>> 0) - (this.#counted >>> 0)) >>> 0
  }

  #hasNews(): boolean {
    return this.#isCounting ? this.#uncounted() > 0 : oldestCompletion(this.#ring) >= 0
  }

  override [SHOWN]() {
    const { handle, entries, isOverrun } = this
    if (this.#isCounting) return { handle, kind: 'counting', count: this.#counted + this.#uncounted() }
    const waiting = unreadCompletions(this.#ring) - (this.#isHeld ? 1 : 0)
    return { handle, entries, waiting, ...(isOverrun && { isOverrun }) }
  }

  protected override [RELEASED](): void {
    const { carrier, waiters } = this.kit
    waiters.remove(this.number)
    const place = this.#place
    this[DETACH]()
    if (place !== undefined) carrier.release(place)
  }

  override [DETACH](): void {
    this.#counted += this.#isCounting ? this.#uncounted() : 0
    this.#isHeld = false
    this.#place = undefined
    this.#ring = noProgramRing(this.kit.carrier.layout)
    this.completion.ring = this.#ring
  }
}
defineVerbsClass(CqObject, 'cq', 'CompletionQueue')

export const cqPlan = (kit: DeviceContext, options: CqOptions = {}): Plan<CompletionQueue> => {
  checkOptions('cq.create', 'options', options, cqOptionNames)
  const { entries = ENTRIES, vector = 0, kind = 'entries' } = options
  checkChoice('cq.create', 'kind', kind, Object.keys(kinds))
  const { carrier } = kit
  const source = eventSource(kit, Cq)
  const { number } = source
  const args = { cqe: entries, userHandle: BigInt(number), compVector: vector, ...carrier.channel, ...kindOf(kind) }
  return plan(
    Cq,
    args,
    ({ object, out }) => source.is(new CqObject(kit, number, object, out, kind)),
    source.forget,
    cqOptions,
  )
}
