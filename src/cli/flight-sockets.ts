/*
 * Sockets of flight recorders: one for each `run --host --flight-recorder`, in the folder of the user's own socket.
 */
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { makeSocketFolder, userSocket } from '../daemon/client/user-socket.ts'

const PREFIX = 'flight-'

/** The socket of a command; its folder is made. Throws an Error. */
export const flightSocket = (pid: number): string => join(dirname(makeSocketFolder()), `${PREFIX}${pid}`)

/** The sockets of all flight recorders of this user, also of those that have ended. Throws an Error. */
export const flightSockets = (): string[] => {
  const folder = dirname(userSocket())
  try {
    return readdirSync(folder)
      .filter(name => name.startsWith(PREFIX))
      .map(name => join(folder, name))
  } catch {
    return []
  }
}
