/* The signals that end a command. */
import { constants as os } from 'node:os'
import { endBySignal } from '../host/end-by-signal.ts'

const END_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
export type EndSignal = (typeof END_SIGNALS)[number]

/**
 * Calls `handler` for each of these signals, which then do not end the process. Returns a function that removes the
 * handlers.
 */
export const onEndSignal = (handler: (signal: EndSignal) => void): (() => void) => {
  for (const signal of END_SIGNALS) process.on(signal, handler)
  return () => {
    for (const signal of END_SIGNALS) process.off(signal, handler)
  }
}

/**
 * Calls `cleanUp` before a signal ends this process; not if there is another handler of the signal. Returns a function
 * that removes the handlers.
 */
export const beforeEndBySignal = (cleanUp: () => void): (() => void) => {
  const removeHandlers = onEndSignal(signal => {
    if (process.listenerCount(signal) > 1) return
    cleanUp()
    removeHandlers()
    endBySignal(signal)
    process.exit(128 + os.signals[signal])
  })
  return removeHandlers
}
