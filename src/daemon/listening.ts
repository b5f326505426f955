/*
 * The sockets of a daemon: who may connect, and what a daemon that was killed has left.
 */
import { constants, existsSync, lstatSync, rmSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { EADDRINUSE, SystemError } from '../host/errno.ts'
import { exposure } from '../host/exposure.ts'
import { holdFile, isAt, removeHeld } from '../host/held-file.ts'
import { takeLock } from '../host/lock-file.ts'
import { allowAll, allowConnects, hasAccessList, setAccessList } from '../host/net/socket-access.ts'
import { close, listen } from '../host/net/sockets.ts'
import { OWN_SUFFIX } from '../spec/session.ts'
import { isShared, type Served } from './session/served-users.ts'

/** Thrown if another daemon serves the socket. */
export class SocketInUseError extends Error {
  override readonly name = 'SocketInUseError'
}

/** Bytes of sun_path without its NUL. */
const MAX_SOCKET_PATH = 107
/** Of a mode: others may write, and so connect. */
const { S_IWOTH } = constants
const requirePrivateFolder = (socket: string): void => {
  const folder = dirname(socket)
  if (!existsSync(folder)) throw new Error(`socket ${socket}: folder ${folder} does not exist`)
  const exposureReason = exposure(folder)
  if (exposureReason === undefined) return
  throw new Error(
    `socket ${socket}: ${exposureReason}, so other users could replace the daemon's files; take a folder that only you can write to (\`mkdir -m 700 FOLDER\`), or omit --socket`,
  )
}

/** A socket that listens. */
interface ListeningSocket {
  readonly path: string
  readonly fd: number
  /** A descriptor of the socket's file (held-file.ts). Undefined: the file is not ours to remove. */
  readonly file: number | undefined
}

export interface Listening {
  /** The daemon's socket; and one for its own user, if it serves others (`OWN_SUFFIX`). */
  readonly sockets: readonly ListeningSocket[]
  readonly hadPredecessor: boolean
  /** Gives a file that is not ours the permissions that it had. */
  readonly restore?: () => void
}

export type Log = (...words: unknown[]) => void

/** Lets those connect who are served, and tells if that cannot be. */
const setAccess = (socket: string, served: Served, log: Log): void => {
  const reason = allowConnects(socket, served)
  if (reason !== undefined) tellOpen(socket, reason, log)
}

const tellOpen = (socket: string, reason: string, log: Log): void =>
  log(
    `userdma daemon: every user may connect to ${socket}, and those who are not served can keep others waiting: ${reason}; it needs a file system with access lists (ext4, tmpfs), and users and groups with a number in this user namespace`,
  )

/**
 * Removes what a daemon that was killed, or whose socket another one has now, has left at the path of an own socket.
 */
const removeOwn = (path: string): void => {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket()) rmSync(path)
}

const listenTo = (path: string, access?: (path: string) => void): ListeningSocket => {
  const fd = listen(path, access && { setAccess: access })
  return { path, fd, file: holdFile(path) }
}

/** The socket for the daemon's own user. */
const listenForOwn = (socket: string, served: Served): ListeningSocket[] =>
  isShared(served) ? [listenTo(`${socket}${OWN_SUFFIX}`)] : []

const requireShortPath = (socket: string, served: Served): void => {
  const most = isShared(served) ? MAX_SOCKET_PATH - OWN_SUFFIX.length : MAX_SOCKET_PATH
  if (Buffer.byteLength(socket) > most)
    throw new Error(
      `socket path ${socket} has ${Buffer.byteLength(socket)} bytes; ${isShared(served) ? `${most} are allowed for a daemon of several users` : `the system allows ${most}`}`,
    )
}

export const listenAt = async (socket: string, served: Served, log: Log): Promise<Listening> => {
  requireShortPath(socket, served)
  requirePrivateFolder(socket)
  const lock = await takeLock(`${socket}.lock`)
  const sockets: ListeningSocket[] = []
  try {
    const hadPredecessor = existsSync(socket) || existsSync(treeOf(socket))
    sockets.push(listenTo(socket, path => setAccess(path, served, log)))
    removeOwn(`${socket}${OWN_SUFFIX}`)
    sockets.push(...listenForOwn(socket, served))
    return { sockets, hadPredecessor }
  } catch (error) {
    stopListening({ sockets })
    if (error instanceof SystemError && error.errno === EADDRINUSE)
      throw new SocketInUseError(
        `socket ${socket} is in use by a running daemon; stop it, or choose another path with --socket`,
      )
    throw error
  } finally {
    lock.release()
  }
}

/**
 * If every user may connect to a socket that another process has bound: only those who are served, until the returned
 * function is called. A daemon that was killed may have left its access list.
 */
const restrict = (socket: string, served: Served, log: Log): (() => void) | undefined => {
  const mode = statSync(socket, { throwIfNoEntry: false })?.mode ?? 0
  if ((mode & S_IWOTH) === 0 && !hasAccessList(socket)) return undefined
  const file = holdFile(socket)
  try {
    setAccessList(socket, served)
    return () => {
      if (isAt(socket, file)) allowAll(socket)
      close(file)
    }
  } catch (error) {
    close(file)
    tellOpen(socket, (error as Error).message, log)
    return undefined
  }
}

/** `fd`: of a socket that another process has bound to `socket`. */
export const takeOver = (socket: string, fd: number, served: Served, log: Log): Listening => {
  requireShortPath(socket, served)
  requirePrivateFolder(socket)
  removeOwn(`${socket}${OWN_SUFFIX}`)
  const own = listenForOwn(socket, served)
  const restore = restrict(socket, served, log)
  return {
    sockets: [{ path: socket, fd, file: undefined }, ...own],
    hadPredecessor: existsSync(treeOf(socket)),
    ...(restore && { restore }),
  }
}

export const stopListening = ({ sockets, restore }: Pick<Listening, 'sockets' | 'restore'>): void => {
  try {
    restore?.()
  } catch {
    // The file was given to another user: its permissions are that user's.
  }
  for (const { path, fd, file } of sockets) {
    if (file !== undefined) {
      removeHeld(path, file)
      close(file)
    }
    close(fd)
  }
}

/** The folder of a daemon's files. */
export const treeOf = (socket: string): string => `${socket}.tree`
