/*
 * Values that come by themselves and wait here for somebody who takes them: asynchronous events of a device, events of
 * an event queue, records of a driver. Taken one by one, waited for, or walked by `for await`.
 */
import type { Carrier } from './carrier.ts'
import { checkOptions, type Words } from './checks/options.ts'
import type { WaiterList } from './cq/waiters.ts'
import { invalidArgument } from './error.ts'

/** What can be said of waiting. */
export interface Until {
  /** Ends the waiting: it rejects with the signal's reason. */
  readonly signal?: AbortSignal
}

const untilWords: Words<Until> = { signal: true }

/** That `signal` is one, if there is any. Throws RdmaError EINVAL. */
export const checkSignal = (call: string, { signal }: Until): void => {
  if (signal !== undefined && typeof (signal as Partial<AbortSignal> | null)?.throwIfAborted !== 'function')
    throw invalidArgument(
      call,
      'signal is no AbortSignal',
      'give that of an AbortController, or AbortSignal.timeout(…)',
    )
}

/** That nothing else was said of waiting. Throws RdmaError EINVAL. */
export const checkUntil = (call: string, options: Until): void => {
  checkOptions(call, 'options', options, untilWords)
  checkSignal(call, options)
}

/** What a program sees of it. */
export interface Arrivals<T> {
  /** The oldest one, or undefined if none is there. */
  poll(): T | undefined
  /** Resolves when `poll` may find something, or nothing will come any more. */
  wait(options?: Until): Promise<void>
  /** All as they come, until the signal, the end of the object or that of the device. */
  arrivals(options?: Until): AsyncIterableIterator<T>
}

export interface Mailbox<T> extends Arrivals<T> {
  put(value: T): void
  /** Takes out what is not to be seen any more. */
  drop(isGone: (value: T) => boolean): void
  /** Nothing comes any more: whoever waits is woken. */
  end(): void
}

/** `owner`: what sentences call the object whose mailbox it is. */
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
