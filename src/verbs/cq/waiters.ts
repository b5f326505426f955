/*
 * Who waits for the events of which object. Objects that have events get a number, with which they are made at the
 * device (the user handle); an event names it again.
 */

export interface WaiterList {
  /** A number for one more object; 0 is nobody's. */
  add(): number
  /** The object is gone: who still waits for it is woken, and finds that out. */
  remove(number: number): void
  /** Resolves with the next wake; rejects with the signal's reason if that comes first. */
  wait(number: number, signal?: AbortSignal): Promise<void>
  wake(number: number): void
  /** Wakes everybody: nothing will come any more, and `over` says so from then on. */
  wakeAll(): void
  readonly over: boolean
}

/**
 * `changed`: somebody begins to wait where nobody did, or the last one has ended. `live` gets the numbers, each with
 * undefined, and loses those that are removed.
 */
export const createWaiterList = (
  changed: (begins: boolean) => void = () => {},
  live: Map<number, unknown> = new Map(),
): WaiterList => {
  let count = 0
  /** Only of those for whom somebody waits. */
  const waiting = new Map<number, Set<() => void>>()
  let next = 1
  const wake = (number: number): void => {
    const all = waiting.get(number)
    if (all !== undefined) for (const one of [...all]) one()
  }
  // No accessor: each object with one of its own is slow to read, and every post reads this.
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
