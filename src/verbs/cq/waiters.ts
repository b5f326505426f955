/*
 * Waiters for events of objects. An object with events gets a number, its user handle at the device; events carry that
 * number.
 */

export interface WaiterList {
  /** A number for a new object; never 0. */
  add(): number
  /** The object was destroyed: its waiters wake and detect that. */
  remove(number: number): void
  /** Resolves with the next wake; rejects with the signal's reason if it is aborted first. */
  wait(number: number, signal?: AbortSignal): Promise<void>
  wake(number: number): void
  /** Wakes all waiters and sets `over`: no event can follow. */
  wakeAll(): void
  readonly over: boolean
}

/**
 * `changed`: called when the first waiter starts and when the last one ends. `live`: its keys are the numbers in use; a
 * new number has the value undefined.
 */
export const createWaiterList = (
  changed: (begins: boolean) => void = () => {},
  live: Map<number, unknown> = new Map(),
): WaiterList => {
  let count = 0
  /** Only numbers with waiters. */
  const waiting = new Map<number, Set<() => void>>()
  let next = 1
  const wake = (number: number): void => {
    const all = waiting.get(number)
    if (all !== undefined) for (const one of [...all]) one()
  }
  // A plain property instead of an accessor, because every post reads it.
  const waiters = {
    over: false,
    add() {
      live.set(next, undefined)
      return next++
    },
    remove(number: number) {
      wake(number)
      live.delete(number)
    },
    wait: (number: number, signal?: AbortSignal) =>
      new Promise<void>((resolve, reject) => {
        if (!live.has(number)) {
          resolve()
          return
        }
        if (signal?.aborted) {
          reject(signal.reason)
          return
        }
        const all = waiting.get(number) ?? new Set()
        waiting.set(number, all)
        const end = (): void => {
          all.delete(done)
          if (all.size === 0) waiting.delete(number)
          signal?.removeEventListener('abort', aborted)
          if (--count === 0) changed(false)
        }
        const done = (): void => {
          end()
          resolve()
        }
        const aborted = (): void => {
          end()
          reject(signal?.reason)
        }
        all.add(done)
        if (++count === 1) changed(true)
        signal?.addEventListener('abort', aborted, { once: true })
      }),
    wake,
    wakeAll() {
      waiters.over = true
      for (const number of [...waiting.keys()]) wake(number)
    },
  }
  return waiters
}
