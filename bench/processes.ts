/*
 * Processes for rows that measure unmodified programs: a daemon of their own on a private socket, programs under `userdma run`, the
 * C twins from build/bench. Everything started here is ended by the same handle.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Unavailable } from './harness.ts'

/** The checkout: this file runs from dist/bench. */
const root = fileURLToPath(new URL('../../', import.meta.url))
const cli = join(root, 'bin', 'userdma')
const START_MS = 20_000

const hasProgram = (name: string): boolean =>
  (process.env.PATH ?? '').split(delimiter).some(folder => existsSync(join(folder, name)))

/** Throws Unavailable unless the program is in PATH. */
export const needProgram = (name: string, debianPackage: string): void => {
  if (!hasProgram(name)) throw new Unavailable(`${name} is not installed (Debian: apt-get install ${debianPackage})`)
}

interface Output {
  text: string
}

const collect = (child: ChildProcess): Output => {
  const output: Output = { text: '' }
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      output.text += text
    })
  }
  return output
}

const lastLines = (text: string): string => text.trimEnd().split('\n').slice(-4).join(' | ')

/** Waits for something that another process does; Unavailable with its last words if it ends or takes too long. */
const until = async (what: string, child: ChildProcess, output: Output, done: () => boolean): Promise<void> => {
  for (const deadline = performance.now() + START_MS; !done(); await sleep(5)) {
    if (child.exitCode !== null || child.signalCode !== null || performance.now() > deadline) {
      const ended = child.exitCode ?? child.signalCode ?? 'still running'
      throw new Unavailable(`${what} (${ended}): ${lastLines(output.text)}`)
    }
  }
}

const stop = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  await ended
}

export interface Running {
  readonly pid: number
  /** Resolves with everything it printed; Unavailable if it failed. */
  finished(): Promise<string>
  stop(): Promise<void>
}

const start = (command: string, args: readonly string[]): { running: Running; child: ChildProcess; output: Output } => {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  const output = collect(child)
  const closed = once(child, 'close')
  const finished = async (): Promise<string> => {
    const [status, signal] = await closed
    if (status !== 0)
      throw new Unavailable(`${args.join(' ')} ended with ${status ?? signal}: ${lastLines(output.text)}`)
    return output.text
  }
  return { running: { pid: child.pid ?? 0, finished, stop: () => stop(child) }, child, output }
}

/** Runs a twin to its end and returns the number that its output begins with. */
export const runTwin = async (name: string, ...args: readonly (string | number)[]): Promise<number> => {
  const path = join(root, 'build', 'bench', name)
  if (!existsSync(path)) throw new Unavailable(`build/bench/${name} was not built (is there a C compiler?)`)
  return Number.parseFloat(await start(path, args.map(String)).running.finished())
}

export interface Daemon {
  readonly pid: number
  /** Starts a program under `userdma run`, joined to this daemon. */
  run(program: string, ...args: readonly (string | number)[]): Running
  /** The same for a server: waits until it listens on its TCP port. */
  runServer(port: number, program: string, ...args: readonly (string | number)[]): Promise<Running>
  stop(): Promise<void>
}

const STATE_LISTEN = '0A'

/** Whether some process of this machine listens on the TCP port; asked without connecting, since servers accept one client. */
const isListening = (port: number): boolean => {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  return ['/proc/net/tcp', '/proc/net/tcp6'].filter(existsSync).some(path =>
    readFileSync(path, 'utf8')
      .split('\n')
      .map(line => line.trim().split(/\s+/))
      .some(([, local, , state]) => local?.endsWith(wanted) && state === STATE_LISTEN),
  )
}

/** A TCP port that nobody uses just now. */
export const freePort = async (): Promise<number> => {
  const server = createServer().listen(0)
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error(`no port: ${address}`)
  return address.port
}

/** A daemon with its default device on a private socket. */
export const startDaemon = async (): Promise<Daemon> => {
  const folder = mkdtempSync(join(tmpdir(), 'userdma-bench-'))
  const socket = join(folder, 'sock')
  const { running: daemon, child, output } = start(process.execPath, [cli, 'daemon', '--socket', socket])
  await until('the daemon did not start', child, output, () => existsSync(socket) && /ready/i.test(output.text))

  const begin = (program: string, args: readonly (string | number)[]) =>
    start(process.execPath, [cli, 'run', '--socket', socket, '--', program, ...args.map(String)])
  return {
    pid: daemon.pid,
    run: (program, ...args) => begin(program, args).running,
    runServer: async (port, program, ...args) => {
      const { running, child: server, output: said } = begin(program, args)
      await until(`${program} does not listen`, server, said, () => isListening(port))
      return running
    },
    stop: async () => {
      await daemon.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Runs a server and its client to their end under the daemon; what the client printed. Both get `-p PORT` after `args`. */
export const runPair = async (
  daemon: Daemon,
  program: string,
  ...args: readonly (string | number)[]
): Promise<string> => {
  const port = await freePort()
  const server = await daemon.runServer(port, program, ...args, '-p', port)
  try {
    const said = await daemon.run(program, ...args, '-p', port, '127.0.0.1').finished()
    await server.finished()
    return said
  } finally {
    await server.stop()
  }
}
