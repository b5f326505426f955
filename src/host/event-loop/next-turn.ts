/*
 * Callbacks in the next turn of the event loop: work that continues from turn to turn lets timers and sockets run in
 * between. A browser has no setImmediate; there each callback waits for a message that this file sends to itself.
 */
const waiting: (() => void)[] = []

const onNextMessage = (): ((callback: () => void) => void) => {
  const { port1, port2 } = new MessageChannel()
  Object.assign(port1, { onmessage: () => waiting.shift()?.() })
  return callback => {
    waiting.push(callback)
    port2.postMessage(0)
  }
}

/** Calls `callback` in the next turn. */
export const onNextTurn: (callback: () => void) => void =
  typeof setImmediate === 'function' ? callback => void setImmediate(callback) : onNextMessage()

/** Resolves in the next turn. */
export const nextTurn = (): Promise<void> => new Promise(onNextTurn)
