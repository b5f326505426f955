/*
 * A program that ends while it awaits something that nothing can bring: Node ends it with status 13 and names the line
 * of the `await`. This adds what was waited for, and why nothing came.
 */

/** Node's status for an `await` at the top level that is never settled. */
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

/** Somebody begins (or ends) to wait for something of a device. */
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
