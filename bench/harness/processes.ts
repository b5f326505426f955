/*
 * Processes of rows: a private daemon, programs under `userdma run` or `userdma check`, C references from build/bench.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort, untilListening } from '../../src/cli/listening.ts'
import type { LentCheck } from '../../src/spec/lends.ts'
import { DaemonLine } from '../../src/spec/session.ts'
import { Unavailable } from './harness.ts'

/** The checkout: this file runs from dist/bench/harness. */
const root = fileURLToPath(new URL('../../../', import.meta.url))
export const cli = join(root, 'bin', 'userdma')
/** Milliseconds after which a program counts as hanging. */
const HANG_MS = 120_000

const hasProgram = (name: string): boolean =>
  (process.env.PATH ?? '').split(delimiter).some(folder => existsSync(join(folder, name)))

/** The path of a C program of test/programs. */
export const ownProgram = (name: string): string => {
  const path = join(root, 'build', 'programs', name)
  if (!existsSync(path)) throw new Unavailable(`build/programs/${name} was not built (is libibverbs-dev installed?)`)
  return path
}

/** Throws Unavailable if the program is not in PATH. */
export const needProgram = (name: string, debianPackage: string): void => {
  if (!hasProgram(name)) throw new Unavailable(`${name} is not installed (Debian: apt-get install ${debianPackage})`)
}

export interface Running {
  readonly pid: number
  /** Resolves with the output at the end. Throws Unavailable after a failure, or if the program hangs. */
  finished(): Promise<string>
  stop(): Promise<void>
}

interface Started extends Running {
  /** Resolves at the end, with any status. */
  readonly ended: Promise<unknown>
  /** True when the program has printed `text`; false if it ends before. */
  prints(text: string): Promise<boolean>
  /** An error with `summary`, and with the status and last output of the process. */
  problem(summary: string): Unavailable
}

const start = (command: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): Started => {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env })
  const ended = once(child, 'close')
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
  }
  const isOver = (): boolean => child.exitCode !== null || child.signalCode !== null
  const problem = (summary: string): Unavailable => {
    const status = isOver() ? `ended with ${child.exitCode ?? child.signalCode}` : 'still runs'
    return new Unavailable(`${summary}; it ${status} and printed: ${output.trim().split('\n').slice(-4).join(' | ')}`)
  }
  return {
    pid: child.pid ?? 0,
    ended,
    problem,
    async finished() {
      const timer = setTimeout(() => child.kill('SIGKILL'), HANG_MS)
      await ended
      clearTimeout(timer)
      if (child.exitCode !== 0) throw problem(`${args.join(' ')} failed`)
      return output
    },
    async prints(text) {
      while (!output.includes(text) && !isOver()) await Promise.race([once(child.stdout, 'data'), ended])
      return output.includes(text)
    },
    async stop() {
      if (!isOver()) child.kill('SIGTERM')
      await ended
    },
  }
}

/** Path of a C program of bench/references. */
export const benchProgram = (name: string): string => {
  const path = join(root, 'build', 'bench', name)
  if (!existsSync(path)) throw new Unavailable(`build/bench/${name} was not built (is a C compiler installed?)`)
  return path
}

/** As `runReference`. `prefix`: a command that runs the reference, for example `ip netns exec NAME`. */
export const runReferenceIn = async (
  prefix: readonly string[],
  name: string,
  ...args: readonly (string | number)[]
): Promise<number> => {
  const [command, ...commandArgs] = [...prefix, benchProgram(name), ...args.map(String)]
  return Number.parseFloat(await start(command, commandArgs).finished())
}

/** Runs a C reference and returns the first number of its output. */
export const runReference = (name: string, ...args: readonly (string | number)[]): Promise<number> =>
  runReferenceIn([], name, ...args)

export interface Daemon {
  readonly pid: number
  readonly socket: string
  /** The file of bench/sides/young-generation.ts. */
  readonly allocations: string
  /** Starts a program with this daemon, under `userdma run` or `userdma check`. */
  run(program: string, ...args: readonly (string | number)[]): Running
  /** `run` as another user, one of `guests`. */
  runAs(user: number, program: string, ...args: readonly (string | number)[]): Running
  /** Starts a server, and waits until it listens on its TCP port. */
  runServer(port: number, program: string, ...args: readonly (string | number)[]): Promise<Running>
  /** Starts a server, and waits until it prints "ready". */
  runReady(program: string, ...args: readonly (string | number)[]): Promise<Running>
  stop(): Promise<void>
}

/**
 * A daemon with a private socket. `devices`: instead of the default one. `check`: programs run under `userdma check`; `races`: with
 * `--races`. `lent`: with `--lent`. `record`: it records into a file of at most 64 MiB. `nodeOptions`: of its process. `guests`: users that may use root's daemon.
 */
export const startDaemon = async ({
  devices = [],
  check = false,
  races = false,
  lent,
  record = false,
  nodeOptions = [],
  guests = [],
}: {
  readonly devices?: readonly string[]
  readonly check?: boolean
  readonly races?: boolean
  readonly lent?: LentCheck
  readonly record?: boolean
  readonly nodeOptions?: readonly string[]
  readonly guests?: readonly number[]
} = {}): Promise<Daemon> => {
  const folder = mkdtempSync(join(tmpdir(), 'userdma-bench-'))
  if (guests.length > 0) chmodSync(folder, 0o755)
  const socket = join(folder, 'sock')
  const allocations = join(folder, 'allocations')
  const command = [
    ...nodeOptions,
    cli,
    'daemon',
    '--socket',
    socket,
    ...devices.flatMap(device => ['--device', device]),
    ...(check ? ['--check'] : []),
    ...(lent === undefined ? [] : ['--lent', lent]),
    ...(record ? ['--record', join(folder, 'session.udr'), '--record-limit', '64M'] : []),
    ...guests.flatMap(guest => ['--allow-user', `${guest}`]),
  ]
  const daemon = start(process.execPath, command, { ...process.env, USERDMA_BENCH_ALLOCATIONS: allocations })
  const stop = async (): Promise<void> => {
    await daemon.stop()
    rmSync(folder, { recursive: true, force: true })
  }
  if (!(await daemon.prints(DaemonLine.READY))) {
    await stop()
    throw daemon.problem('the daemon did not start')
  }
  const run = (program: string, args: readonly (string | number)[], prefix: readonly string[] = []): Started => {
    const command = [...prefix, process.execPath, cli, check ? 'check' : 'run', ...(races ? ['--races'] : [])]
    return start(command[0]!, [...command.slice(1), '--socket', socket, '--', program, ...args.map(String)])
  }
  return {
    pid: daemon.pid,
    socket,
    allocations,
    stop,
    run: (program, ...args) => run(program, args),
    runAs: (user, program, ...args) =>
      run(program, args, ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups']),
    async runServer(port, program, ...args) {
      const server = run(program, args)
      if (!(await untilListening(port, server.ended))) throw server.problem(`${program} does not listen`)
      return server
    },
    async runReady(program, ...args) {
      const server = run(program, args)
      if (!(await server.prints('ready'))) throw server.problem(`${program} is not ready`)
      return server
    },
  }
}

/** Runs a server and its client; returns the client's output. Server and client get `-p PORT` after `args`. */
export const runPair = async (
  daemon: Daemon,
  program: string,
  ...args: readonly (string | number)[]
): Promise<string> => {
  const port = await freePort()
  const server = await daemon.runServer(port, program, ...args, '-p', port)
  try {
    const output = await daemon.run(program, ...args, '-p', port, '127.0.0.1').finished()
    await server.finished()
    return output
  } finally {
    await server.stop()
  }
}
