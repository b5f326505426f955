/*
 * Who waits for the events of which object. Objects that have events get a number, with which they are made at the
 * device (the user handle); an event names it again.
 */

export interface Waiters {
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

/** `changed`: somebody begins to wait where nobody did, or the last one has ended. */
export const createWaiters = (changed: (begins: boolean) => void = () => {}): Waiters => {
  let count = 0
  let over = false
  const waiting = new Map<number, Set<() => void>>()
  let next = 1
  const wake = (number: number): void => {
    const all = [...(waiting.get(number) ?? [])]
    for (const one of all) one()
  }
  return {
    add() {
      waiting.set(next, new Set())
      return next++
    },
    remove(number) {
      wake(number)
      waiting.delete(number)
    },
    wait: (number, signal) =>
      new Promise((resolve, reject) => {
        const all = waiting.get(number)
        const end = (): void => {
          all?.delete(done)
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
        if (all === undefined) {
          resolve()
          return
        }
        all.add(done)
        if (++count === 1) changed(true)
        signal?.addEventListener('abort', aborted, { once: true })
      }),
    wake,
    get over() {
      return over
    },
    wakeAll() {
      over = true
      for (const number of [...waiting.keys()]) wake(number)
    },
  }
}
