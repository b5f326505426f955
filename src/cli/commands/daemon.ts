/*
 * `userdma daemon`: serves programs in the foreground, until a signal or, with --end-with-last-client, the end of its
 * last client. With --detach it starts a daemon in the background, and ends when that is ready.
 *
 * It prints one line when it is ready. A command that started the daemon waits for that line and then closes the pipe,
 * so a closed standard output must not end the daemon.
 *
 * With --serve-next it is the process of many daemons, one after another: each line of standard input is the next
 * (`DaemonProcesses`).
 */
import { existsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { openToolSession } from '../../daemon/client/tool-session.ts'
import { makeSocketFolder } from '../../daemon/client/user-socket.ts'
import { isClockClean, openClock } from '../../daemon/clock.ts'
import { startDaemon } from '../../daemon/daemon.ts'
import { loadDrivers } from '../../daemon/devices/driver-file.ts'
import { SocketInUseError } from '../../daemon/listening.ts'
import { isShared, type Served } from '../../daemon/session/served-users.ts'
import { accountId } from '../../host/accounts.ts'
import { type InheritedSocket, inheritedSocket } from '../../host/net/activation.ts'
import { commandName } from '../../host/process-status.ts'
import { CallError } from '../../spec/errno.ts'
import { DaemonLine } from '../../spec/session.ts'
import { setTimerFactor } from '../../spec/work.ts'
import type { DaemonConfig } from '../../uapi/tool.ts'
import { type OptionsOf, optionWords } from '../command-line/option.ts'
import { daemonOptions, recordOptions } from '../command-line/options.ts'
import { devicesText, fullConfig, orUsageError, settingsText, tellDrivers, wantedConfig } from '../config.ts'
import { onEndSignal } from '../end-signals.ts'
import { messageOf, UsageError } from '../fail.ts'
import { requireDifferentFiles } from '../output-file.ts'
import { clockLibrary, holdFolder, removeFolder, removeLeftFolders, userdmaScript } from '../paths.ts'
import { endAs, runProgram, withPreloaded } from '../program/program.ts'
import { isForCheck, openRecordFile } from '../record.ts'
import { ENDED_LINE, type NextDaemon, startInBackground } from '../start.ts'

type DaemonOptions = OptionsOf<typeof daemonOptions>

/** (uid_t) -1, which is no valid id of a user or group. */
const INVALID_ID = 2 ** 32 - 1

/** The ids of users or groups that are given by name or number. Throws UsageError. */
const accountIds = (kind: 'user' | 'group', texts: readonly string[] = []): readonly number[] =>
  texts.map(text => {
    const number = /^\d+$/.test(text) ? Number(text) : accountId(kind, text)
    if (number === undefined || number >= INVALID_ID)
      throw new UsageError(
        `--allow-${kind} "${text}": there is no such ${kind}; give a name or a number below 2^32 - 1`,
      )
    return number
  })

/** The users and groups that the daemon serves beside its own user. Throws UsageError. */
const servedAccounts = ({ allowUser, allowGroup }: DaemonOptions): Served => {
  const served = { users: accountIds('user', allowUser), groups: accountIds('group', allowGroup) }
  if (isShared(served) && process.geteuid?.() !== 0)
    throw new UsageError(
      `--allow-user and --allow-group are for root's daemon: a daemon of user ${process.geteuid?.()} cannot access the memory of other users' programs`,
    )
  return served
}

/** Milliseconds within which the process that serves a socket must answer, to be named in an error message. */
const ANSWER_TIMEOUT = 5000

/** The process that serves the socket, with its devices, as text; undefined if it opens no session for us. */
const serverText = async (socket: string): Promise<string | undefined> => {
  try {
    const client = await openToolSession(socket)
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

/** An error with a better message if another daemon serves the socket; otherwise the error itself. */
const withServer = async (error: unknown, socket: string): Promise<unknown> => {
  // EADDRINUSE: over UDP a daemon binds the addresses of its devices before the socket. After other errors the socket
  // may already be our own, and a connection to it would never be answered.
  const isInUse = error instanceof SocketInUseError || (error instanceof CallError && error.code === 'EADDRINUSE')
  if (!isInUse) return error
  // A stopped process (SIGSTOP) or another program's socket accepts connections, and never answers.
  const server = await Promise.race([serverText(socket), setTimeout(ANSWER_TIMEOUT, undefined)])
  return server === undefined
    ? error
    : new Error(
        `${socket} is served already by ${server}; join it with \`userdma run\`, or choose another socket with --socket PATH`,
        { cause: error },
      )
}

/**
 * Errors of event loop callbacks are contained at their source (daemon/containment.ts). What remains, for example an
 * unhandled rejection, belongs to no session or device that could be ended: it is logged, and the daemon continues.
 */
const logUncaughtErrors = (): void => {
  for (const event of ['uncaughtException', 'unhandledRejection'] as const)
    if (process.listenerCount(event) === 0)
      process.on(event, error => console.error(`userdma daemon: ${event}:`, error))
}

/** Resolves at the first signal that ends a command (end-signals.ts); the second one ends the process. */
const stopSignal = (): Promise<undefined> =>
  new Promise(resolve => {
    let isStopping = false
    onEndSignal(() => {
      if (isStopping) process.exit(1)
      isStopping = true
      resolve(undefined)
    })
  })

/** Starts a daemon in the background, and prints its line when it is ready. */
const detach = async (socket: string, config: DaemonConfig, options: DaemonOptions): Promise<void> => {
  // The log would be there too.
  if (!existsSync(dirname(socket))) throw new Error(`socket ${socket}: folder ${dirname(socket)} does not exist`)
  const { record } = options
  const { allowUser, allowGroup, endWithLastClient } = daemonOptions
  const given = { ...options, ...(record !== undefined && { record: resolve(record) }) }
  await startInBackground(
    socket,
    config,
    optionWords({ ...recordOptions, allowUser, allowGroup, endWithLastClient }, given),
  )
  process.stdout.write(`${DaemonLine.READY}${socket} (${settingsText(config)})\n`)
}

/** The path of the socket. Throws UsageError if `--socket` names another one than systemd has passed. */
const socketOf = ({ socket }: DaemonOptions, inherited: InheritedSocket | undefined): string => {
  if (inherited !== undefined && socket !== undefined && resolve(socket) !== inherited.path)
    throw new UsageError(`--socket "${socket}" differs from the socket that systemd has passed, ${inherited.path}`)
  return inherited?.path ?? (socket === undefined ? makeSocketFolder() : resolve(socket))
}

/** What daemons of --serve-next do not have. */
type Further = Pick<Parameters<typeof startDaemon>[0], 'served' | 'record' | 'inherited'>

/** Serves until the daemon ends. `stopped`: a signal has come. Rejects if it cannot start. */
const serve = async (
  { socket, config }: NextDaemon,
  { background, endWithLastClient = false, removeFolder: isFolderRemoved, clockPage }: DaemonOptions,
  drivers: Awaited<ReturnType<typeof loadDrivers>>,
  stopped: Promise<undefined>,
  further: Further = {},
): Promise<void> => {
  if (isFolderRemoved) holdFolder(dirname(socket))
  setTimerFactor(config.timers ?? 1)
  const starting = startDaemon({
    socket,
    config,
    endWithLastClient,
    drivers,
    ...further,
    ...(clockPage !== undefined && { clockPage }),
  })
  const running = await Promise.race([starting, stopped]).catch(async error => {
    const explained = await withServer(error, socket)
    // The command that started this daemon shows this line. The log may be unwritable (ENOSPC).
    if (background) process.stdout.write(`${DaemonLine.FAILED}${messageOf(explained)}\n`)
    throw explained
  })
  // A signal came while the start waited for the lock of the socket: nothing was created that outlives the process.
  if (running === undefined) process.exit(0)
  const settings = settingsText(config)
  process.stdout.write(`${DaemonLine.READY}${socket} (${settings})\n`)
  logUncaughtErrors()
  if (running.hadPredecessor)
    console.error(`${DaemonLine.NOTE}${process.pid} removed the socket and files that an earlier daemon had left`)
  // A background daemon writes a log, in which these notes tell its start and end.
  const note = (text: string): void => {
    if (background) console.error(`${DaemonLine.NOTE}${process.pid} ${text}, ${new Date().toISOString()}`)
  }
  note(`serves ${socket} (${settings})${endWithLastClient ? ' until its last client has ended' : ''}`)
  note(`ends: ${(await Promise.race([stopped, running.ended])) ?? 'on a signal'}`)
  await running.close()
  if (!isFolderRemoved) return
  const folder = dirname(socket)
  // If the socket is another daemon's now, so is the folder.
  if (!existsSync(socket)) removeFolder(folder)
  // userdma-run, which makes such folders too, leaves this to their daemons.
  removeLeftFolders(dirname(folder))
}

/**
 * Serves the daemon of each line of standard input. With a clock that skips they have one page, so that the time of
 * this process goes on; it ends where a program has left something in it.
 */
const serveNext = async (options: DaemonOptions, drivers: Awaited<ReturnType<typeof loadDrivers>>): Promise<void> => {
  const stopped = stopSignal()
  void stopped.then(() => process.stdin.destroy())
  const { clock, clockSpin, clockPage } = options
  const ownClock = clock === 'skip' ? clockPage : undefined
  if (ownClock !== undefined) openClock(ownClock, { ...(clockSpin === false && { clockSpin }) })
  for await (const line of createInterface({ input: process.stdin })) {
    await serve(JSON.parse(line) as NextDaemon, options, drivers, stopped)
    if (ownClock !== undefined && !isClockClean()) return
    process.stdout.write(`${ENDED_LINE}\n`)
  }
}

/** The command. Ends the process. */
export const daemon = async (given: DaemonOptions): Promise<void> => {
  const options = isForCheck(given) ? { ...given, check: true } : given
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
  const drivers = await orUsageError(() => loadDrivers(options.driver ?? []))
  const config = fullConfig(await wantedConfig(options, drivers))
  // A command that has started this daemon has told it.
  if (!options.background) await tellDrivers(config.devices, {})
  if (options.serveNext) {
    await serveNext(options, drivers)
    process.exit(0)
  }
  const served = servedAccounts(options)
  const inherited = options.detach ? undefined : inheritedSocket()
  const socket = socketOf(options, inherited)
  if (options.detach) {
    await detach(socket, config, options)
    return
  }
  if (config.clock === 'skip' && !process.env.LD_PRELOAD?.split(':').includes(clockLibrary())) {
    // This process has read the machine's clock already: one with the library takes its place.
    const words = [...process.execArgv, userdmaScript, ...process.argv.slice(2)]
    endAs(await runProgram(process.execPath, words, withPreloaded(process.env, clockLibrary())))
    return
  }
  requireDifferentFiles(
    [['--record', options.record]],
    (options.driver ?? []).map(file => ['--driver', file]),
  )
  const record = openRecordFile(options)
  await serve({ socket, config }, options, drivers, stopSignal(), {
    served,
    ...(record && { record: { fd: record.fd, ...record.options } }),
    ...(inherited !== undefined && { inherited: inherited.fd }),
  })
  process.exit(0)
}
