/*
 * How a command comes to a daemon (docs/decisions/joining-a-daemon.md): it joins the one at a named socket, joins the
 * user's own or starts it, or starts an isolated one in a folder that nobody else sees.
 *
 * A daemon that a command starts ends with its last client; the session that is held here while the program runs is
 * one. Two commands that start at once may both start a daemon: the one that finds the socket taken ends, and its
 * command joins the other.
 */
import { join } from 'node:path'
import type { TraceEvent } from '../uapi/tool.ts'
import { makeUserSocket, namedSocket } from '../verbs/remote/user-socket.ts'
import { NoDaemonError, openSession, type ToolClient } from './client.ts'
import { type ConfigOptions, difference, fullConfig, type WantedConfig, wantedConfig } from './config.ts'
import { UsageError } from './fail.ts'
import { privateFolder, removeFolder } from './places.ts'
import { StartError, startInBackground } from './start.ts'

/** As commander yields them. */
export interface JoinOptions extends ConfigOptions {
  readonly socket?: string
  readonly private?: boolean
}

export interface Joined {
  readonly client: ToolClient
  /** What the daemon said last, if it was started here; empty if nothing. */
  lastWords(): string
  /** Ends the session; a private daemon ends with it and its folder is removed. */
  leave(): Promise<void>
}

type OnTrace = (event: TraceEvent) => void

/** How often a start is tried: each time we lost the race to a daemon that has ended again. */
const ATTEMPTS = 5
/** A private daemon without clients that does not end by itself is told to after so many milliseconds. */
const PATIENCE = 5000

const startPrivate = async (wanted: WantedConfig, onTrace?: OnTrace): Promise<Joined> => {
  const folder = privateFolder()
  try {
    const socket = join(folder, 'sock')
    // If we are killed, nobody but the daemon is there to clean up.
    const daemon = await startInBackground(socket, fullConfig(wanted), ['--remove-folder'])
    const client = await openSession(socket, onTrace)
    return {
      client,
      lastWords: daemon.lastWords,
      async leave() {
        client.close()
        daemon.process.ref()
        const timer = setTimeout(() => daemon.process.kill('SIGKILL'), PATIENCE)
        await daemon.ended
        clearTimeout(timer)
        removeFolder(folder)
      },
    }
  } catch (error) {
    removeFolder(folder)
    throw error
  }
}

const joinOrStart = async (wanted: WantedConfig, onTrace?: OnTrace): Promise<Joined> => {
  const socket = makeUserSocket()
  let lastWords = (): string => ''
  let problem: unknown
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    try {
      return asJoined(await openSession(socket, onTrace), lastWords)
    } catch (error) {
      if (!(error instanceof NoDaemonError)) throw error
    }
    try {
      lastWords = (await startInBackground(socket, fullConfig(wanted))).lastWords
    } catch (error) {
      if (!(error instanceof StartError)) throw error
      problem = error
    }
  }
  throw problem ?? new Error(`the daemon at ${socket} ends again and again before it is of use`)
}

const asJoined = (client: ToolClient, lastWords = (): string => ''): Joined => ({
  client,
  lastWords,
  leave: async () => client.close(),
})

const requireSame = async (client: ToolClient, wanted: WantedConfig): Promise<void> => {
  if (Object.keys(wanted).length === 0) return
  const why = difference(wanted, await client.config())
  if (why)
    throw new Error(
      `the daemon at ${client.socket} (process ${client.daemon}) ${why}; use --private for one of your own`,
    )
}

/** Joins or starts a daemon as the options say. Throws an Error with a sentence. */
export const joinDaemon = async (options: JoinOptions, onTrace?: OnTrace): Promise<Joined> => {
  const wanted = wantedConfig(options)
  if (options.private) {
    if (options.socket !== undefined)
      throw new UsageError('--private and --socket exclude each other: a private daemon has a socket of its own')
    return startPrivate(wanted, onTrace)
  }
  const named = namedSocket(options.socket)
  const joined = named === undefined ? await joinOrStart(wanted, onTrace) : asJoined(await openSession(named, onTrace))
  try {
    await requireSame(joined.client, wanted)
  } catch (error) {
    joined.client.close()
    throw error
  }
  return joined
}
