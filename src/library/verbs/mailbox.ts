/*
 * A mailbox keeps values that arrive asynchronously, such as events or connection requests, until the program takes
 * them by `poll` or `for await`.
 */

import { checkOptions, type KnownOptions } from './arguments/options.ts'
import type { Carrier } from './carrier.ts'
import type { WaiterList } from './cq/waiters.ts'
import { formatValue, invalidArgument } from './error.ts'

/** Options of waiting. */
export interface AbortOptions {
  /** Aborts the wait, which rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

const abortOptionNames: KnownOptions<AbortOptions> = { signal: true }

/** Checks that `signal`, if given, is an AbortSignal. Throws RdmaError EINVAL. */
export const checkSignal = (call: string, { signal }: AbortOptions): void => {
  if (signal !== undefined && typeof (signal as Partial<AbortSignal> | null)?.throwIfAborted !== 'function')
    throw invalidArgument(
      call,
      `signal ${formatValue(signal)} is not an AbortSignal`,
      'give the signal of an AbortController, or AbortSignal.timeout(…)',
    )
}

/** Checks the options of waiting. Throws RdmaError EINVAL. */
export const checkAbortOptions = (call: string, options: AbortOptions): void => {
  checkOptions(call, 'options', options, abortOptionNames)
  checkSignal(call, options)
}

/** Values that arrive asynchronously: events, connection requests, records of a driver, datagrams. */
export interface Arrivals<T> {
  /** Takes the oldest value; undefined if there is none. */
  poll(): T | undefined
  /** Resolves when `poll` may find a value, or when no more can follow. */
  wait(options?: AbortOptions): Promise<void>
  /**
   * Yields values until the object is closed or the device is removed. Rejects with the signal's reason if the signal
   * is aborted during a wait.
   */
  arrivals(options?: AbortOptions): AsyncIterableIterator<T>
}

export interface Mailbox<T> extends Arrivals<T> {
  put(value: T): void
  /** Discards the values for which `isDropped` returns true. */
  drop(isDropped: (value: T) => boolean): void
  /** Wakes all waiters: no value can follow. Values that have arrived can still be taken. */
  end(): void
}

/** `owner`: the name of the object in errors. */
export const createMailbox = <T>(
  { carrier, waiters }: { readonly carrier: Pick<Carrier, 'overdueTurn' | 'clock'>; readonly waiters: WaiterList },
  owner: string,
): Mailbox<T> => {
  const id = waiters.add()
  // Two lists, because `shift` of a long list moves all its values.
  /** Values in the order of their arrival, after those of `older`. */
  let newer: T[] = []
  /** Values in the reverse order: the last one arrived first. */
  let older: T[] = []
  let isEnded = false
  const isEmpty = (): boolean => older.length + newer.length === 0
  const poll = (): T | undefined => {
    if (older.length === 0) {
      older = newer.reverse()
      newer = []
    }
    return older.pop()
  }
  const isOver = (): boolean => isEnded || waiters.isOver
  const wait = async (options: AbortOptions = {}): Promise<void> => {
    checkAbortOptions(`${owner}.wait`, options)
    const { signal } = options
    signal?.throwIfAborted()
    const turn = carrier.overdueTurn()
    if (turn !== undefined) await turn
    if (!isEmpty()) return
    if (isOver()) await carrier.clock.inVain?.()
    else await carrier.clock.watch(`${owner}.wait`, waiters.wait(id, signal))
  }
  return {
    put(value) {
      newer.push(value)
      waiters.wake(id)
    },
    drop(isDropped) {
      const isKept = (value: T): boolean => !isDropped(value)
      newer = newer.filter(isKept)
      older = older.filter(isKept)
    },
    end() {
      isEnded = true
      waiters.remove(id)
    },
    poll,
    wait,
    async *arrivals(options: AbortOptions = {}) {
      checkAbortOptions(`${owner}.arrivals`, options)
      const { signal } = options
      let hasYielded = false
      while (!isEmpty() || !isOver()) {
        if (isEmpty()) {
          await wait({ signal })
          continue
        }
        hasYielded = true
        yield poll() as T
      }
      if (!hasYielded) await carrier.clock.inVain?.()
    },
  }
}
