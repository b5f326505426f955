/*
 * Debian's programs of rdma_cm as pairs of server and client. test/project/catalogue runs other pairs with these
 * functions.
 */
import assert from 'node:assert/strict'
import type { Stat } from '../../../src/uapi/tool.ts'
import {
  type Finished,
  freePort,
  hasOnlyLiving,
  type Running,
  type Scope,
  start,
  type TestDaemon,
  untilListening,
} from '../programs.ts'

export interface RdmacmCase {
  /** With placeholders (`Placeholders`). */
  readonly server: string
  readonly client: string
  /** The server is stopped after the client. */
  readonly isServerEndless?: true
  /**
   * The server listens again between two connections of one client (perftest -R). A fast client finds no listener: the
   * case is repeated. On Linux's rxe the client fails in the same way (REJECTED, error 8), and its own retry crashes
   * (perftest 25.01).
   */
  readonly listensTwice?: true
  /** An exit status, besides 0, of successful programs. */
  readonly status?: number
}

const POLLHUP = 16

/** Options on both sides; the server is bound to SERVER. */
export const bothSides = (program: string, options: string): RdmacmCase => ({
  server: `${program} -b SERVER -p PORT ${options}`,
  client: `${program} -s SERVER -p PORT ${options}`,
})

/** udaddy has no option for the port: its -p is the port space. */
export const udaddy = (options: string): RdmacmCase => ({
  server: `udaddy -b SERVER ${options}`,
  client: `udaddy -s SERVER ${options}`,
})

const perftest = (line: string): RdmacmCase => ({
  server: `${line} -R -p PORT -F -x 1`,
  client: `${line} -R -p PORT -F -x 1 SERVER`,
  listensTwice: true,
})

export const rpingCases: readonly RdmacmCase[] = [
  { server: 'rping -s -a SERVER -p PORT -C 5 -v', client: 'rping -c -a SERVER -p PORT -C 5 -v' },
  { server: 'rping -s -p PORT -C 10 -V -S 4000', client: 'rping -c -a SERVER -p PORT -C 10 -V -S 4000' },
  { server: 'rping -s -p PORT -q -C 3', client: 'rping -c -a SERVER -p PORT -q -C 3' },
  { server: 'rping -s -P -p PORT', client: 'rping -c -a SERVER -p PORT -C 3 -V', isServerEndless: true },
]

const UDADDY_PORT = 7174 // fixed

/** `port`: of the placeholder PORT. */
export const listeningPort = ({ server }: RdmacmCase, port: number): number =>
  server.startsWith('udaddy') ? UDADDY_PORT : port

const placeholderPattern = /\b(?:SERVER6|SERVER|CLIENT|PORT|FILE|COPY|RSOCKETS)\b/g
/**
 * SERVER, SERVER6 and CLIENT are addresses, PORT is a free TCP port, FILE and COPY are paths, RSOCKETS is the path of
 * librspreload.
 */
export type Placeholders = Readonly<Record<string, string>>

/** Program and arguments of a line. */
export const wordsOf = (line: string, values: Placeholders): [program: string, ...args: string[]] => {
  const [program, ...args] = line
    .trim()
    .replace(placeholderPattern, name => values[name] ?? name)
    .split(/ +/)
  return [program, ...args]
}

export const rdmacmCases: readonly RdmacmCase[] = [
  ...rpingCases,
  bothSides('ucmatose', ''),
  bothSides('ucmatose', '-c 8 -C 5 -S 3000'),
  bothSides('ucmatose', '-c 3 -t 8 -m'),
  udaddy(''),
  udaddy('-c 4 -C 8 -S 500'),
  { server: 'rdma_server -s SERVER -p PORT', client: 'rdma_client -s SERVER -p PORT' },
  { server: 'rdma_xserver -p PORT', client: 'rdma_xclient -s SERVER -p PORT' },
  { server: 'cmtime -b SERVER -p PORT -c 20', client: 'cmtime -s SERVER -p PORT -c 20', isServerEndless: true },
  bothSides('rstream', '-S 65536 -C 20'),
  // poll returns POLLHUP if the server has exited before the client reads the last answer.
  { ...bothSides('rstream', '-S 4096 -C 50 -T a'), status: POLLHUP },
  bothSides('rstream', '-S 4096 -C 50 -T b'),
  bothSides('rstream', '-S 4096 -C 50 -T n'),
  bothSides('riostream', '-S 4096 -I 20 -C 5'),
  perftest('ib_send_bw -n 50 -s 4096'),
  perftest('ib_send_lat -n 20 -s 64 -e'),
  perftest('ib_send_bw -c UD -n 50 -s 1000'),
  perftest('ib_write_bw -n 50 -s 65536 -q 2'),
  perftest('ib_write_lat -n 10 -s 64'),
  perftest('ib_read_bw -n 50 -s 4096'),
  perftest('ib_read_lat -n 20 -s 64'),
  perftest('ib_atomic_bw -n 50'),
  perftest('ib_atomic_lat -n 20'),
]

export interface RdmacmOptions {
  /** Default: the server's. */
  readonly clientDaemon?: TestDaemon
  /** SERVER is 127.0.0.1 by default. */
  readonly values?: Placeholders
  /** Returns the command that runs a program, for example in another userland. */
  readonly command?: (words: readonly [string, ...string[]]) => readonly [string, ...string[]]
}

interface RdmacmResult {
  readonly server: Finished
  readonly client: Finished
}

/** perftest's messages for a REJ and for a SIDR_REP when the peer has no listener. */
const NO_LISTENER = /REJECTED; error: 8\b|UNREACHABLE; error: 1\b/
const MAX_TRIES = 20

/** Repeats the case if the client found no listener (see `listensTwice`). */
export const runRdmacm = async (
  scope: Scope,
  daemon: TestDaemon,
  one: RdmacmCase,
  options?: RdmacmOptions,
): Promise<RdmacmResult> => {
  for (let tries = 1; ; tries++) {
    const finish = await startRdmacm(scope, daemon, one, options)
    const result = await finish()
    if (!one.listensTwice || tries === MAX_TRIES || !NO_LISTENER.test(result.client.stderr)) return result
  }
}

/**
 * On InfiniBand libmlx5 makes address handles without a call. Then the queue pairs, which the joins follow, must do.
 */
const countGroups = ({ devices }: Stat): number =>
  devices.reduce((sum, { name, objects }) => sum + ((name.startsWith('mlx5') ? objects.ud_qp : objects.ah) ?? 0), 0)

/**
 * Resolves when a server waits for its client, or has exited. `before`: the daemon's numbers before the server started.
 */
const untilReady = async (daemon: TestDaemon, line: string, port: number, before: Stat, ended: Promise<unknown>) => {
  const [program] = wordsOf(line, {})
  // Without rdma_cm (-R, -z) programs exchange addresses over TCP.
  if (/^ib(v?)_/.test(program) && !/ -[Rz]\b/.test(line)) return untilListening(port, ended)
  // A datagram rsocket creates no objects in the daemon before its first message.
  if (program === 'udpong') return
  const listens = (now: Stat): boolean => now.connections.listeners > before.connections.listeners
  // mckey has a queue pair for each group, and creates an address handle when it has joined.
  const groups = Number(/ -c (\d+)/.exec(line)?.[1] ?? 1)
  const hasJoined = (now: Stat): boolean => countGroups(now) >= countGroups(before) + groups
  await Promise.race([daemon.settled(program === 'mckey' ? hasJoined : listens), ended])
}

/** `LD_PRELOAD=LIBRARY` before the program preloads that library after userdma's. */
export const startLine = (
  scope: Scope,
  daemon: TestDaemon,
  line: string,
  { values = {}, command = words => words }: RdmacmOptions = {},
): Running => {
  const words = wordsOf(line, { SERVER: '127.0.0.1', ...values })
  const { LD_PRELOAD } = daemon.env
  const preloaded = /^LD_PRELOAD=(.*)/.exec(words[0])?.[1]
  if (preloaded !== undefined) words.splice(0, 1, 'env', `LD_PRELOAD=${LD_PRELOAD}:${preloaded}`)
  const [program, ...args] = command(words)
  return start(scope, program, args, { env: daemon.env })
}

/** Waits for both sides. Stops a server that would wait for more clients, or whose client failed. */
export const finishRdmacm = async (
  { isServerEndless, status }: Pick<RdmacmCase, 'isServerEndless' | 'status'>,
  server: Running,
  client: Running,
): Promise<RdmacmResult> => {
  const finished = await client.ended
  if (isServerEndless || (finished.status !== 0 && finished.status !== status)) server.child.kill('SIGTERM')
  return { server: await server.ended, client: finished }
}

/** Starts the server; the returned function runs the client, and resolves when both have exited. */
export const startRdmacm = async (
  scope: Scope,
  daemon: TestDaemon,
  one: RdmacmCase,
  options: RdmacmOptions = {},
): Promise<() => Promise<RdmacmResult>> => {
  const port = await freePort()
  const optionsWithPort = { ...options, values: { ...options.values, PORT: String(port) } }
  // `untilReady` compares counts: the daemon must have destroyed the listeners of ended servers.
  const before = await daemon.settled(hasOnlyLiving)
  const server = startLine(scope, daemon, one.server, optionsWithPort)
  await untilReady(daemon, one.server, port, before, server.ended)
  return () => finishRdmacm(one, server, startLine(scope, options.clientDaemon ?? daemon, one.client, optionsWithPort))
}

/** Asserts that both sides succeeded; of an endless server, which was stopped, only the client. */
export const assertGoodRdmacm = (
  { isServerEndless, status }: Pick<RdmacmCase, 'isServerEndless' | 'status'>,
  { server, client }: RdmacmResult,
): void => {
  const output = `client:\n${client.stdout}${client.stderr}\nserver:\n${server.stdout}${server.stderr}`
  const check = (side: string, { status: found, signal }: Finished) =>
    assert.ok(found === 0 || found === status, `${side}: status ${found}, signal ${signal}\n${output}`)
  check('client', client)
  if (!isServerEndless) check('server', server)
}
