/*
 * A message for programs that end during an `await` that can never settle. Node ends them with status 13 and reports
 * the line of the `await`; the message adds what was awaited, and why it cannot happen.
 */

/** Node's status for a top-level `await` that never settles. */
const UNSETTLED = 13

const waiting = new Map<object, string>()
let listens = false

const explain = (): void => {
  if (process.exitCode !== UNSETTLED) return
  for (const name of new Set(waiting.values()))
    console.error(
      `userdma: the program waits for device ${name}, where nothing is outstanding: no request is in flight, and no peer is left that could send. Post a request before you wait for its completion.`,
    )
}

/** A wait for an event of a device starts (or ends). */
export const noteWaiting = (key: object, name: string, begins: boolean): void => {
  if (!begins) {
    waiting.delete(key)
    return
  }
  waiting.set(key, name)
  if (listens || typeof process !== 'object') return
  listens = true
  process.on('exit', explain)
}
