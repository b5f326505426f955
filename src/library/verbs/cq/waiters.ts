/*
 * Promises that wait for events, by id. Objects with events, mailboxes, servers, connections and IP sockets have an
 * id. An object's id is the user handle in its events.
 */

export interface WaiterList {
  /** A new id; never 0. */
  add(): number
  /** Ends the use of an id and wakes its waiters. */
  remove(id: number): void
  /**
   * Resolves at the next `wake` of the id, at once if the id was removed. Rejects with the signal's reason if the
   * signal is aborted first. The caller first checks `isOver`: after `wakeAll` no event wakes the id.
   */
  wait(id: number, signal?: AbortSignal): Promise<void>
  wake(id: number): void
  /** Sets `isOver` and wakes all waiters: the device is closed or removed, so no event can follow. */
  wakeAll(): void
  readonly isOver: boolean
}

/**
 * `onChange`: called with true when the first waiter starts, with false when the last waiter ends. `ids`: the ids in
 * use; the list only adds and deletes keys.
 */
export const createWaiterList = (
  onChange: (hasWaiters: boolean) => void = () => {},
  ids: Map<number, unknown> = new Map(),
): WaiterList => {
  let waiterCount = 0
  /** The `onWake` functions of the waiters of each id; ids without waiters have no entry. */
  const waitersById = new Map<number, Set<() => void>>()
  let nextId = 1
  const wake = (id: number): void => {
    const waiters = waitersById.get(id)
    if (waiters !== undefined) for (const onWake of [...waiters]) onWake()
  }
  // Hot: `isOver` is a plain property, because posts of datagrams and to SRQs read it.
  const list = {
    isOver: false,
    add() {
      ids.set(nextId, undefined)
      return nextId++
    },
    remove(id: number) {
      wake(id)
      ids.delete(id)
    },
    wait: (id: number, signal?: AbortSignal) =>
      new Promise<void>((resolve, reject) => {
        if (!ids.has(id)) {
          resolve()
          return
        }
        if (signal?.aborted) {
          reject(signal.reason)
          return
        }
        const waiters = waitersById.get(id) ?? new Set()
        waitersById.set(id, waiters)
        const end = (): void => {
          waiters.delete(onWake)
          if (waiters.size === 0) waitersById.delete(id)
          signal?.removeEventListener('abort', onAbort)
          if (--waiterCount === 0) onChange(false)
        }
        const onWake = (): void => {
          end()
          resolve()
        }
        const onAbort = (): void => {
          end()
          reject(signal?.reason)
        }
        waiters.add(onWake)
        if (++waiterCount === 1) onChange(true)
        signal?.addEventListener('abort', onAbort, { once: true })
      }),
    wake,
    wakeAll() {
      list.isOver = true
      for (const id of [...waitersById.keys()]) wake(id)
    },
  }
  return list
}
