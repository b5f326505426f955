/*
 * The user's own daemon after an upgrade. While a daemon of another version of the session protocol has the user's
 * socket and serves older programs, newer ones use a daemon at a socket beside it.
 */
import { existsSync } from 'node:fs'
import { NoDaemonError, VersionError } from '../daemon/client/errors.ts'
import { type Handlers, openToolSession, type ToolSession } from '../daemon/client/tool-session.ts'
import { namedSocket, userSocket } from '../daemon/client/user-socket.ts'
import { SESSION_VERSION } from '../spec/session.ts'

export const socketBeside = (socket: string): string => `${socket}.v${SESSION_VERSION}`

/**
 * Opens a session at the user's `socket` or, without a daemon of this version there, beside it. Throws as
 * `openToolSession` of `socket` if no daemon serves either.
 */
export const openOwnSession = async (socket: string, handlers?: Handlers): Promise<ToolSession> => {
  try {
    return await openToolSession(socket, handlers)
  } catch (error) {
    const beside = socketBeside(socket)
    if (!(error instanceof VersionError || error instanceof NoDaemonError) || !existsSync(beside)) throw error
    return openToolSession(beside, handlers).catch(otherError => {
      throw otherError instanceof NoDaemonError ? error : otherError
    })
  }
}

/**
 * Opens a session with the daemon that `--socket` or the environment names, else with the user's own. Throws as both.
 */
export const openChosenSession = (option?: string): Promise<ToolSession> => {
  const named = namedSocket(option)
  return named === undefined ? openOwnSession(userSocket()) : openToolSession(named)
}
