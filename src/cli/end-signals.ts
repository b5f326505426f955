/* The signals that end a command. */

const END_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
export type EndSignal = (typeof END_SIGNALS)[number]

/** Calls `handler` for each of these signals, which then do not end the process. Returns a function that ends this. */
export const onEndSignal = (handler: (signal: EndSignal) => void): (() => void) => {
  for (const signal of END_SIGNALS) process.on(signal, handler)
  return () => {
    for (const signal of END_SIGNALS) process.off(signal, handler)
  }
}
