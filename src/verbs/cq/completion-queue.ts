/*
 * Completion queues in the library: polled without allocation, waited for by a promise, or walked by `for await`.
 */
import { Cq } from '../../spec/classes/cq.ts'
import { CqKind } from '../../spec/enums.ts'
import type { Out } from '../../spec/schema/schema.ts'
import type { RingPlace } from '../carrier.ts'
import { checkOptions, type Words } from '../checks/options.ts'
import { checkChoice, detached, refused, withOptionWords } from '../error.ts'
import { checkSignal, type Until } from '../mailbox.ts'
import { type DeviceContext, eventSource, type HeldObject, type Kind, type Plan, plan } from '../plan.ts'
import { consume, noProgramRing, oldestCompletion, type ProgramRing, ringOrNone, unreadCompletions } from '../ring.ts'
import { closeMethods, guarded, shownAs, withMethods } from '../shared-methods.ts'
import { type Completion, type CompletionCursor, completionCursor } from './completion.ts'

const { ENTRIES: PLAIN, EXTENDED, COUNTING } = CqKind.values
const kinds = { entries: PLAIN, timed: EXTENDED, counting: COUNTING } as const

/** When completions make an event (R36). */
export interface Threshold {
  /** After so many, 0 to 65,535; 0 and 1: after the next one. */
  readonly completions?: number
  /** Or so many microseconds after the first of them, 0 to 65,535; 0: however long it takes. */
  readonly microseconds?: number
}

/** `completions`, `microseconds`: for this time, in place of what `moderate` has set. */
export interface ArmOptions extends Threshold {
  /** Only for solicited and failed completions. */
  readonly solicitedOnly?: boolean
}

export interface WaitOptions extends ArmOptions, Until {}

export interface CompletionQueue extends Disposable, AsyncIterable<Completion>, Kind<'cq'> {
  readonly handle: number
  /** How many completions fit. */
  readonly entries: number
  /** The completion that `poll` found last; it holds until the next `poll`. */
  readonly completion: Completion
  /** Takes the oldest completion; false if there is none. Allocates nothing. */
  poll(): boolean
  /** Resolves when `poll` may find something. */
  wait(options?: WaitOptions): Promise<void>
  /** Completions as they come, until it is closed; the object is the same each time and holds until the next step. */
  completions(options?: WaitOptions): AsyncIterableIterator<Completion>
  /** At least so many entries from now on; completions that wait stay. Throws RdmaError EINVAL if they are more. */
  resize(entries: number): void
  /** How many completions there were since it was made, which a queue of kind 'counting' tells without a call. */
  readonly count: number
  /** What the device says of it: `completions`, `errors` and the threshold among others. */
  query(): Out<typeof Cq.methods.query>
  /**
   * Whoever waits is woken after so many completions, or so many microseconds after the first of them, whichever comes
   * first; each 0 to 65,535, both 0 for the next completion as without a threshold (R36).
   */
  moderate(threshold: Threshold): void
  /** Makes one event of what completes next: for a queue that is attached to an event queue. `wait` does it itself. */
  arm(options?: ArmOptions): void
  /** Throws RdmaError EBUSY while a queue pair uses it. */
  close(): void
}

export interface CqOptions {
  /** At least so many completions; default 256. */
  readonly entries?: number
  /** Completion vector, 0 ≤ vector < device.numCompVectors. */
  readonly vector?: number
  /**
   * 'entries', the default; 'timed': completions have time stamps; 'counting': there are none, only `count`, so that it
   * is never full, and `wait` is for it to grow (R11).
   */
  readonly kind?: keyof typeof kinds
}

const cqWords: Words<CqOptions> = { entries: true, vector: true, kind: true }
const thresholdWords: Words<Threshold> = { completions: true, microseconds: true }
/** Of waiting too, which passes on what it was given. */
const armWords: Words<WaitOptions> = { ...thresholdWords, solicitedOnly: true, signal: true }

/** Attributes that options become. */
const cqOptions = { cqe: 'entries', compVector: 'vector' }
const thresholdOptions = { count: 'completions', period: 'microseconds' }

const ENTRIES = 256
/** Completions that a walk gives before the event loop has a turn. */
const TAKEN_PER_TURN = 256
/** Looks at an empty queue before it is armed. */
const LOOKS = 4

/** Devices of an older release know no kinds: it is only said where it matters. */
const kindOf = (kind: keyof typeof kinds) => (kind === 'entries' ? {} : { kind: kinds[kind] })

interface CqFields extends HeldObject {
  /** Its number among what has events. */
  readonly number: number
  readonly isCounting: boolean
  entries: number
  place: RingPlace | undefined
  ring: ProgramRing
  readonly completion: CompletionCursor
  /** The completion that `poll` found has its slot until the next look. */
  isHeld: boolean
  /** Completions that a counting queue has told of; its ring has them modulo 2^32. */
  told: number
  /** Completions were lost (IBV_EVENT_CQ_ERR): nothing comes any more. */
  isOverrun: boolean
}

const releaseQueue = (self: CqFields): void => {
  if (self.isHeld) consume(self.ring)
  self.isHeld = false
}
const pollRing = (self: CqFields): boolean => {
  releaseQueue(self)
  if (self.isCounting) return false
  const at = oldestCompletion(self.ring)
  if (at < 0) return false
  self.completion.at = at
  self.isHeld = true
  return true
}
const uncounted = ({ ring, told }: CqFields): number =>
  ((Atomics.load(ring.words, ring.producer) >>> 0) - (told >>> 0)) >>> 0
const hasNews = (self: CqFields): boolean => (self.isCounting ? uncounted(self) > 0 : oldestCompletion(self.ring) >= 0)

const cqMethods: Omit<CompletionQueue, 'handle' | 'entries' | 'completion'> & { readonly cls: typeof Cq } & ThisType<
    CqFields & CompletionQueue
  > = {
  cls: Cq,
  get count() {
    const self = this as unknown as CqFields & CompletionQueue
    if (!self.isCounting) return Number(self.query().completions)
    self.told += uncounted(self)
    return self.told
  },
  query() {
    return this.kit.carrier.call(Cq, 'query', this.handle, {}).out
  },
  moderate(threshold) {
    checkOptions('cq.moderate', 'threshold', threshold, thresholdWords)
    const { completions = 0, microseconds = 0 } = threshold
    withOptionWords(thresholdOptions, () =>
      this.kit.carrier.call(Cq, 'modify', this.handle, { count: completions, period: microseconds }),
    )
  },
  poll() {
    if (this?.kit === undefined) throw detached('cq.poll')
    return pollRing(this) || (this.kit.carrier.drive() && pollRing(this))
  },
  arm(options = {}) {
    checkOptions('cq.arm', 'options', options, armWords)
    const { solicitedOnly = false, completions, microseconds } = options
    const args = {
      solicitedOnly: solicitedOnly ? 1 : 0,
      ...(completions !== undefined && { count: completions }),
      ...(microseconds !== undefined && { period: microseconds }),
    }
    withOptionWords(thresholdOptions, () => this.kit.carrier.call(Cq, 'reqNotify', this.handle, args))
  },
  async wait(options = {}) {
    if (this?.kit === undefined) throw detached('cq.wait')
    checkOptions('cq.wait', 'options', options, armWords)
    checkSignal('cq.wait', options)
    const { signal } = options
    const { carrier, waiters } = this.kit
    signal?.throwIfAborted()
    releaseQueue(this)
    const wasOver = waiters.over
    const pause = carrier.pause()
    if (pause !== undefined) await pause
    // What others in this process are about to do is often done after a few microtasks.
    for (let i = 0; i < LOOKS; i++) {
      if (hasNews(this) || (carrier.drive() && hasNews(this))) return
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
    // Closed meanwhile: who waited is woken. Who begins to wait only now is told by the call.
    if (waiters.over && !wasOver) return
    const woken = waiters.wait(this.number, signal)
    try {
      this.arm(options)
    } catch (error) {
      // The device may have gone just now, and what it has flushed is to be read before that is told.
      waiters.wake(this.number)
      if (!hasNews(this)) throw error
    }
    // What came before the queue was armed makes no event.
    carrier.drive()
    if (hasNews(this)) waiters.wake(this.number)
    await woken
  },
  async *completions(options = {}) {
    for (let taken = 1; ; taken++) {
      while (!this.poll()) {
        if (!this.isOpen) return
        await this.wait(options)
      }
      yield this.completion
      options.signal?.throwIfAborted()
      // Whoever posts from each completion finds the next one at once, for ever.
      if (taken % TAKEN_PER_TURN === 0) await new Promise(resolve => setImmediate(resolve))
    }
  },
  [Symbol.asyncIterator]() {
    return this.completions()
  },
  resize(wanted) {
    const { carrier } = this.kit
    releaseQueue(this)
    const { cqe, queue } = withOptionWords(
      cqOptions,
      () => carrier.call(Cq, 'modify', this.handle, { cqe: wanted }).out as Made,
    )
    const old = this.place
    this.entries = cqe
    this.place = queue
    // The device has moved what waits to the new ring's beginning.
    this.ring = ringOrNone(carrier, queue)
    this.completion.ring = this.ring
    if (old !== undefined) carrier.release(old)
  },
  ...closeMethods<CqFields>(Cq, self => {
    const { carrier, waiters } = self.kit
    waiters.remove(self.number)
    if (self.place !== undefined) carrier.release(self.place)
    // Its memory may be another queue's by now.
    self.isHeld = false
    self.ring = noProgramRing(carrier.layout)
  }),
}
guarded('cq', cqMethods)
shownAs<CqFields>(cqMethods, 'CompletionQueue', self => {
  const { handle, entries, isCounting, ring, isHeld, isOverrun } = self
  if (isCounting) return { handle, kind: 'counting', count: self.told + uncounted(self) }
  const waiting = unreadCompletions(ring) - (isHeld ? 1 : 0)
  return { handle, entries, waiting, ...(isOverrun && { isOverrun }) }
})

type Made = Out<typeof Cq.methods.create> & { readonly queue?: RingPlace }

export const cqPlan = (kit: DeviceContext, options: CqOptions = {}): Plan<CompletionQueue> => {
  checkOptions('cq.create', 'options', options, cqWords)
  const { entries = ENTRIES, vector = 0, kind = 'entries' } = options
  checkChoice('cq.create', 'kind', kind, Object.keys(kinds))
  const { carrier } = kit
  const source = eventSource(kit, Cq)
  const { number } = source
  const args = { cqe: entries, userHandle: BigInt(number), compVector: vector, ...carrier.channel, ...kindOf(kind) }
  return plan(
    Cq,
    args,
    ({ object: handle, out }) => {
      const { cqe, queue } = out as Made
      const ring = ringOrNone(carrier, queue)
      return source.is(
        withMethods<CompletionQueue>(cqMethods, {
          kit,
          handle,
          isOpen: true,
          number,
          isCounting: kind === 'counting',
          entries: cqe,
          place: queue,
          ring,
          completion: completionCursor(ring, kind === 'timed'),
          isHeld: false,
          told: 0,
          isOverrun: false,
        } satisfies CqFields),
      )
    },
    source.forget,
    cqOptions,
  )
}
