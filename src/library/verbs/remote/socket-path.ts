/*
 * The option `socket` of the library.
 */
import { resolve } from 'node:path'
import { namedSocket, userSocket } from '../../../daemon/client/user-socket.ts'
import { formatValue, invalidArgument, refused } from '../error.ts'

/**
 * The path of the daemon's socket for the option `socket`. `true`: the daemon under which the program runs, otherwise
 * the user's own daemon. Throws RdmaError: EINVAL for '' and other types, EACCES if the own daemon's folder is not
 * private.
 */
export const socketPath = (call: string, socket: string | true): string => {
  if (typeof socket === 'string' && socket !== '') return resolve(socket)
  if (socket !== true)
    throw invalidArgument(call, `socket ${formatValue(socket)} is not a path, nor true for the user's own daemon`)
  try {
    return namedSocket(undefined) ?? userSocket()
  } catch (error) {
    throw refused('EACCES', call, (error as Error).message)
  }
}
