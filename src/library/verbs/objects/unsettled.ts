/*
 * A message for programs that end in an `await` that can never settle. Node reports only the line of the `await`; the
 * message says for which device the program waits, and why no event can follow.
 */

/** Node's exit status for a top-level `await` that never settles. */
const UNSETTLED = 13

/** The names of the devices that have waiters, by carrier. */
const waitingDevices = new Map<object, string>()
let hasExitListener = false

const explain = (): void => {
  if (process.exitCode !== UNSETTLED) return
  for (const name of new Set(waitingDevices.values()))
    console.error(
      `userdma: the program waits for device ${name}, where no event can follow: no send is in flight, and no peer is left that could send or connect. Post a request before you wait for its completion, and start the peer before you wait for its message or connection.`,
    )
}

/** Records whether the program waits for events of a device. */
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
