/*
 * Runs the program of a command line: it inherits our descriptors, and gets our signals. Its environment names the
 * preload library and the daemon's socket, which make the devices visible.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { accessSync, closeSync, constants, existsSync, openSync, type Stats, statSync } from 'node:fs'
import { constants as os } from 'node:os'
import { basename, delimiter, join } from 'node:path'
import { endBySignal } from '../../host/end-by-signal.ts'
import { descendantsOf } from '../../host/process-status.ts'
import type { BufferCheck } from '../../spec/check/requests.ts'
import { clockPageOf } from '../../spec/clock-page.ts'
import { SessionEnv } from '../../spec/session.ts'
import type { ProgramEnd as RecordedEnd } from '../../uapi/tool.ts'
import { lowLimits } from '../limits.ts'
import { clockLibrary, freesLibrary, shimLibrary, waitsLibrary } from '../paths.ts'
import { debianRemedy } from './debian-packages.ts'
import { inheritedStdio } from './inherited.ts'

/** A program that cannot be run. `status` as in shells: 127 not found, 126 not executable. */
export class ProgramError extends Error {
  override readonly name = 'ProgramError'
  readonly status: 126 | 127

  constructor(status: 126 | 127, message: string) {
    super(message)
    this.status = status
  }
}

/**
 * Whether a path of LD_PRELOAD is one of userdma's libraries: `waits` intercepts waits of threads, `frees` `free`,
 * `clock` time.
 */
const isOwnLibrary = (path: string): boolean => /\/libuserdma_(?:shim|waits|frees|clock)\.so$/.test(path)
const preloadsIn = (env: NodeJS.ProcessEnv): string[] => (env.LD_PRELOAD ?? '').split(/[\s:]+/).filter(Boolean)

/** The environment without userdma's libraries in LD_PRELOAD, for our own processes. */
export const withoutShim = (env: NodeJS.ProcessEnv): NodeJS.ProcessEnv => {
  const { LD_PRELOAD: _, ...rest } = env
  const others = preloadsIn(env).filter(path => !isOwnLibrary(path))
  return others.length > 0 ? { ...rest, LD_PRELOAD: others.join(':') } : rest
}

/** How the preload library marks the program's calls, and what it reports beside them. */
export interface Recording {
  /** Identifies its calls for `userdma trace`. */
  readonly tag?: string | undefined
  /** The stacks of its calls and posts. */
  readonly stacks?: boolean
  /**
   * Also the order of its posts and polls (the event log, spec/session.ts): for the search for races, or for a
   * recording only. Needs `stacks`.
   */
  readonly events?: boolean | 'record'
  /** Which bytes of sends are hashed at the post. Needs `stacks`. Absent: `sampled`. */
  readonly buffers?: BufferCheck
  /** Sends are refused as by adapters that free slots of send queues at polls. Needs `stacks`. */
  readonly freesAtPoll?: boolean
  /**
   * The file to which it appends its stacks at a crash and at SIGQUIT (shim/check/crashes.c). Without `stacks` at
   * SIGQUIT only.
   */
  readonly crashes?: string
}

/** The libraries to preload, in the order of LD_PRELOAD. Throws as `shimLibrary`. */
export const preloadedLibraries = ({ stacks = false }: Recording): string[] => [
  ...(stacks ? [waitsLibrary()] : []),
  shimLibrary(),
  ...(stacks ? [freesLibrary()] : []),
]

/** The environment with a library preloaded. */
export const withPreloaded = (env: NodeJS.ProcessEnv, library: string): NodeJS.ProcessEnv => ({
  ...env,
  LD_PRELOAD: [library, ...preloadsIn(env)].join(':'),
})

/**
 * The environment in which a program sees the devices of the daemon at `socket`, and takes part in its clock if that
 * skips. Throws as `shimLibrary`.
 */
export const programEnvironment = (socket: string, recording: Recording = {}): NodeJS.ProcessEnv => {
  const { tag, stacks, events, buffers, freesAtPoll, crashes } = recording
  const { tag: tagName, stacks: stacksName, buffers: buffersName, slots, crashes: crashesName, clock } = SessionEnv
  const own: readonly string[] = [tagName, stacksName, buffersName, slots, crashesName, clock]
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !own.includes(name)))
  const page = clockPageOf(socket)
  const skips = existsSync(page)
  // The last: waits and polls that the others intercept reach the clock.
  const libraries = [...preloadedLibraries(recording), ...(skips ? [clockLibrary()] : [])]
  return {
    ...env,
    ...(skips && { [clock]: page }),
    LD_PRELOAD: [...libraries, ...preloadsIn(env).filter(path => !isOwnLibrary(path))].join(':'),
    [SessionEnv.socket]: socket,
    ...(tag !== undefined && { [SessionEnv.tag]: tag }),
    // 1: stacks; 2: also the event log, in which races are searched; 3: the event log for a recording.
    ...(stacks && { [SessionEnv.stacks]: events === 'record' ? '3' : events ? '2' : '1' }),
    ...(stacks && buffers === 'all' && { [SessionEnv.buffers]: buffers }),
    ...(stacks && freesAtPoll && { [SessionEnv.slots]: 'polled' }),
    // Its reports are findings, too (shim/check/told.c).
    ...(stacks && { TSAN_OPTIONS: ['log_to_syslog=1', ...(env.TSAN_OPTIONS ? [env.TSAN_OPTIONS] : [])].join(':') }),
    ...(crashes !== undefined && { [SessionEnv.crashes]: crashes }),
  }
}

/** The file's stat; undefined also for paths that we may not access, for example other users' folders in PATH. */
const statOf = (path: string): Stats | undefined => {
  try {
    return statSync(path)
  } catch {
    return undefined
  }
}

const isExecutableFile = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return statOf(path)?.isFile() === true
  } catch {
    return false
  }
}

/** Paths to try for a program's name. */
const candidatesOf = (program: string): string[] => {
  if (program.includes('/')) return [program]
  return program === '' ? [] : (process.env.PATH ?? '').split(delimiter).map(folder => join(folder || '.', program))
}

/** The path of an executable program; undefined if there is none. */
export const findProgram = (program: string): string | undefined => candidatesOf(program).find(isExecutableFile)

/** The path of a program. Throws ProgramError if it cannot be run. */
export const requireProgram = (program: string): string => {
  const candidates = candidatesOf(program)
  const path = candidates.find(isExecutableFile)
  if (path !== undefined) return path
  const existing = candidates.map(path => ({ path, stat: statOf(path) })).find(({ stat }) => stat)
  if (existing) {
    const name = existing.path === program ? program : `${program}: ${existing.path}`
    throw new ProgramError(
      126,
      existing.stat?.isDirectory() ? `${name} is a folder, not a program` : `${name} is not executable for you`,
    )
  }
  throw new ProgramError(
    127,
    `${program || '""'}: there is no such program${program.includes('/') ? '' : ' in PATH'}${debianRemedy(program)}`,
  )
}

/** Whether there is a controlling terminal, which sends SIGINT and SIGQUIT to the program too. */
const hasTerminal = (): boolean => {
  try {
    closeSync(openSync('/dev/tty', 'r'))
    return true
  } catch {
    return false
  }
}

/** Signals that the program gets from us. */
const FORWARDED = ['SIGHUP', 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGCONT'] as const
/** Signals that the program gets from the terminal, or from us if there is none. */
const TERMINAL_SIGNALS = ['SIGINT', 'SIGQUIT'] as const

/** The ProgramError for an error that `spawn` has thrown (E2BIG) or emitted. */
export const spawnError = (program: string, error: unknown): ProgramError => {
  const { code } = error as NodeJS.ErrnoException
  // The program itself was found before (`requireProgram`): the interpreter in its #! line is missing.
  return code === 'ENOENT'
    ? new ProgramError(127, `${program}: its interpreter does not exist`)
    : new ProgramError(
        126,
        `${program}: it cannot be executed (${code})${code === 'EAGAIN' || code === 'ENOMEM' ? lowLimits() : ''}`,
      )
}

/** Characters of a program's name in a recording. */
const MAX_COMMAND = 64

/** How a program has ended. */
export interface ProgramEnd {
  /** Its exit status, or 128+n after signal n. */
  readonly status: number
  /** The signal that ended it. */
  readonly signal: NodeJS.Signals | null
  readonly pid?: number | undefined
  /** The seconds after which we have ended it (`ProgramLimit`). */
  readonly limit?: number
  /** We have ended it because it cannot go on. */
  readonly isDeadlock?: boolean
}

/** The exit status of a program that has reached its time limit, that of timeout(1). */
export const LIMIT_STATUS = 124

/** Milliseconds that a program gets after SIGTERM, before SIGKILL. */
const GRACE = 5000

/** A program that runs too long, or that cannot go on, gets SIGTERM, with the processes that it has started. */
interface ProgramLimit {
  readonly seconds?: number | undefined
  /** Begins to look for a deadlock; `found` is called once. Returns a function that ends it. */
  watch?(found: () => void): () => void
  /** Called before the signal. */
  reached?(isDeadlock: boolean): Promise<void>
}

/** The end of a program for its recording. */
export const recordedEnd = (program: string, { status, signal, pid }: ProgramEnd): RecordedEnd => ({
  pid: pid ?? 0,
  command: basename(program).slice(0, MAX_COMMAND),
  status,
  signal: signal ?? '',
})

const signalAll = (pids: readonly number[], signal: NodeJS.Signals): void => {
  for (const pid of pids)
    try {
      process.kill(pid, signal)
    } catch {
      // It has ended, or is another user's.
    }
}

/**
 * When the ends of children up to now have been emitted: the event loop looks at them before immediates, but after
 * timers.
 */
export const exitsAreSeen = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

/**
 * Runs the program to its end. A program that does not end within GRACE after SIGTERM, of its `limit` or if `isKilled`
 * of ours, gets SIGKILL. Throws ProgramError if it cannot be started.
 */
export const runProgram = (
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  { limit, isKilled = false }: { readonly limit?: ProgramLimit | undefined; readonly isKilled?: boolean } = {},
): Promise<ProgramEnd> =>
  new Promise((resolve, reject) => {
    let child: ChildProcess | undefined
    let timer: NodeJS.Timeout | undefined
    let isReached = false
    let isLate = false
    let isDeadlock = false
    let isTerminated = false
    let hasEnded = false
    const killLater = (pids: readonly number[]): void => {
      clearTimeout(timer)
      timer = setTimeout(signalAll, GRACE, pids, 'SIGKILL')
    }
    const forward = (signal: NodeJS.Signals): void => {
      child?.kill(signal)
      if (!isKilled || signal !== 'SIGTERM' || child?.pid === undefined) return
      isTerminated = true
      killLater([child.pid])
    }
    const reachLimit = async (byDeadlock: boolean): Promise<void> => {
      if (isReached) return
      isReached = true
      // A report may have held up this process: a program that has ended by itself meanwhile is not late.
      await exitsAreSeen()
      if (hasEnded) return
      await limit?.reached?.(byDeadlock)
      await exitsAreSeen()
      if (hasEnded) return
      if (byDeadlock) isDeadlock = true
      else isLate = true
      const pids = child?.pid === undefined ? [] : [child.pid, ...descendantsOf(child.pid)]
      signalAll(pids, 'SIGTERM')
      killLater(pids)
    }
    const ignore = (): void => {}
    const terminalHandler = hasTerminal() ? ignore : forward
    const handlers: [NodeJS.Signals, (signal: NodeJS.Signals) => void][] = [
      ...FORWARDED.map((signal): [NodeJS.Signals, typeof forward] => [signal, forward]),
      ...TERMINAL_SIGNALS.map((signal): [NodeJS.Signals, typeof forward] => [signal, terminalHandler]),
    ]
    // Installed before the program is spawned: a signal during spawn would otherwise end only this process.
    for (const [signal, handler] of handlers) process.on(signal, handler)
    const removeHandlers = (): void => {
      for (const [signal, handler] of handlers) process.off(signal, handler)
    }
    const rejectSpawn = (error: unknown): void => {
      removeHandlers()
      reject(spawnError(program, error))
    }
    try {
      child = spawn(program, args, { env, stdio: inheritedStdio() })
    } catch (error) {
      rejectSpawn(error)
      return
    }
    child.on('error', error => {
      // Emitted also if a signal cannot be sent, because the program runs as another user (sudo): the program
      // continues.
      if (child?.pid === undefined) rejectSpawn(error)
    })
    if (limit?.seconds !== undefined) timer = setTimeout(() => void reachLimit(false), limit.seconds * 1000)
    const endWatch = limit?.watch?.(() => void reachLimit(true))
    child.once('exit', (status, signal) => {
      hasEnded = true
      clearTimeout(timer)
      endWatch?.()
      removeHandlers()
      const pid = child?.pid
      // What has ended it in the end is not what its user sees.
      const ended = signal === 'SIGKILL' && isTerminated ? 'SIGTERM' : signal
      const end = { status: ended === null ? (status ?? 0) : 128 + os.signals[ended], signal: ended, pid }
      if (isDeadlock) resolve({ ...end, signal: signal ?? 'SIGTERM', isDeadlock })
      else if (isLate) resolve({ ...end, status: LIMIT_STATUS, signal: signal ?? 'SIGTERM', limit: limit!.seconds! })
      else resolve(end)
    })
  })

/**
 * Ends this process as its program has ended: with the same exit status or, like strace, timeout and sudo, by the same
 * signal. A loop of a shell script ends at Ctrl-C only if a process ends by the signal: status 130 means that it has
 * handled the signal.
 */
export const endAs = ({ status, signal }: ProgramEnd): void => {
  // The exit status if the signal does not end this process.
  process.exitCode = status
  if (signal !== null) endBySignal(signal)
}
