/*
 * Finds the daemon for a command (docs/decisions/joining-a-daemon.md): the command joins the daemon at the socket that
 * `--socket` or the environment names, starts a private daemon in a new folder (`--private`), or joins the user's
 * daemon, which it starts if there is none. A private daemon may have the devices of another daemon
 * (taken-settings.ts).
 *
 * A daemon that a command starts ends with its last client; the session that the command holds while its program runs
 * counts as a client. Two commands that start at the same time may both start a daemon: the daemon that finds the
 * socket in use ends, and its command joins the other. While a daemon of another version has the socket, after an
 * upgrade, own-daemon.ts names another.
 */
import { join } from 'node:path'
import { NoDaemonError, VersionError } from '../daemon/client/errors.ts'
import { type Handlers, openToolSession, type ToolSession } from '../daemon/client/tool-session.ts'
import { makeSocketFolder, namedSocket } from '../daemon/client/user-socket.ts'
import { EAGAIN, SystemError } from '../host/errno.ts'
import { close, connect } from '../host/net/sockets.ts'
import type { DaemonConfig } from '../uapi/tool.ts'
import type { OptionsOf } from './command-line/option.ts'
import type { joinOptions } from './command-line/options.ts'
import {
  type ConfigOptions,
  difference,
  fullConfig,
  type OutputOptions,
  tellDrivers,
  type WantedConfig,
  wantedConfig,
} from './config.ts'
import { beforeEndBySignal } from './end-signals.ts'
import { openOwnSession, socketBeside } from './own-daemon.ts'
import { privateFolder, removeFolder } from './paths.ts'
import { DaemonProcesses, hasInspector, StartError, type StartedDaemon, startInBackground } from './start.ts'
import { type Taken, type TakingCommand, takeSettings } from './taken-settings.ts'

export type JoinOptions = ConfigOptions & OutputOptions & Pick<OptionsOf<typeof joinOptions>, 'socket' | 'private'>

export interface Joined {
  readonly client: ToolSession
  /** The last output of the daemon, if this command started it; otherwise empty. */
  lastOutput(): string
  /** Ends the session. A private daemon ends too, and its folder is removed. */
  leave(): Promise<void>
}

const END_WITH_LAST_CLIENT = '--end-with-last-client'
const PRIVATE = [END_WITH_LAST_CLIENT, '--remove-folder'] as const
/** Maximum attempts to start a daemon and join it: a daemon that had the socket may end before it can be joined. */
const MAX_STARTS = 5
/** A private daemon that still runs this many milliseconds after the end of the command's session is killed. */
const END_TIMEOUT = 5000

/** For commands with many private daemons (`joinPrivate`). */
export const privateDaemons = (): DaemonProcesses => new DaemonProcesses(PRIVATE)

/** Starts a daemon, as `startInBackground`. */
type Starter = (socket: string, config: DaemonConfig) => Promise<StartedDaemon>

const inBackground: Starter = (socket, config) => startInBackground(socket, config, PRIVATE)

const startPrivate = async (
  wanted: WantedConfig,
  handlers?: Handlers,
  start: Starter = inBackground,
): Promise<Joined> => {
  const folder = privateFolder()
  const restoreSignals = beforeEndBySignal(() => removeFolder(folder))
  try {
    const socket = join(folder, 'sock')
    // If this process is killed, a process of the daemon's own removes the folder.
    const daemon = await start(socket, fullConfig(wanted))
    const client = await openToolSession(socket, handlers)
    return {
      client,
      lastOutput: daemon.lastOutput,
      async leave() {
        client.close()
        daemon.ref()
        const timer = setTimeout(() => daemon.kill(), END_TIMEOUT)
        await daemon.ended
        clearTimeout(timer)
        if (!isServed(socket)) removeFolder(folder)
      },
    }
  } catch (error) {
    removeFolder(folder)
    throw error
  } finally {
    restoreSignals()
  }
}

const startWithTaken = async (
  { options, release }: Taken<JoinOptions>,
  handlers?: Handlers,
  start?: Starter,
): Promise<Joined> => {
  try {
    const joined = await startPrivate(await wantedConfig(options), handlers, start)
    return {
      ...joined,
      async leave() {
        await joined.leave()
        release()
      },
    }
  } catch (error) {
    release()
    throw error
  }
}

/**
 * A clock that skips, and drivers from files, need a process that has begun with them; and no inspector reaches a
 * daemon (docs/why/threat-model.md).
 */
const insideIfPossible =
  (startInside: Starter): Starter =>
  (socket, config) => {
    const needsOwn = config.clock === 'skip' || config.drivers !== undefined || hasInspector()
    return (needsOwn ? inBackground : startInside)(socket, config)
  }

/** Whether a daemon is at the socket: another one may have taken its path. */
export const isServed = (socket: string): boolean => {
  try {
    close(connect(socket))
    return true
  } catch (error) {
    // Its backlog is full.
    return error instanceof SystemError && error.errno === EAGAIN
  }
}

const noOutput = (): string => ''

const joinOrStart = async (wanted: WantedConfig, handlers?: Handlers): Promise<Joined> => {
  const own = makeSocketFolder()
  let socket = own
  let lastOutput = noOutput
  let startError: unknown
  for (let starts = 0; ; starts++) {
    try {
      return asJoined(await openOwnSession(own, handlers), lastOutput)
    } catch (error) {
      if (error instanceof VersionError && socket === own) {
        socket = socketBeside(own)
        process.stderr.write(
          `userdma: the daemon at ${own} is of another version; programs of this version use a new one at ${socket}\n`,
        )
      } else if (!(error instanceof VersionError || error instanceof NoDaemonError)) throw error
    }
    if (starts === MAX_STARTS)
      throw startError ?? new Error(`the daemon at ${socket} ends each time before it can be used`)
    try {
      lastOutput = (await startInBackground(socket, fullConfig(wanted), [END_WITH_LAST_CLIENT])).lastOutput
      startError = undefined
    } catch (error) {
      if (!(error instanceof StartError)) throw error
      startError = error
      // The daemon that is joined next is not one that this command started.
      lastOutput = noOutput
    }
  }
}

const asJoined = (client: ToolSession, lastOutput = noOutput): Joined => ({
  client,
  lastOutput,
  leave: async () => client.close(),
})

/** Throws an Error with a message if the daemon does not have the wanted settings. */
const requireConfig = async (client: ToolSession, wanted: WantedConfig): Promise<void> => {
  if (Object.keys(wanted).length === 0) return
  const reason = await difference(wanted, await client.config())
  if (reason)
    throw new Error(
      `the daemon at ${client.socket} (process ${client.daemon}) ${reason}; use --private to start a daemon of your own`,
    )
}

/**
 * As `joinDaemon`, for one of many private daemons of a command, whose settings are those of `options`.
 * Throws an Error with a message.
 */
export const joinPrivate = async (
  processes: DaemonProcesses,
  options: ConfigOptions,
  handlers?: Handlers,
): Promise<Joined> => startPrivate(await wantedConfig(options), handlers, (...daemon) => processes.start(...daemon))

/**
 * Joins or starts a daemon as the options require. `command`: a private daemon takes settings of any daemon
 * (`takeSettings`). `startInside`: starts a private daemon in this process, where that can be. Throws an Error with a
 * message.
 */
export const joinDaemon = async (
  options: JoinOptions,
  handlers?: Handlers,
  command?: TakingCommand,
  startInside?: Starter,
): Promise<Joined> => {
  const wanted = await wantedConfig(options)
  if (options.private) {
    return startWithTaken(await takeSettings(options, command), handlers, startInside && insideIfPossible(startInside))
  }
  await tellDrivers(wanted.devices, options)
  const named = namedSocket(options.socket)
  const joined =
    named === undefined ? await joinOrStart(wanted, handlers) : asJoined(await openToolSession(named, handlers))
  try {
    await requireConfig(joined.client, wanted)
  } catch (error) {
    joined.client.close()
    throw error
  }
  return joined
}
