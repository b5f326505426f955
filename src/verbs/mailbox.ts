/*
 * A queue of values that arrive asynchronously until the program takes them: asynchronous events of a device, events of
 * an event queue, records of a driver. They can be polled, awaited, or iterated by `for await`.
 */
import type { Carrier } from './carrier.ts'
import { checkOptions, type KnownOptions } from './checks/options.ts'
import type { WaiterList } from './cq/waiters.ts'
import { invalidArgument } from './error.ts'

/** Options of waiting. */
export interface Until {
  /** Aborts the wait, which rejects with the signal's reason. */
  readonly signal?: AbortSignal
}

const untilOptionNames: KnownOptions<Until> = { signal: true }

/** Checks that `signal`, if given, is an AbortSignal. Throws RdmaError EINVAL. */
export const checkSignal = (call: string, { signal }: Until): void => {
  if (signal !== undefined && typeof (signal as Partial<AbortSignal> | null)?.throwIfAborted !== 'function')
    throw invalidArgument(
      call,
      'signal is not an AbortSignal',
      'give that of an AbortController, or AbortSignal.timeout(…)',
    )
}

/** Checks the options of waiting. Throws RdmaError EINVAL. */
export const checkUntil = (call: string, options: Until): void => {
  checkOptions(call, 'options', options, untilOptionNames)
  checkSignal(call, options)
}

/** The program's view of a mailbox. */
export interface Arrivals<T> {
  /** Takes the oldest value; undefined if there is none. */
  poll(): T | undefined
  /** Resolves when `poll` may find a value, or when no more can follow. */
  wait(options?: Until): Promise<void>
  /** Yields values until the signal is aborted, the object is closed, or the device is removed. */
  arrivals(options?: Until): AsyncIterableIterator<T>
}

export interface Mailbox<T> extends Arrivals<T> {
  put(value: T): void
  /** Removes values that must not be seen any more. */
  drop(isGone: (value: T) => boolean): void
  /** No value can follow: wakes all waiters. */
  end(): void
}

/** `owner`: the name of its object in sentences. */
export const createMailbox = <T>(
  { carrier, waiters }: { readonly carrier: Pick<Carrier, 'pause'>; readonly waiters: WaiterList },
  owner: string,
): Mailbox<T> => {
  const number = waiters.add()
  let waiting: T[] = []
  let ended = false
  const isOver = (): boolean => ended || waiters.over
  const wait = async (options: Until = {}): Promise<void> => {
    checkUntil(`${owner}.wait`, options)
    const { signal } = options
    signal?.throwIfAborted()
    const pause = carrier.pause()
    if (pause !== undefined) await pause
    if (waiting.length === 0 && !isOver()) await waiters.wait(number, signal)
  }
  return {
    put(value) {
      waiting.push(value)
      waiters.wake(number)
    },
    drop(isGone) {
      waiting = waiting.filter(value => !isGone(value))
    },
    end() {
      ended = true
      waiters.remove(number)
    },
    poll: () => waiting.shift(),
    wait,
    async *arrivals(options: Until = {}) {
      while (waiting.length > 0 || !isOver()) {
        if (waiting.length > 0) yield waiting.shift() as T
        else await wait(options)
      }
    },
  }
}
