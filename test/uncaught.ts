/*
 * Exceptions that a library leaves uncaught. The test runner's listeners, which would fail the test, are set aside.
 */

/** The messages of the exceptions that are uncaught while `body` runs, and in the callbacks that wait after it. */
export const uncaughtDuring = async (body: () => unknown): Promise<string[]> => {
  const uncaught: string[] = []
  const listeners = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  process.on('uncaughtException', error => uncaught.push(error.message))
  try {
    await body()
    await new Promise(setImmediate)
  } finally {
    process.removeAllListeners('uncaughtException')
    for (const listener of listeners) process.on('uncaughtException', listener)
  }
  return uncaught
}
