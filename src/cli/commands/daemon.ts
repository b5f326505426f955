/*
 * `userdma daemon`: serves programs in the foreground until a signal ends it.
 *
 * It prints one line when it is ready; a command that started the daemon waits for the line and then closes the pipe,
 * so a closed standard output must not end the daemon.
 */
import { dirname, resolve } from 'node:path'
import { SocketInUseError, startDaemon } from '../../daemon/daemon.ts'
import { isShared, type Served } from '../../daemon/session/served-users.ts'
import { accountNumber } from '../../host/accounts.ts'
import { commandName } from '../../host/process-status.ts'
import { makeUserSocket } from '../../verbs/remote/user-socket.ts'
import { openSession } from '../client.ts'
import { type ConfigOptions, devicesText, fullConfig, wantedConfig } from '../config.ts'
import { sentenceOf, UsageError } from '../fail.ts'
import { removeFolder } from '../places.ts'
import { FAILED, NOTE, READY } from '../start.ts'

/** As commander parses them. */
export interface DaemonOptions extends ConfigOptions {
  readonly socket?: string
  readonly endWithLastClient?: boolean
  /** The socket's folder was made for this daemon and is removed with it. */
  readonly removeFolder?: boolean
  /** Names or numbers. */
  readonly allowUser?: readonly string[]
  readonly allowGroup?: readonly string[]
}

const accounts = (kind: 'user' | 'group', given: readonly string[] = []): readonly number[] =>
  given.map(text => {
    const number = /^\d+$/.test(text) ? Number(text) : accountNumber(kind, text)
    if (number === undefined || number >= NOBODY)
      throw new UsageError(
        `--allow-${kind} "${text}": there is no such ${kind}; give a name or a number below 2^32 - 1`,
      )
    return number
  })

/** (uid_t) -1, which is not a valid user. */
const NOBODY = 2 ** 32 - 1

const servedBy = ({ allowUser, allowGroup }: DaemonOptions): Served => {
  const served = { users: accounts('user', allowUser), groups: accounts('group', allowGroup) }
  if (isShared(served) && process.geteuid?.() !== 0)
    throw new UsageError(
      `--allow-user and --allow-group are for root's daemon: one of user ${process.geteuid?.()} cannot reach the memory of other users' programs`,
    )
  return served
}

/** The process that serves the socket, if it is a userdma daemon. */
const owner = async (socket: string): Promise<string | undefined> => {
  try {
    const client = await openSession(socket)
    try {
      const name = commandName(client.daemon)
      return `process ${client.daemon}${name === undefined ? '' : ` (${name})`} with ${devicesText((await client.config()).devices)}`
    } finally {
      client.close()
    }
  } catch {
    return undefined
  }
}

/** Names the socket's current server, if that is why the daemon cannot start. */
const explain = async (error: unknown, socket: string): Promise<unknown> => {
  // After any other error do not connect: the socket may be our own, which does not answer.
  if (!(error instanceof SocketInUseError)) return error
  const who = await owner(socket)
  return who === undefined
    ? error
    : new Error(
        `${socket} is served already by ${who}; join it with \`userdma run\`, or choose another socket with --socket PATH`,
        { cause: error },
      )
}

/**
 * Errors of entries from the event loop are contained at their source (daemon/containment.ts). The remaining ones, such
 * as an unhandled rejection, have no owner that could be ended; they are logged, and the daemon goes on.
 */
const logStrayFaults = (): void => {
  for (const event of ['uncaughtException', 'unhandledRejection'] as const)
    process.on(event, error => console.error(`userdma daemon: ${event}:`, error))
}

const stopSignal = (): Promise<undefined> =>
  new Promise(resolve => {
    let isStopping = false
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.on(signal, () => {
        if (isStopping) process.exit(1)
        isStopping = true
        resolve(undefined)
      })
    }
  })

export const daemon = async (options: DaemonOptions): Promise<void> => {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  const config = fullConfig(await wantedConfig(options))
  const served = servedBy(options)
  const socket = options.socket === undefined ? makeUserSocket() : resolve(options.socket)
  const stopped = stopSignal()
  const starting = startDaemon({ socket, config, endWithLastClient: options.endWithLastClient === true, served })
  const running = await Promise.race([starting, stopped]).catch(async error => {
    const explained = await explain(error, socket)
    // The starting command reads this line, also if there is no room for a log.
    if (options.endWithLastClient) process.stdout.write(`${FAILED}${sentenceOf(explained)}\n`)
    throw explained
  })
  // The start waits only for its lock, before it has created anything that a signal would have to remove.
  if (running === undefined) process.exit(0)
  const faults = config.fault === '' ? '' : `, faults ${config.fault}`
  const link = config.link === 'memory' ? '' : `, link ${config.link}`
  process.stdout.write(`${READY}${socket} (${devicesText(config.devices)}${link}${faults})\n`)
  logStrayFaults()
  // Background daemons write a log, which begins and ends with these lines.
  const note = (what: string): void => {
    if (options.endWithLastClient) console.error(`${NOTE}${process.pid} ${what}, ${new Date().toISOString()}`)
  }
  note(`serves ${socket} (${devicesText(config.devices)}${link}${faults}) until its last client has ended`)
  const signal = await Promise.race([stopped.then(() => true), running.ended])
  note(signal ? 'ends on a signal' : 'ends: its last client has ended')
  await running.close()
  if (options.removeFolder) removeFolder(dirname(socket))
  process.exit(0)
}
