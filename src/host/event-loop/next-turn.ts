/*
 * Callbacks in the next turn of the event loop, so that long work lets timers and sockets run. A browser has no
 * setImmediate: there each callback waits for a message that this file sends to itself.
 */

/** Creates the substitute for setImmediate. */
const createMessageTurns = (): ((callback: () => void) => void) => {
  const waiting: (() => void)[] = []
  const { port1, port2 } = new MessageChannel()
  Object.assign(port1, { onmessage: () => waiting.shift()?.() })
  return callback => {
    waiting.push(callback)
    port2.postMessage(0)
  }
}

export const onNextTurn: (callback: () => void) => void =
  typeof setImmediate === 'function' ? callback => void setImmediate(callback) : createMessageTurns()

export const nextTurn = (): Promise<void> => new Promise(onNextTurn)
