/*
 * The next turn of the event loop: timers, sockets and other events are handled first. A browser has no setImmediate;
 * there a message to itself arrives in a turn of its own.
 */
const waiting: (() => void)[] = []

const byMessage = (): ((callback: () => void) => void) => {
  const { port1, port2 } = new MessageChannel()
  Object.assign(port1, { onmessage: () => waiting.shift()?.() })
  return callback => {
    waiting.push(callback)
    port2.postMessage(0)
  }
}

/** Calls `callback` in the next turn. */
export const onNextTurn: (callback: () => void) => void =
  typeof setImmediate === 'function' ? callback => void setImmediate(callback) : byMessage()

/** Resolves in the next turn. */
export const nextTurn = (): Promise<void> => new Promise(onNextTurn)
