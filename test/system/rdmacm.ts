/*
 * Debian's programs of rdma_cm, a pair of processes at a time.
 */
import assert from 'node:assert/strict'
import { type Finished, type Scope, start, type TestDaemon } from './programs.ts'

/** What server and client are called with; SERVER and PORT stand for the server's address and a port. */
export interface RdmacmCase {
  readonly server: string
  readonly client: string
  /** The server goes on listening: it is ended when the client has. */
  readonly endless?: true
  /**
   * The server listens anew between two connections of one client (perftest), so that a fast client may find nobody:
   * then the case runs again.
   */
  readonly listensTwice?: true
  /** What clients that did well may end with, beside 0. */
  readonly status?: number
}

const POLLHUP = 16

/** `options` on both sides, the server bound to SERVER. */
export const both = (program: string, options: string): RdmacmCase => ({
  server: `${program} -b SERVER -p PORT ${options}`,
  client: `${program} -s SERVER -p PORT ${options}`,
})

/** Its -p is the port space. */
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
  { server: 'rping -s -P -p PORT', client: 'rping -c -a SERVER -p PORT -C 3 -V', endless: true },
]

/** udaddy's, which cannot be chosen. */
const UDADDY_PORT = 7174

/** Where the server of a case listens, if programs are given `port`. */
export const listeningPort = ({ server }: RdmacmCase, port: number): number =>
  server.startsWith('udaddy') ? UDADDY_PORT : port

/** A line of a case as program and arguments. */
export const wordsOf = (line: string, address: string, port: number): [program: string, ...args: string[]] => {
  const [program, ...args] = line.trim().split(/ +/)
  const put = (word: string): string => (word === 'SERVER' ? address : word === 'PORT' ? String(port) : word)
  return [program, ...args.map(put)]
}

export const rdmacmCases: readonly RdmacmCase[] = [
  ...rpingCases,
  both('ucmatose', ''),
  both('ucmatose', '-c 8 -C 5 -S 3000'),
  both('ucmatose', '-c 3 -t 8 -m'),
  udaddy(''),
  udaddy('-c 4 -C 8 -S 500'),
  { server: 'rdma_server -s SERVER -p PORT', client: 'rdma_client -s SERVER -p PORT' },
  { server: 'rdma_xserver -p PORT', client: 'rdma_xclient -s SERVER -p PORT' },
  { server: 'cmtime -b SERVER -p PORT -c 20', client: 'cmtime -s SERVER -p PORT -c 20', endless: true },
  both('rstream', '-S 65536 -C 20'),
  // Its poll ends with POLLHUP (16) when the server has left before the client looks at its last answer.
  { ...both('rstream', '-S 4096 -C 50 -T a'), status: POLLHUP },
  both('rstream', '-S 4096 -C 50 -T b'),
  both('rstream', '-S 4096 -C 50 -T n'),
  both('riostream', '-S 4096 -I 20 -C 5'),
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

/** Ports count per daemon, so any will do: each case has one of its own. */
let nextPort = 20_000

export interface RdmacmOptions {
  /** The daemon of the client, if it is another one. */
  readonly clientDaemon?: TestDaemon
  readonly address?: string
  /** Milliseconds that a program may take. */
  readonly limit?: number
}

export interface RdmacmResult {
  readonly server: Finished
  readonly client: Finished
}

/** The answers of a REJ and a SIDR_REP for a service nobody listens to, as perftest prints them. */
const NOBODY_LISTENS = /REJECTED; error: 8\b|UNREACHABLE; error: 1\b/
const MOST_TRIES = 5

/** Runs a case to its end on both sides. */
export const runRdmacm = async (
  scope: Scope,
  daemon: TestDaemon,
  one: RdmacmCase,
  options?: RdmacmOptions,
): Promise<RdmacmResult> => {
  for (let tries = 1; ; tries++) {
    const result = await runOnce(scope, daemon, one, options)
    if (!one.listensTwice || tries === MOST_TRIES || !NOBODY_LISTENS.test(result.client.stderr)) return result
  }
}

const runOnce = async (
  scope: Scope,
  daemon: TestDaemon,
  { server: serverLine, client: clientLine, endless, status }: RdmacmCase,
  { clientDaemon = daemon, address = '127.0.0.1', limit }: RdmacmOptions = {},
): Promise<RdmacmResult> => {
  const port = nextPort++
  const begin = (line: string, on: TestDaemon) => {
    const [program, ...args] = wordsOf(line, address, port)
    return start(scope, program, args, { env: on.env, ...(limit !== undefined && { limit }) })
  }
  const { listeners } = (await daemon.stat()).connections
  const server = begin(serverLine, daemon)
  await Promise.race([daemon.settled(({ connections }) => connections.listeners > listeners), server.ended])
  const client = await begin(clientLine, clientDaemon).ended
  if (endless || (client.status !== 0 && client.status !== status)) server.child.kill('SIGTERM')
  return { server: await server.ended, client }
}

/** Both sides are content. */
export const assertGoodRdmacm = ({ endless, status }: RdmacmCase, { server, client }: RdmacmResult): void => {
  const said = `client:\n${client.stdout}${client.stderr}\nserver:\n${server.stdout}${server.stderr}`
  const check = (side: string, { status: ended, signal }: Finished) =>
    assert.ok(ended === 0 || ended === status, `${side}: status ${ended}, signal ${signal}\n${said}`)
  check('client', client)
  if (!endless) check('server', server)
}
