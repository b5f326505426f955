/*
 * A message for programs that end during an `await` that can never settle. Node ends such a program with status 13 and
 * reports the line of the `await`; the message says for which device the program waits, and why no event can follow.
 */

/** Node's status for a top-level `await` that never settles. */
const UNSETTLED = 13

/** The names of the devices that have waiters, by carrier. */
const waitingDevices = new Map<object, string>()
let hasExitListener = false

const explain = (): void => {
  if (process.exitCode !== UNSETTLED) return
  for (const name of new Set(waitingDevices.values()))
    console.error(
      `userdma: the program waits for device ${name}, where nothing is outstanding: no request is in flight, and no peer is left that could send. Post a request before you wait for its completion.`,
    )
}

/** Called when the first wait for an event of a device starts, and with `hasWaiters` false when the last one ends. */
export const noteWaiting = (carrier: object, name: string, hasWaiters: boolean): void => {
  if (!hasWaiters) {
    waitingDevices.delete(carrier)
    return
  }
  waitingDevices.set(carrier, name)
  if (hasExitListener || typeof process !== 'object') return
  hasExitListener = true
  process.on('exit', explain)
}
