/*
 * Runs a program without a terminal and with a time limit, for commands that run it many times. It and its children are
 * a session of their own, which ends with the limit or when the caller stops it.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { ProgramError } from './program/program.ts'

/** The end of a program. */
export interface Ending {
  /** Undefined: it ended with exit status 0. */
  readonly failure: string | undefined
  /** The end of its output. */
  readonly output: string
}

/** Characters of the output that are kept. */
const KEPT = 2000
/** Milliseconds to wait for the rest of the output after the program has ended. */
const OUTPUT_TIMEOUT = 1000

/** Runs the program at most `limit` seconds, or until `stop`. Throws ProgramError if it cannot be started. */
export const attempt = (
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  limit: number,
  stop: AbortSignal,
): Promise<Ending> =>
  new Promise((resolve, reject) => {
    let output = ''
    let isLate = false
    let child: ChildProcess | undefined
    const kill = (): void => {
      try {
        if (child?.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
      } catch {
        // All its processes have ended.
      }
    }
    stop.addEventListener('abort', kill)
    const settle = (): void => {
      clearTimeout(timer)
      stop.removeEventListener('abort', kill)
    }
    const timer = setTimeout(() => {
      isLate = true
      kill()
    }, limit * 1000)
    child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => {
        output = (output + text).slice(-KEPT)
      })
    child.once('error', error => {
      settle()
      const { code } = error as NodeJS.ErrnoException
      reject(new ProgramError(126, `${program}: it cannot be executed (${code})`))
    })
    child.once('exit', (status, signal) => {
      settle()
      // Processes that it left behind would keep the devices and the output of this run.
      kill()
      const failure = isLate
        ? `no end within ${limit} s`
        : signal !== null
          ? `signal ${signal}`
          : status === 0
            ? undefined
            : `exit status ${status}`
      const finish = (): void => {
        clearTimeout(timeout)
        resolve({ failure, output })
      }
      // A child in a session of its own may keep the output open.
      const timeout = setTimeout(finish, OUTPUT_TIMEOUT)
      child?.once('close', finish)
    })
  })
