/*
 * Runs a program without a terminal and with a time limit, for commands that run it many times. The program and its
 * children are a process group of their own, which is killed at the time limit, when the caller stops the run, and when
 * the program has ended. So are processes that have left the group, if they have the daemon of the run.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { statSync } from 'node:fs'
import { processesWith } from '../host/process-status.ts'
import { SessionEnv } from '../spec/session.ts'
import { exitsAreSeen, spawnError } from './program/program.ts'

export interface AttemptResult {
  /** Why the attempt failed: exit status, signal or time limit. Undefined: the program ended with exit status 0. */
  readonly failure: string | undefined
  /** The last MAX_OUTPUT characters of standard output and standard error. */
  readonly output: string
  /** The last MAX_STREAM characters of each. */
  readonly stdout: string
  readonly stderr: string
  /** The exit status; null: a signal has ended the program. */
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly isTimedOut: boolean
  /** It is as after the time limit, because the program could not go on. */
  readonly isDeadlock?: boolean
  /** Milliseconds. */
  readonly duration: number
}

interface AttemptLimits {
  readonly seconds: number
  /** Stops the run when it is aborted. */
  readonly stop: AbortSignal
  /**
   * At the time limit the processes first get SIGQUIT, and so many milliseconds to write their stacks; default: they do
   * not.
   */
  readonly quitMilliseconds?: number
  /** The file to which they write them: once it is quiet, the wait is over. */
  readonly quitFile?: string
  /** The socket of a daemon that only this run uses: all processes that have it in their environment are killed too. */
  readonly ownSocket?: string
  /**
   * Called when the program has ended, or at the time limit before any signal, while its children still run. They are
   * killed after it, or after LOOK_TIMEOUT.
   */
  readonly look?: (isTimedOut: boolean) => Promise<void>
  /** Begins to look for a deadlock, or an earlier end of the limit. Returns a function that ends it. */
  readonly watch?: (found: (isDeadlock: boolean) => void) => () => void
}

const MAX_OUTPUT = 2000
const MAX_STREAM = 2 ** 16
/** Milliseconds to wait for the rest of the output after the program has ended. */
const OUTPUT_TIMEOUT = 1000
/** The longest time of `look`, milliseconds. */
const LOOK_TIMEOUT = 5000
/** A file is quiet that has something, and as much as so many milliseconds before. */
const QUIET = 500

const sizeOf = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0

/** Runs the program until it ends, the time limit, or `stop`. Throws ProgramError if it cannot be started. */
export const attempt = (
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  { seconds: limitSeconds, stop, quitMilliseconds, quitFile, ownSocket, look = async () => {}, watch }: AttemptLimits,
): Promise<AttemptResult> =>
  new Promise((resolve, reject) => {
    const begin = performance.now()
    let output = ''
    const streams = { stdout: '', stderr: '' }
    let isTimedOut = false
    let isDeadlock = false
    let hasEnded = false
    let child: ChildProcess | undefined
    const signalGroup = (signal: NodeJS.Signals): void => {
      try {
        if (child?.pid !== undefined) process.kill(-child.pid, signal)
      } catch {
        // All processes of the group have ended, or run as another user.
      }
    }
    /** Daemons of the program have left its group; they have its environment, with the private daemon of this run. */
    const kill = (): void => {
      signalGroup('SIGKILL')
      if (ownSocket === undefined) return
      for (const pid of processesWith(`${SessionEnv.socket}=${ownSocket}`))
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // It has ended.
        }
    }
    const looked = (): Promise<unknown> => {
      let timer: NodeJS.Timeout | undefined
      const late = new Promise(resolve => {
        timer = setTimeout(resolve, LOOK_TIMEOUT)
      })
      return Promise.race([look(isTimedOut).catch(() => {}), late]).finally(() => clearTimeout(timer))
    }
    let quitTimer: NodeJS.Timeout | undefined
    stop.addEventListener('abort', kill)
    const cleanUp = (): void => {
      clearTimeout(limitTimer)
      clearTimeout(quitTimer)
      endWatch?.()
      stop.removeEventListener('abort', kill)
    }
    const reachLimit = (): void => {
      if (isTimedOut || hasEnded) return
      isTimedOut = true
      if (quitMilliseconds === undefined) kill()
      else
        void looked().then(() => {
          if (hasEnded) return
          signalGroup('SIGQUIT')
          const end = performance.now() + quitMilliseconds
          const wait = (before: number): void => {
            quitTimer = setTimeout(
              () => {
                const size = quitFile === undefined ? 0 : sizeOf(quitFile)
                if ((size > 0 && size === before) || performance.now() >= end) kill()
                else wait(size)
              },
              quitFile === undefined ? quitMilliseconds : Math.min(QUIET, quitMilliseconds),
            )
          }
          wait(0)
        })
    }
    const limitTimer = setTimeout(() => void exitsAreSeen().then(reachLimit), limitSeconds * 1000)
    const endWatch = watch?.(isDeadlockFound => {
      isDeadlock = isDeadlockFound && !isTimedOut
      reachLimit()
    })
    const rejectSpawn = (error: unknown): void => {
      cleanUp()
      reject(spawnError(program, error))
    }
    try {
      child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    } catch (error) {
      rejectSpawn(error)
      return
    }
    if (stop.aborted) kill()
    for (const name of ['stdout', 'stderr'] as const)
      child[name]?.setEncoding('utf8').on('data', (text: string) => {
        output = (output + text).slice(-MAX_OUTPUT)
        streams[name] = (streams[name] + text).slice(-MAX_STREAM)
      })
    child.once('error', rejectSpawn)
    child.once('exit', (status, signal) => {
      const duration = performance.now() - begin
      const wasTimedOut = isTimedOut
      hasEnded = true
      clearTimeout(limitTimer)
      const failure = wasTimedOut
        ? `no end within ${Math.round(limitSeconds * 10) / 10} s`
        : signal !== null
          ? `signal ${signal}`
          : status === 0
            ? undefined
            : `exit status ${status}`
      const finish = (): void => {
        clearTimeout(outputTimer)
        // Open pipes would keep this process alive.
        child?.stdout?.destroy()
        child?.stderr?.destroy()
        resolve({ failure, output, ...streams, status, signal, isTimedOut: wasTimedOut, isDeadlock, duration })
      }
      let outputTimer: NodeJS.Timeout | undefined
      const closed = new Promise(done => child?.once('close', done))
      void (wasTimedOut ? Promise.resolve() : looked()).then(() => {
        cleanUp()
        // Child processes that still run would keep the devices and the output open.
        kill()
        // A child in another process group may keep the output open.
        outputTimer = setTimeout(finish, OUTPUT_TIMEOUT)
        void closed.then(finish)
      })
    })
  })
