/*
 * Paths of daemons' sockets.
 *
 * A user's daemon is at $XDG_RUNTIME_DIR/userdma/sock or, if that variable names no folder of the user, at
 * userdma-UID/sock in the temporary directory (docs/decisions/joining-a-daemon.md). Any user can create folders there,
 * so a folder that belongs to another user, or that others can access, is refused: the owner of the socket can read and
 * change our programs' memory.
 */
import { accessSync, constants, lstatSync, mkdirSync, type Stats } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { outerUser, userText } from '../../host/exposure.ts'
import { SessionEnv } from '../../spec/session.ts'

const statOf = (path: string): Stats | undefined => lstatSync(path, { throwIfNoEntry: false })
const uid = (): number => process.geteuid?.() ?? 0

/** The folder of the user's own socket; it need not exist. */
const userFolder = (): string => {
  const runtime = process.env.XDG_RUNTIME_DIR
  // After `sudo -E` the variable may name another user's folder.
  if (runtime && isAbsolute(runtime)) {
    const stats = statOf(runtime)
    if (stats?.isDirectory() && stats.uid === uid()) return join(runtime, 'userdma')
  }
  return resolve(tmpdir(), `userdma-${uid()}`)
}

/** Throws an Error if the path exists and is not a folder, or is another user's, or others can access it. */
const requirePrivate = (folder: string): void => {
  const stats = statOf(folder)
  if (!stats) return
  const remedy = 'make a folder (`mkdir -m 700 FOLDER`) and use --socket FOLDER/sock'
  if (!stats.isDirectory())
    throw new Error(`${folder}, where your daemon's socket should be, is not a folder; remove it, or ${remedy}`)
  if (stats.uid !== uid())
    throw new Error(
      `${folder}, where your daemon's socket should be, belongs to ${userText(stats.uid)}, not to you (${uid()}); ${remedy}`,
    )
  if (stats.mode & 0o077) {
    const mode = (stats.mode & 0o7777).toString(8).padStart(4, '0')
    throw new Error(
      `${folder}, where your daemon's socket should be, has mode ${mode}, so that others may use it; run \`chmod 700 ${folder}\``,
    )
  }
}

/** The socket of the user's own daemon. Throws an Error if its folder is not private to the user. */
export const userSocket = (): string => {
  const folder = userFolder()
  requirePrivate(folder)
  return join(folder, 'sock')
}

/**
 * Creates the folder of the user's own socket if necessary, and returns the path of the socket. Throws an Error if the
 * folder cannot be made or is not private.
 */
export const makeSocketFolder = (): string => {
  const folder = userFolder()
  try {
    mkdirSync(folder, { mode: 0o700 })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST')
      throw new Error(
        `cannot make ${folder} for your daemon's socket (${(error as NodeJS.ErrnoException).code}); choose another path with --socket PATH`,
        { cause: error },
      )
  }
  requirePrivate(folder)
  return join(folder, 'sock')
}

/**
 * The socket in the option `--socket` or in USERDMA_SOCKET, which `userdma run` sets for its program; undefined: the
 * user's own daemon.
 */
export const namedSocket = (option: string | undefined): string | undefined => {
  const named = option ?? (process.env[SessionEnv.socket] || undefined)
  return named === undefined ? undefined : resolve(named)
}

/** A path as a word of a shell command, quoted if necessary. */
const shellWord = (path: string): string =>
  /^[\w./~@%+,:=-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`

/** The command line of a command of userdma for the daemon at `socket`, without what may follow. */
export const commandAt = (command: string, socket: string): string =>
  `userdma ${command}${socket === join(userFolder(), 'sock') ? '' : ` --socket ${shellWord(socket)}`}`

/** The command line that starts a daemon at `socket`. */
export const daemonCommand = (socket: string): string => commandAt('daemon', socket)

const allowOption = (user: number): string => {
  const outer = outerUser(user)
  // Root's daemon in this user namespace serves its root, so the daemon that refuses that user is outside.
  if (outer === user || user === 0) return `\`--allow-user ${outer}\``
  return `\`--allow-user ${user}\`, or outside this user namespace with \`--allow-user ${outer}\``
}

/** The message for a daemon that refuses this user, or whose folder this user cannot enter. */
export const notServed = (socket: string): string => {
  const folder = dirname(socket)
  try {
    accessSync(folder, constants.X_OK)
  } catch {
    return `the folder of ${socket} is closed to you (user ${uid()})`
  }
  return `the daemon at ${socket} does not serve user ${uid()}; root's daemon does if it is started with ${allowOption(uid())}`
}
