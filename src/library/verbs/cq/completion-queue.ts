/*
 * Completion queues: polled, awaited, or iterated by `for await`.
 */
import { nextTurnOf } from '../../../host/event-loop/clock.ts'
import { Cq } from '../../../spec/classes/cq.ts'
import { CqKind } from '../../../spec/enums.ts'
import type { Out } from '../../../spec/schema/schema.ts'
import { checkOptions, type KnownOptions } from '../arguments/options.ts'
import type { MmapInfo } from '../carrier.ts'
import {
  asProgramCall,
  checkChoice,
  checkU32,
  closedError,
  invalidArgument,
  refused,
  withOptionNames,
  withoutObject,
} from '../error.ts'
import { type AbortOptions, checkSignal } from '../mailbox.ts'
import { DROP_RINGS, defineVerbsClass, RELEASED, SHOWN, VerbsObject } from '../objects/verbs-object.ts'
import { checkDevicePresent, type DeviceContext, eventSource, type Kind, type Plan, plan } from '../plan.ts'
import { consume, noProgramRing, oldestCompletion, type ProgramRing, ringOrNone, unreadCompletions } from '../ring.ts'
import { type Completion, CompletionCursor } from './completion.ts'

const kinds = {
  entries: CqKind.values.ENTRIES,
  timed: CqKind.values.EXTENDED,
  counting: CqKind.values.COUNTING,
} as const

/** Limits of event moderation: the first limit reached raises the event; both 0: each completion does. */
export interface Threshold {
  /** After this many completions, 0 to 65,535; 0: no limit. */
  readonly completions?: number | undefined
  /** This many microseconds after the first completion since the arming, 0 to 65,535; 0: no limit. */
  readonly microseconds?: number | undefined
}

/** When the next event is raised. Default of `completions` and `microseconds`: the values set by `moderate`. */
export interface ArmOptions extends Threshold {
  /** Only solicited and failed completions raise the event; default false. */
  readonly solicitedOnly?: boolean | undefined
}

/** Options of `wait`. */
export interface WaitOptions extends ArmOptions, AbortOptions {}

/** A completion queue (IBA 11.4.2), for the queue pairs created with it. */
export interface CompletionQueue extends Disposable, AsyncIterable<Completion>, Kind<'cq'> {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** Capacity in completions. */
  readonly entries: number
  /** The completion that `poll` found; valid until the next `poll`, `wait` or `resize`. */
  readonly completion: Completion
  /**
   * Takes the oldest completion; false if there is none. Allocates nothing. Throws RdmaError ERR_CLOSED if the
   * queue or the device is closed. Repeated polls throw EIO if the device's daemon has ended.
   */
  poll(): boolean
  /**
   * Resolves when `poll` may find a completion (kind 'counting': when `count` has grown since the last read), or when
   * the queue or the device is closed during the wait. Without an unread completion, rejects with RdmaError EOVERFLOW
   * if the queue has lost completions, ERR_CLOSED if the queue or the device is closed, EIO if the device was removed.
   */
  wait(options?: WaitOptions): Promise<void>
  /**
   * Yields completions until the queue is closed. Always yields the object `completion`: the next iteration overwrites
   * its values, `copy()` keeps them. Rejects with RdmaError EOVERFLOW if the queue has lost completions, ERR_CLOSED
   * if the device is closed, EIO if it was removed, EINVAL for kind 'counting', EBUSY while another loop reads the
   * queue.
   */
  completions(options?: WaitOptions): AsyncIterableIterator<Completion>
  /**
   * Resizes the queue to at least `entries`; unread completions stay. Throws RdmaError EINVAL if they do not fit, and
   * for kind 'counting'.
   */
  resize(entries: number): void
  /** Number of completions since the queue's creation. Read from the ring for kind 'counting', otherwise queried. */
  readonly count: number
  /** All attributes, as declared in the class. Throws RdmaError. */
  query(): Out<typeof Cq.methods.query>
  /**
   * Sets event moderation: an armed queue raises its event at the first limit reached. Default of each limit: 0.
   */
  moderate(threshold: Threshold): void
  /**
   * Arms the queue (ibv_req_notify_cq): the next completion raises one event. Needed if the queue is attached to an
   * event queue; `wait` arms the queue itself.
   */
  arm(options?: ArmOptions): void
  /** Destroys the queue. Throws RdmaError EBUSY while a queue pair uses it. */
  close(): void
}

/** Options of `device.cq`. */
export interface CqOptions {
  /** Minimum number of entries; default 256. */
  readonly entries?: number | undefined
  /** Completion vector, from 0 to `device.numCompVectors` - 1; default 0. */
  readonly vector?: number | undefined
  /**
   * 'entries' (default): a queue of completions. 'timed': completions have timestamps. 'counting': the queue has
   * only `count`, no completions, and never overflows.
   */
  readonly kind?: keyof typeof kinds | undefined
}

const cqOptionNames: KnownOptions<CqOptions> = { entries: true, vector: true, kind: true }
const thresholdOptionNames: KnownOptions<Threshold> = { completions: true, microseconds: true }
/** The options of `arm` and `wait`. `arm` ignores `signal`: a program may give it the options of `wait`. */
const waitOptionNames: KnownOptions<WaitOptions> = { ...thresholdOptionNames, solicitedOnly: 'flag', signal: true }

// The names of the options by their attributes, see `OptionNames`.
const optionsByCqAttribute = { cqe: 'entries', compVector: 'vector' }
const optionsByThresholdAttribute = { count: 'completions', period: 'microseconds' }

const DEFAULT_ENTRIES = 256
/** Maximum completions that an iteration yields in one turn of the event loop. */
const YIELDS_PER_TURN = 256
/** Maximum rounds of polling in `wait` before it arms the queue. */
const POLLS_BEFORE_ARMING = 4

/** Nothing for 'entries': devices of an older release do not know the argument `kind`. */
const kindArgument = (kind: keyof typeof kinds) => (kind === 'entries' ? {} : { kind: kinds[kind] })

type CqCreateResult = Out<typeof Cq.methods.create> & { readonly queue?: MmapInfo }

/** `wait`, of the program or of the library. */
const WAIT_FOR = Symbol('wait for')

class CqObject extends VerbsObject implements CompletionQueue {
  readonly userHandle: number
  entries: number
  readonly completion: CompletionCursor
  /** Set by the event CQ_ERR: completions were lost, and none will follow. */
  isOverrun = false
  readonly #isCounting: boolean
  /** Undefined if the driver provides no ring, and after the queue or the device is closed. */
  #mmapInfo: MmapInfo | undefined
  #ring: ProgramRing
  /** Whether `completion` has a slot that `#consume` must return. */
  #hasCompletion = false
  /** Whether a loop over `completions` has begun and not ended. */
  #isIterated = false
  /** Kind 'counting': `count` when last read. The ring's producer index is the count modulo 2^32. */
  #counted = 0

  constructor(
    context: DeviceContext,
    userHandle: number,
    handle: number,
    { cqe, queue }: CqCreateResult,
    kind: keyof typeof kinds,
  ) {
    super(context, handle)
    this.userHandle = userHandle
    this.entries = cqe
    this.#isCounting = kind === 'counting'
    this.#mmapInfo = queue
    this.#ring = ringOrNone(context.carrier, queue)
    this.completion = new CompletionCursor(this.#ring, kind === 'timed')
    context.check?.posts.watchPolls?.(handle, this.completion)
  }

  get cls(): typeof Cq {
    return Cq
  }

  get count(): number {
    if (!this.#isCounting) return Number(this.query().completions)
    const added = this.#uncounted()
    this.#counted += added
    if (added > 0) this.context.check?.posts.counted?.(this.handle, added)
    return this.#counted
  }

  query() {
    return this.context.carrier.call(Cq, 'query', this.handle, {}).out
  }

  moderate(threshold: Threshold): void {
    checkOptions('cq.moderate', 'threshold', threshold, thresholdOptionNames)
    const { completions = 0, microseconds = 0 } = threshold
    withOptionNames(optionsByThresholdAttribute, () =>
      this.context.carrier.call(Cq, 'modify', this.handle, { count: completions, period: microseconds }),
    )
  }

  poll(): boolean {
    if (this?.context === undefined) throw withoutObject('cq.poll')
    return this.#pollRing() || (this.context.carrier.drive('cq.poll') && this.#pollRing()) || this.#refuseIfClosed()
  }

  /** Throws if the queue or its device is closed: a polling program would wait for ever. */
  #refuseIfClosed(): false {
    if (!this.isOpen) throw closedError('cq.poll')
    // A removed device leaves the ring, which may get flushed completions; a closed device has dropped it.
    if (this.#mmapInfo === undefined) checkDevicePresent('cq.poll', this.context)
    return false
  }

  arm(options: ArmOptions = {}): void {
    checkOptions('cq.arm', 'options', options, waitOptionNames)
    this.#armWith(options.solicitedOnly, options.completions, options.microseconds)
  }

  #armWith(
    solicitedOnly: boolean | undefined,
    completions: number | undefined,
    microseconds: number | undefined,
  ): void {
    const args = {
      solicitedOnly: solicitedOnly ? 1 : 0,
      ...(completions !== undefined && { count: completions }),
      ...(microseconds !== undefined && { period: microseconds }),
    }
    withOptionNames(optionsByThresholdAttribute, () => this.context.carrier.call(Cq, 'reqNotify', this.handle, args))
  }

  wait(options: WaitOptions = {}): Promise<void> {
    if (this?.context === undefined) return Promise.reject(withoutObject('cq.wait'))
    return this[WAIT_FOR](options, true)
  }

  /** `isProgram`: whether the program waits, not the library. */
  async [WAIT_FOR](options: WaitOptions, isProgram: boolean): Promise<void> {
    checkOptions('cq.wait', 'options', options, waitOptionNames)
    checkSignal('cq.wait', options)
    // Read before the first `await`: the program may use its record again.
    const { signal, solicitedOnly, completions, microseconds } = options
    const { carrier, waiters } = this.context
    signal?.throwIfAborted()
    this.#consume()
    const wasOpen = this.isOpen
    const wasOver = waiters.isOver
    // After many waits in one turn of the event loop, continues in the next turn, so that timers and I/O run.
    const turn = carrier.overdueTurn()
    if (turn !== undefined) await turn
    // Peers in this process often complete a request within a few microtasks.
    for (let i = 0; i < POLLS_BEFORE_ARMING; i++) {
      if (this.#hasUnread()) return
      if (carrier.awaitsNextTurn()) break
      if (carrier.drive('cq.wait') && this.#hasUnread()) return
      if (carrier.isRemote) break
      await undefined
    }
    signal?.throwIfAborted()
    if (this.isOverrun)
      throw refused(
        'EOVERFLOW',
        'cq.wait',
        `completions were lost: the queue has room for ${this.entries}`,
        'set entries to the requests that can be outstanding on all its queue pairs',
      )
    // If the queue or its device is closed during a wait, the wait resolves. A later wait fails in `arm`.
    if ((wasOpen && !this.isOpen) || (waiters.isOver && !wasOver)) return
    const woken = waiters.wait(this.userHandle, signal)
    try {
      asProgramCall('cq.wait', () => this.#armWith(solicitedOnly, completions, microseconds))
      // Completions older than the arming raise no event.
      if (!carrier.awaitsNextTurn()) carrier.drive('cq.wait')
    } catch (error) {
      // A removed device has flushed requests: the program polls their completions before `wait` fails.
      waiters.wake(this.userHandle)
      if (!this.#hasUnread()) throw error
    }
    if (this.#hasUnread()) waiters.wake(this.userHandle)
    await (isProgram ? carrier.clock.watch('cq.wait', woken) : woken)
  }

  async *completions(options: WaitOptions = {}): AsyncIterableIterator<Completion> {
    if (this.#isCounting)
      throw invalidArgument(
        'cq.completions',
        'a counting queue has no completions to yield',
        'await wait() and read count',
      )
    checkOptions('cq.completions', 'options', options, waitOptionNames)
    checkSignal('cq.completions', options)
    if (this.#isIterated)
      throw refused(
        'EBUSY',
        'cq.completions',
        'another loop reads this queue, and both would lose completions',
        'read the queue in one loop, or give each loop a queue of its own',
      )
    const waitOptions = { ...options }
    this.#isIterated = true
    try {
      for (let yielded = 1; ; yielded++) {
        for (;;) {
          if (!this.isOpen) return
          if (this.poll()) break
          await this.wait(waitOptions)
        }
        yield this.completion
        waitOptions.signal?.throwIfAborted()
        // A loop that posts a request after each completion could keep the event loop from running.
        if (yielded % YIELDS_PER_TURN === 0) await nextTurnOf(this.context.carrier.clock)
      }
    } finally {
      this.#isIterated = false
    }
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<Completion> {
    return this.completions()
  }

  resize(entries: number): void {
    checkU32('cq.resize', 'entries', entries)
    const { carrier } = this.context
    this.#consume()
    const { cqe, queue } = withOptionNames(
      optionsByCqAttribute,
      () => carrier.call(Cq, 'modify', this.handle, { cqe: entries }).out as CqCreateResult,
    )
    const oldInfo = this.#mmapInfo
    this.entries = cqe
    this.#mmapInfo = queue
    // The device has moved the unread completions to the beginning of the new ring.
    this.#ring = ringOrNone(carrier, queue)
    this.completion.ring = this.#ring
    if (oldInfo !== undefined) carrier.release(oldInfo)
  }

  /** Returns the slot of `completion` to the device. */
  #consume(): void {
    if (this.#hasCompletion) consume(this.#ring)
    this.#hasCompletion = false
  }

  /** `poll` without driving the device. */
  #pollRing(): boolean {
    this.#consume()
    if (this.#isCounting) return false
    const at = oldestCompletion(this.#ring)
    if (at < 0) return false
    this.completion.at = at
    this.#hasCompletion = true
    return true
  }

  /** Kind 'counting': completions since `count` was last read; 0 without a ring. */
  #uncounted(): number {
    const ring = this.#ring
    if (this.#mmapInfo === undefined) return 0
    return ((Atomics.load(ring.words, ring.producer) >>> 0) - (this.#counted >>> 0)) >>> 0
  }

  /** Whether there is an unread completion, or the count has grown. */
  #hasUnread(): boolean {
    return this.#isCounting ? this.#uncounted() > 0 : oldestCompletion(this.#ring) >= 0
  }

  override [SHOWN]() {
    const { handle, entries, isOverrun } = this
    if (this.#isCounting) return { handle, kind: 'counting', count: this.#counted + this.#uncounted() }
    const waiting = unreadCompletions(this.#ring) - (this.#hasCompletion ? 1 : 0)
    return { handle, entries, waiting, ...(isOverrun && { isOverrun }) }
  }

  protected override [RELEASED](): void {
    const { carrier, waiters } = this.context
    waiters.remove(this.userHandle)
    const info = this.#mmapInfo
    this[DROP_RINGS]()
    if (info !== undefined) carrier.release(info)
  }

  override [DROP_RINGS](): void {
    this.#counted += this.#isCounting ? this.#uncounted() : 0
    this.#hasCompletion = false
    this.#mmapInfo = undefined
    this.#ring = noProgramRing(this.context.carrier.layout)
    this.completion.ring = this.#ring
  }
}
defineVerbsClass(CqObject, 'cq', 'CompletionQueue')

/** `cq.wait()` of the library itself. */
export const waitInLibrary = (cq: CompletionQueue): Promise<void> => (cq as CqObject)[WAIT_FOR]({}, false)

/** Handles CQ_ERR of the completion queue with this user handle: its `wait` ends, and fails if called again. */
export const noteOverrun = ({ sources, waiters }: DeviceContext, userHandle: number): void => {
  const cq = sources.get(userHandle)
  if (cq instanceof CqObject) cq.isOverrun = true
  waiters.wake(userHandle)
}

export const cqPlan = (context: DeviceContext, options: CqOptions = {}): Plan<CompletionQueue> => {
  checkOptions('cq.create', 'options', options, cqOptionNames)
  const { entries = DEFAULT_ENTRIES, vector = 0, kind = 'entries' } = options
  checkChoice('cq.create', 'kind', kind, Object.keys(kinds))
  const { carrier } = context
  const source = eventSource(context, Cq)
  const { userHandle } = source
  const args = {
    cqe: entries,
    userHandle: BigInt(userHandle),
    compVector: vector,
    ...carrier.channel,
    ...kindArgument(kind),
  }
  return plan(
    Cq,
    args,
    ({ object, out }) => source.assign(new CqObject(context, userHandle, object, out, kind)),
    source.release,
    optionsByCqAttribute,
  )
}
