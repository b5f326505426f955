/*
 * Runs a server and a client as processes: ibv_rc_pingpong, or another program with the same options for device and
 * port.
 */
import assert from 'node:assert/strict'
import {
  assertGood,
  type Finished,
  freePort,
  type Running,
  type Scope,
  start,
  type TestDaemon,
  untilListening,
} from '../programs.ts'

export interface PingpongCase {
  readonly waitsForEvents: boolean
  readonly checksData: boolean
  /** Bytes. */
  readonly size: number
  /** Bytes. */
  readonly mtu: number
  /** rxe0 and rxe1; otherwise rxe0 at both ends. */
  readonly usesTwoDevices: boolean
}

/** The tried values of each member of a case. */
const factors = {
  waitsForEvents: [false, true],
  checksData: [false, true],
  size: [1, 4096, 65536, 1048576],
  mtu: [256, 512, 1024, 2048, 4096],
  usesTwoDevices: [false, true],
} as const

type Factor = keyof typeof factors
const names = Object.keys(factors) as Factor[]

export const allCases = (): PingpongCase[] =>
  names.reduce<Record<string, unknown>[]>(
    (cases, name) => cases.flatMap(one => factors[name].map(value => ({ ...one, [name]: value }))),
    [{}],
  ) as unknown as PingpongCase[]

const pairsOf = (one: PingpongCase): string[] =>
  names.flatMap((a, i) => names.slice(i + 1).map(b => `${a}=${one[a]} ${b}=${one[b]}`))

/** Greedily chosen cases: each pair of values of two factors occurs in at least one case. */
export const pairwise = (): PingpongCase[] => {
  const all = allCases()
  const uncovered = new Set(all.flatMap(pairsOf))
  const chosen: PingpongCase[] = []
  const gain = (one: PingpongCase): number => pairsOf(one).filter(pair => uncovered.has(pair)).length
  while (uncovered.size > 0) {
    const best = all.reduce((a, b) => (gain(b) > gain(a) ? b : a))
    chosen.push(best)
    for (const pair of pairsOf(best)) uncovered.delete(pair)
  }
  return chosen
}

/** Messages each way. */
const defaultMessages = ({ size }: PingpongCase): number => {
  if (size > 100_000) return 20
  return size > 10_000 ? 100 : 300
}

export const caseName = ({ waitsForEvents, checksData, size, mtu, usesTwoDevices }: PingpongCase): string =>
  `${size} bytes, MTU ${mtu}${waitsForEvents ? ', -e' : ''}${checksData ? ', -c' : ''}${usesTwoDevices ? ', two devices' : ''}`

const caseArguments = (one: PingpongCase, messages = defaultMessages(one)): string[] => [
  ...['-g', '1', '-s', String(one.size), '-m', String(one.mtu), '-n', String(messages)],
  ...(one.waitsForEvents ? ['-e'] : []),
  ...(one.checksData ? ['-c'] : []),
]

export interface Pair {
  readonly server: Finished
  readonly client: Finished
}

export interface PairOptions {
  readonly program?: string
  /** Of server and client; default: rxe0 for both. */
  readonly devices?: readonly [string, string]
  /** Default: the server's. */
  readonly clientDaemon?: TestDaemon
  /** Default: the server's. */
  readonly clientArgs?: readonly string[]
}

export interface StartedPair {
  readonly server: Running
  readonly client: Running
  /** Stops the server if the client failed: the server may wait forever. */
  ended(): Promise<Pair>
}

/** The client starts when the server listens. */
export const startPair = async (
  scope: Scope,
  daemon: TestDaemon,
  args: readonly string[],
  options: PairOptions = {},
): Promise<StartedPair> => {
  const { program = 'ibv_rc_pingpong', devices = ['rxe0', 'rxe0'] } = options
  const port = await freePort()
  const startProgram = (
    device: string,
    programArgs: readonly string[],
    peer: readonly string[],
    { env }: TestDaemon,
  ): Running => start(scope, program, ['-d', device, ...programArgs, '-p', String(port), ...peer], { env })
  const server = startProgram(devices[0], args, [], daemon)
  if (!(await untilListening(port, server.ended)))
    assert.fail(`${program} ended before it listened:\n${server.output()}`)
  const client = startProgram(devices[1], options.clientArgs ?? args, ['localhost'], options.clientDaemon ?? daemon)
  return {
    server,
    client,
    async ended() {
      const finished = await client.ended
      if (finished.status !== 0) server.child.kill('SIGTERM')
      return { server: await server.ended, client: finished }
    },
  }
}

export const runPair = async (
  scope: Scope,
  daemon: TestDaemon,
  args: readonly string[],
  options: PairOptions = {},
): Promise<Pair> => (await startPair(scope, daemon, args, options)).ended()

/** Asserts that both ends exited with status 0, without a message and without wrong data. */
export const assertGoodPair = ({ server, client }: Pair): void => {
  for (const [name, { status, signal, stdout, stderr }] of Object.entries({ client, server })) {
    assert.equal(status, 0, `${name}: status ${status}, signal ${signal}\n${stdout}${stderr}`)
    assert.doesNotMatch(stdout + stderr, /invalid data in page/, name)
    assert.equal(stderr, '', `${name} printed a message`)
  }
}

/** Runs a program of perftest, and asserts that both ends exited with status 0 and without a message. */
export const runPerftest = async (
  scope: Scope,
  daemon: TestDaemon,
  args: readonly string[],
  options: PairOptions,
): Promise<Pair> => {
  const pair = await runPair(scope, daemon, ['-x', '1', '-F', ...args], options)
  for (const finished of [pair.client, pair.server]) {
    assertGood(finished)
    assert.doesNotMatch(finished.stdout + finished.stderr, /error|fail/i)
  }
  return pair
}

/** Runs ibv_rc_pingpong with `messages` messages each way, and asserts that both ends sent and received all. */
export const runCase = async (
  scope: Scope,
  daemon: TestDaemon,
  one: PingpongCase,
  messages?: number,
  clientDaemon: TestDaemon = daemon,
): Promise<void> => {
  const pair = await runPair(scope, daemon, caseArguments(one, messages), {
    devices: ['rxe0', one.usesTwoDevices ? 'rxe1' : 'rxe0'],
    clientDaemon,
  })
  assertGoodPair(pair)
  const count = messages ?? defaultMessages(one)
  for (const { stdout } of [pair.server, pair.client]) {
    assert.match(stdout, new RegExp(`^${count} iters in `, 'm'))
    assert.match(stdout, new RegExp(`^${2 * one.size * count} bytes in `, 'm'))
  }
}
