/*
 * Completion queues in the library: polled without allocation, waited for by a promise, or walked by `for await`.
 */
import { Cq } from '../spec/classes/cq.ts'
import { CqKind } from '../spec/enums.ts'
import type { Out } from '../spec/schema.ts'
import type { RingPlace } from './carrier.ts'
import { type Completion, completionCursor } from './completion.ts'
import { checkChoice } from './error.ts'
import type { Until } from './mailbox.ts'
import { checkOptions, type Words } from './options.ts'
import { closer, eventSource, type Kit, type Plan, plan } from './plan.ts'
import { consume, noProgramRing, oldest, programRing } from './ring.ts'

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

export interface CompletionQueue extends Disposable, AsyncIterable<Completion> {
  readonly handle: number
  /** How many completions fit. */
  readonly entries: number
  /** The completion that `poll` found last; it holds until the next `poll`. */
  readonly completion: Completion
  /** Takes the oldest completion; false if there is none. Allocates nothing. */
  poll(): boolean
  /** Resolves when `poll` may find something. */
  wait(options?: WaitOptions): Promise<void>
  /** Completions as they come, without end; the object is the same each time and holds until the next step. */
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

const ENTRIES = 256
/** Looks at an empty queue before it is armed. */
const LOOKS = 4

/** Devices of an older release know no kinds: it is only said where it matters. */
const kindOf = (kind: keyof typeof kinds) => (kind === 'entries' ? {} : { kind: kinds[kind] })

export const cqPlan = (kit: Kit, options: CqOptions = {}): Plan<CompletionQueue> => {
  checkOptions('cq.create', 'options', options, cqWords)
  const { entries = ENTRIES, vector = 0, kind = 'entries' } = options
  checkChoice('cq.create', 'kind', kind, Object.keys(kinds))
  const { carrier, waiters } = kit
  const source = eventSource(kit, Cq)
  const { number } = source
  const args = { cqe: entries, userHandle: BigInt(number), compVector: vector, ...carrier.channel, ...kindOf(kind) }
  return plan(
    Cq,
    args,
    ({ object: handle, out }) => {
      let { cqe } = out
      let place = (out as unknown as { queue: RingPlace }).queue
      let ring = programRing(carrier, place)
      const cursor = completionCursor(ring, kind === 'timed')
      const isCounting = kind === 'counting'
      /** Completions that a counting queue has told of; its ring has them modulo 2^32. */
      let told = 0
      const uncounted = (): number => ((Atomics.load(ring.words, ring.producer) >>> 0) - (told >>> 0)) >>> 0
      const query = () => carrier.call(Cq, 'query', handle, {}).out
      /** The completion that `poll` found has its slot until the next look. */
      let held = false

      const letGo = (): void => {
        if (held) consume(ring)
        held = false
      }
      const look = (): boolean => {
        letGo()
        if (isCounting) return false
        const at = oldest(ring)
        if (at < 0) return false
        cursor.at = at
        held = true
        return true
      }
      const hasNews = (): boolean => (isCounting ? uncounted() > 0 : oldest(ring) >= 0)
      const poll = (): boolean => look() || (carrier.drive() && look())

      const arm = (options: ArmOptions = {}): void => {
        checkOptions('cq.arm', 'options', options, armWords)
        const { solicitedOnly = false, completions, microseconds } = options
        carrier.call(Cq, 'reqNotify', handle, {
          solicitedOnly: solicitedOnly ? 1 : 0,
          ...(completions !== undefined && { count: completions }),
          ...(microseconds !== undefined && { period: microseconds }),
        })
      }
      const wait = async (options: WaitOptions = {}): Promise<void> => {
        const { signal } = options
        signal?.throwIfAborted()
        letGo()
        const wasOver = waiters.over
        const pause = carrier.pause()
        if (pause !== undefined) await pause
        // What others in this process are about to do is often done after a few microtasks.
        for (let i = 0; i < LOOKS; i++) {
          if (hasNews() || (carrier.drive() && hasNews())) return
          if (carrier.remote) break
          await undefined
        }
        signal?.throwIfAborted()
        // Closed meanwhile: who waited is woken. Who begins to wait only now is told by the call.
        if (waiters.over && !wasOver) return
        const woken = waiters.wait(number, signal)
        try {
          arm(options)
        } catch (error) {
          // The device may have gone just now, and what it has flushed is to be read before that is told.
          waiters.wake(number)
          if (!hasNews()) throw error
        }
        // What came before the queue was armed makes no event.
        carrier.drive()
        if (hasNews()) waiters.wake(number)
        await woken
      }

      const completions = async function* (options: WaitOptions = {}): AsyncGenerator<Completion, void, void> {
        for (;;) {
          while (!poll()) await wait(options)
          yield cursor
        }
      }
      const close = closer(carrier, Cq, handle, () => {
        source.forget()
        carrier.release(place)
        // Its memory may be another queue's by now.
        held = false
        ring = noProgramRing(carrier.layout)
      })
      return source.is({
        handle,
        get entries() {
          return cqe
        },
        completion: cursor,
        get count() {
          if (!isCounting) return Number(query().completions)
          told += uncounted()
          return told
        },
        query,
        moderate(threshold) {
          checkOptions('cq.moderate', 'threshold', threshold, thresholdWords)
          const { completions = 0, microseconds = 0 } = threshold
          carrier.call(Cq, 'modify', handle, { count: completions, period: microseconds })
        },
        poll,
        arm,
        wait,
        completions,
        [Symbol.asyncIterator]: completions,
        resize(wanted) {
          letGo()
          const changed = carrier.call(Cq, 'modify', handle, { cqe: wanted }).out
          cqe = changed.cqe
          const old = place
          place = (changed as unknown as { queue: RingPlace }).queue
          // The device has moved what waits to the new ring's beginning.
          ring = programRing(carrier, place)
          cursor.ring = ring
          carrier.release(old)
        },
        close,
        [Symbol.dispose]: close,
      })
    },
    source.forget,
  )
}
