/*
 * Starts a daemon in the background and waits until it is ready.
 *
 * The daemon gets a process session of its own, so that the terminal's Ctrl-C reaches the program and not the daemon.
 * It inherits none of our descriptors: it may run longer than we do, and a pipeline that contains us must not wait for
 * it. Its standard error is a file beside its socket.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, openSync, readFileSync, renameSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { removeHeld } from '../host/held-file.ts'
import { lockShared, removeLeftBehind } from '../host/left-behind.ts'
import { clockPageOf } from '../spec/clock-page.ts'
import { DaemonLine, SessionEnv } from '../spec/session.ts'
import type { DaemonConfig } from '../uapi/tool.ts'
import { configArguments } from './config.ts'
import { beforeEndBySignal } from './end-signals.ts'
import { messageOf } from './fail.ts'
import { lowLimits } from './limits.ts'
import { clockLibrary, HEAP_OPTION, privateFolder, removeFolder, userdmaScript } from './paths.ts'
import { withoutShim, withPreloaded } from './program/program.ts'

/** What the process of a daemon is told of it. */
export interface NextDaemon {
  /** An absolute path. */
  readonly socket: string
  readonly config: DaemonConfig
}

/** What the process of many daemons prints after the end of each. */
export const ENDED_LINE = 'userdma daemon: ended'

export interface StartedDaemon {
  /** Resolves when it has ended. */
  readonly ended: Promise<void>
  /** From now on our process does not end before `ended`. */
  ref(): void
  kill(): void
  /** The last lines of its log; empty if there are none. */
  lastOutput(): string
}

/** The daemon could not be started, or ended before it was ready; the message contains its last output, if any. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

/** The log of a daemon that starts. It is locked by the command that starts the daemon, and by the daemon. */
const OWN_LOG = /^daemon\.log\.[0-9a-f]{16}\.new$/
/** Maximum lines of a log that messages contain, the last ones. */
const MAX_LINES = 5

const logText = (path: string): string => {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    // A daemon that ends with `--remove-folder` removes its log too.
    return ''
  }
}

/** The last MAX_LINES lines of a log, without those of NOTE; '' if it cannot be read. */
export const lastLines = (path: string): string =>
  logText(path)
    .trim()
    .split('\n')
    .filter(line => !line.startsWith(DaemonLine.NOTE))
    .slice(-MAX_LINES)
    .join('\n')
    .replace(/^userdma: /, '')

/** Whether an option of Node.js opens its inspector, to every local user. */
const isInspector = (option: string): boolean => /^"?--inspect(?:-brk|-wait)?(?:=|"?$)/.test(option)

/** Whether this process may have an inspector. */
export const hasInspector = (): boolean =>
  [...process.execArgv, ...(process.env.NODE_OPTIONS ?? '').split(' ')].some(isInspector)

/**
 * The environment for our own processes: NODE_OPTIONS is for the user's programs, but inspectors are not for ours,
 * which need no certificates either (bin/userdma).
 */
const forOwnProcess = ({
  NODE_OPTIONS: options,
  NODE_EXTRA_CA_CERTS: _certificates,
  ...env
}: NodeJS.ProcessEnv): NodeJS.ProcessEnv => {
  const others = options?.split(' ').filter(option => !isInspector(option))
  return others === undefined ? env : { ...env, NODE_OPTIONS: others.join(' ') }
}

/**
 * Spawns a process for daemons; `options`: of `userdma daemon`. `inside`: the command that runs its command and becomes
 * it.
 */
const spawnDaemon = (
  config: DaemonConfig,
  options: readonly string[],
  stdio: StdioOptions,
  inside: (command: readonly string[]) => readonly string[] = command => command,
): ChildProcess => {
  const {
    [SessionEnv.tag]: _tag,
    [SessionEnv.socket]: _socket,
    [SessionEnv.clock]: _clock,
    ...others
  } = forOwnProcess(withoutShim(process.env))
  const env = config.clock === 'skip' ? withPreloaded(others, clockLibrary()) : others
  const [program, ...args] = inside([
    process.execPath,
    HEAP_OPTION,
    ...process.execArgv.filter(option => option !== HEAP_OPTION && !isInspector(option)),
    userdmaScript,
    'daemon',
    '--background',
    ...options,
    ...configArguments(config),
  ])
  return spawn(program!, args, { cwd: '/', detached: true, env, stdio })
}

/** Resolves when the process has ended, or was not spawned. */
const endOf = (child: ChildProcess): Promise<void> =>
  new Promise(resolve => {
    child.once('exit', () => resolve())
    child.once('error', () => resolve())
  })

const startedDaemon = (child: ChildProcess, ended: Promise<void>, log: string): StartedDaemon => ({
  ended,
  lastOutput: () => lastLines(log),
  ref: () => child.ref(),
  kill: () => void child.kill('SIGKILL'),
})

/**
 * Starts `userdma daemon` at `socket`, an absolute path. `options`: further options. `inside`: the command that runs
 * the daemon's command and becomes it; by default that itself. Resolves when it is ready. Throws StartError, or the
 * error of the file system if the log cannot be created.
 */
export const startInBackground = async (
  socket: string,
  config: DaemonConfig,
  options: readonly string[] = [],
  inside?: (command: readonly string[]) => readonly string[],
): Promise<StartedDaemon> => {
  const log = join(dirname(socket), 'daemon.log')
  // A temporary name until this daemon serves the socket: another command may start a daemon at the same time.
  const ownLog = `${log}.${randomBytes(8).toString('hex')}.new`
  removeLeftBehind(dirname(socket), OWN_LOG)
  // Before the log exists: a signal must not end the process between the two.
  let output: number | undefined
  const removeLog = (): void => {
    if (output !== undefined) removeHeld(ownLog, output)
  }
  const restoreSignals = beforeEndBySignal(removeLog)
  try {
    output = openSync(ownLog, 'wx', 0o600)
    if (!lockShared(ownLog, output))
      throw new StartError(`the daemon cannot be started: another command has removed its log ${ownLog}`)
    const child = spawnDaemon(config, [...options, '--socket', socket], ['ignore', 'pipe', output], inside)
    const ended = endOf(child)
    await untilReady(child, ownLog)
    child.stdout?.destroy()
    child.unref()
    renameSync(ownLog, log)
    return startedDaemon(child, ended, log)
  } finally {
    restoreSignals()
    removeLog()
    if (output !== undefined) closeSync(output)
  }
}

/** Daemons of a process: each leaves some memory, about 2 MB. */
const MOST_DAEMONS = 50

/** A process of `DaemonProcesses`. */
interface DaemonProcess {
  readonly child: ChildProcess
  /** How many daemons it may still serve. */
  left: number
  readonly log: string
  /** Resolves when it has ended. */
  readonly ended: Promise<void>
}

/**
 * Processes that serve private daemons of one kind, one after another: a start takes a tenth of that of a process.
 * `options`: of each daemon. A process that does not print ENDED_LINE after a daemon serves no other.
 */
export class DaemonProcesses {
  readonly #options: readonly string[]
  readonly #folder = privateFolder()
  readonly #idle = new Set<DaemonProcess>()
  #count = 0

  constructor(options: readonly string[]) {
    this.#options = options
  }

  #spawn(config: DaemonConfig): DaemonProcess {
    const name = join(this.#folder, String(++this.#count))
    const log = `${name}.log`
    const clock = config.clock === 'skip' ? ['--clock-page', clockPageOf(name)] : []
    const output = openSync(log, 'wx', 0o600)
    try {
      const options = [...this.#options, '--serve-next', ...clock]
      const child = spawnDaemon(config, options, ['pipe', 'pipe', output])
      // It has ended.
      child.stdin?.on('error', () => {})
      const own: DaemonProcess = { child, left: MOST_DAEMONS, log, ended: endOf(child) }
      void own.ended.then(() => this.#idle.delete(own))
      return own
    } finally {
      closeSync(output)
    }
  }

  /** As `startInBackground`. The process has the drivers and the kind of clock of its first daemon. */
  async start(socket: string, config: DaemonConfig): Promise<StartedDaemon> {
    const own = this.#idle.values().next().value ?? this.#spawn(config)
    this.#idle.delete(own)
    const { child, log, ended } = own
    child.ref()
    child.stdin?.write(`${JSON.stringify({ socket, config } satisfies NextDaemon)}\n`)
    await untilReady(child, log)
    const isOver = untilPrinted(child, ENDED_LINE).then(() => {
      own.left--
      if (own.left === 0) child.stdin?.end()
      else this.#idle.add(own)
      child.unref()
    })
    return startedDaemon(child, Promise.race([isOver, ended]), log)
  }

  /** Ends the processes, whose daemons have ended. */
  async close(): Promise<void> {
    const ends = [...this.#idle].map(({ child, ended }) => {
      child.ref()
      child.stdin?.end()
      return ended
    })
    await Promise.all(ends)
    removeFolder(this.#folder)
  }
}

/**
 * What the daemon has printed after `prefix` at the start of a line; undefined if no line has it. A module that
 * NODE_OPTIONS names may print lines before.
 */
const textAfter = (prefix: string, printed: string): string | undefined => {
  // Where `prefix` begins in `printed`: the added line feed shifts both the line and the match by one.
  const at = `\n${printed}`.indexOf(`\n${prefix}`)
  return at < 0 ? undefined : printed.slice(at + prefix.length)
}

/** Milliseconds after which a daemon that is not ready is reported. A start may wait 10 s for its lock. */
const LATE_START = 20_000

/** The error with which Node.js itself ended the daemon, to be appended to a message; empty: none in its log. */
const fatalError = (log: string): string => {
  const found = /^.*(?:fatal|pthread_create).*$/im.exec(logText(log))
  return found === null ? '' : ` (${found[0].replace(/^# /, '').trim()})`
}

/** Resolves when the process prints a line that starts with `prefix`. `printed`: gets what it prints until then. */
const untilPrinted = (child: ChildProcess, prefix: string, printed = { text: '' }): Promise<void> =>
  new Promise(resolve => {
    const onData = (chunk: string): void => {
      printed.text += chunk
      if (!textAfter(prefix, printed.text)?.includes('\n')) return
      child.stdout?.off('data', onData)
      resolve()
    }
    child.stdout?.setEncoding('utf8').on('data', onData)
  })

/**
 * Resolves when the daemon has printed READY; rejects with StartError if its process ends before, or was not spawned.
 */
const untilReady = (child: ChildProcess, log: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const failed = (error: Error): void => {
      clearTimeout(late)
      reject(new StartError(`the daemon cannot be started: ${messageOf(error)}`))
    }
    // Without enough threads Node.js may wait for ever at its own start.
    const late = setTimeout(() => {
      process.stderr.write(`userdma: the daemon (process ${child.pid}) is still starting${lowLimits()}\n`)
    }, LATE_START)
    const printed = { text: '' }
    const ended = (status: number | null, signal: NodeJS.Signals | null): void => {
      clearTimeout(late)
      const limits = signal === null ? '' : lowLimits()
      // After a crash for lack of memory or threads, the log ends with a stack of Node.js.
      const reason = textAfter(DaemonLine.FAILED, printed.text)?.trim() || (limits === '' && lastLines(log))
      const end = `the daemon ended with ${signal ?? `status ${status}`} before it was ready`
      reject(new StartError(reason || `${end}${fatalError(log)}${limits}`))
    }
    // `close`, not `exit`: then the output is complete.
    child.once('error', failed).once('close', ended)
    void untilPrinted(child, DaemonLine.READY, printed).then(() => {
      clearTimeout(late)
      child.off('error', failed).off('close', ended)
      resolve()
    })
  })
