/*
 * The signals that end a command: all that can be handled and by default end a process, except those of faults
 * (SIGSEGV, SIGABRT, …), SIGPIPE and SIGUSR1, which do nothing here, and SIGPROF, which V8's profiler uses.
 */
import { constants as os } from 'node:os'
import { endBySignal } from '../host/end-by-signal.ts'

const END_SIGNALS = [
  'SIGINT',
  'SIGTERM',
  'SIGHUP',
  'SIGQUIT',
  'SIGUSR2',
  'SIGALRM',
  'SIGVTALRM',
  'SIGXCPU',
  'SIGIO',
  'SIGPWR',
  'SIGSTKFLT',
] as const
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
 * As `onEndSignal`, for one signal: a second one ends the process. Not before the other handlers of the first one have
 * run: `beforeEndBySignal` ends the process if its handler is the only one.
 */
export const onFirstEndSignal = (handler: (signal: EndSignal) => void): (() => void) => {
  const remove = onEndSignal(signal => {
    setImmediate(remove)
    handler(signal)
  })
  return remove
}

const cleanUps = new Set<() => void>()
let removeHandlers = (): void => {}

/**
 * Calls `cleanUp` before a signal ends this process; not if there is a handler of the signal that does not end it.
 * Returns a function that ends this.
 */
export const beforeEndBySignal = (cleanUp: () => void): (() => void) => {
  if (cleanUps.size === 0)
    removeHandlers = onEndSignal(signal => {
      if (process.listenerCount(signal) > 1) return
      for (const each of cleanUps) each()
      removeHandlers()
      endBySignal(signal)
      process.exit(128 + os.signals[signal])
    })
  cleanUps.add(cleanUp)
  return () => {
    if (cleanUps.delete(cleanUp) && cleanUps.size === 0) removeHandlers()
  }
}
