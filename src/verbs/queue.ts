/*
 * Completion queues in the library: polled without allocation, waited for by a promise, or walked by `for await`.
 */
import { Cq } from '../spec/classes/cq.ts'
import type { Carrier, RingPlace } from './carrier.ts'
import { type Completion, completionCursor } from './completion.ts'
import { consume, oldest, programRing } from './ring.ts'
import type { Waiters } from './waiters.ts'

export interface WaitOptions {
  /** Ends the waiting: the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal
  /** Wake only for solicited and failed completions. */
  readonly solicitedOnly?: boolean
}

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
  /** Throws RdmaError EBUSY while a queue pair uses it. */
  close(): void
}

export interface CqOptions {
  /** At least so many completions; default 256. */
  readonly entries?: number
  /** Completion vector, 0 ≤ vector < device.numCompVectors. */
  readonly vector?: number
}

const ENTRIES = 256

export const createCompletionQueue = (
  carrier: Carrier,
  waiters: Waiters,
  { entries = ENTRIES, vector = 0 }: CqOptions = {},
): CompletionQueue => {
  const number = waiters.add()
  const args = { cqe: entries, userHandle: BigInt(number), compVector: vector }
  const { object: handle, out } = carrier.call(Cq, 'create', 0, args)
  const ring = programRing(carrier.ring((out as unknown as { queue: RingPlace }).queue))
  const cursor = completionCursor(ring)
  /** The completion that `poll` found has its slot until the next look. */
  let held = false
  let open = true

  const look = (): boolean => {
    if (held) {
      held = false
      consume(ring)
    }
    const at = oldest(ring)
    if (at < 0) return false
    cursor.at = at
    held = true
    return true
  }
  const poll = (): boolean => look() || (carrier.drive() && look())

  const wait = async ({ signal, solicitedOnly = false }: WaitOptions = {}): Promise<void> => {
    signal?.throwIfAborted()
    const woken = waiters.wait(number, signal)
    carrier.call(Cq, 'reqNotify', handle, { solicitedOnly: solicitedOnly ? 1 : 0 })
    // What came before the queue was armed makes no event.
    carrier.drive()
    if (held) {
      held = false
      consume(ring)
    }
    if (oldest(ring) >= 0) waiters.wake(number)
    await woken
  }

  const completions = async function* (options: WaitOptions = {}): AsyncGenerator<Completion, void, void> {
    for (;;) {
      while (!poll()) await wait(options)
      yield cursor
    }
  }
  const close = (): void => {
    if (!open) return
    carrier.call(Cq, 'destroy', handle, {})
    open = false
    waiters.remove(number)
  }
  return {
    handle,
    entries: out.cqe,
    completion: cursor,
    poll,
    wait,
    completions,
    [Symbol.asyncIterator]: completions,
    close,
    [Symbol.dispose]: close,
  }
}
