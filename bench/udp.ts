/*
 * Rows "udp …": two processes with soft devices on UDP ports, compared with C, iperf3 and node:dgram; and many queue
 * pairs, compared with one (docs/reference/performance.md).
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { freePort } from '../src/cli/listening.ts'
import { type Child, startAfter, startChild } from './harness/children.ts'
import type { Bench, Measure, Row } from './harness/harness.ts'
import { Unavailable } from './harness/harness.ts'
import { needProgram, runReference, runReferenceIn } from './harness/processes.ts'
import type { DgramOrder } from './sides/dgram-side.ts'
import type { Operation, Order, SideFacts, SideOptions } from './sides/udp-side.ts'

/** Bytes of a MIDDLE packet without payload: BTH and ICRC. */
const OVERHEAD = 16
/** Bytes of the packets of a WRITE of 64 bytes (BTH, RETH, payload, ICRC), and of a SEND of 64 bytes (no RETH). */
const SMALL_WRITE_PACKET = 96
const SMALL_SEND_PACKET = 80

interface Pair {
  /** Seconds of a measurement. */
  stream(messages: number): Promise<number>
  /** Microseconds per round trip. */
  pingpong(rounds: number, spin: boolean): Promise<number>
  /** Total CPU seconds and resends of both ends. */
  usage(): Promise<{ cpu: number; resent: number }>
  close(): Promise<void>
}

type PairOptions = Omit<SideOptions, 'address'>

/** The addresses of the two ends, and the commands that start a process at each end. */
interface TestNetwork {
  readonly addresses: readonly [string, string]
  readonly prefixes: readonly (readonly string[])[]
  /** Files of the network namespaces; empty for this process's namespace. */
  readonly files: readonly string[]
  close(): void
}

const loopback: TestNetwork = { addresses: ['127.0.41.1', '127.0.41.2'], prefixes: [[], []], files: [], close() {} }

/** Two network namespaces, connected by a veth pair. Throws Unavailable without permission. */
const vethNetwork = (): TestNetwork => {
  needProgram('ip', 'iproute2')
  const names = ['a', 'b'].map(end => `udbench${process.pid}${end}`)
  const ip = (...args: string[]): void => {
    execFileSync('ip', args, { stdio: 'pipe' })
  }
  const close = (): void => {
    for (const name of names)
      try {
        ip('netns', 'delete', name)
      } catch {
        // The namespace was not created.
      }
  }
  try {
    for (const name of names) ip('netns', 'add', name)
    ip('link', 'add', 'ud0', 'mtu', '9000', 'netns', names[0], 'type', 'veth', 'peer', 'name', 'ud0', 'netns', names[1])
    names.forEach((name, i) => {
      ip('-n', name, 'address', 'add', `10.41.0.${i + 1}/24`, 'dev', 'ud0')
      ip('-n', name, 'link', 'set', 'ud0', 'mtu', '9000', 'up')
    })
  } catch (error) {
    close()
    throw new Unavailable(`no network namespaces here: ${String(error).split('\n')[0]}`)
  }
  return {
    addresses: ['10.41.0.1', '10.41.0.2'],
    prefixes: names.map(name => ['ip', 'netns', 'exec', name]),
    files: names.map(name => `/run/netns/${name}`),
    close,
  }
}

const startPair = async (options: PairOptions, network: TestNetwork = loopback): Promise<Pair> => {
  const sides = network.prefixes.map(prefix => startChild<Order>('udp-side.js', prefix))
  const close = async (): Promise<void> => {
    await Promise.all(sides.map(side => side.stop()))
    network.close()
  }
  const [near, far] = sides
  try {
    const facts: SideFacts[] = []
    for (const [i, side] of sides.entries()) {
      const sideOptions = { ...options, address: network.addresses[i] }
      facts.push((await side.ask<{ facts: SideFacts }>({ kind: 'make', options: sideOptions })).facts)
    }
    for (const [i, side] of sides.entries()) await side.ask({ kind: 'connect', peer: facts[1 - i] })
  } catch (error) {
    await close()
    throw error
  }
  return {
    async stream(messages) {
      await far.ask({ kind: 'serve', receives: options.operation === 'send' ? messages : 0 })
      return (await near.ask<{ value: number }>({ kind: 'stream', messages })).value
    },
    async pingpong(rounds, spin) {
      const pong = far.ask({ kind: 'pong', rounds, spin })
      const { value } = await near.ask<{ value: number }>({ kind: 'ping', rounds, spin })
      await pong
      return value
    },
    async usage() {
      const [a, b] = await Promise.all(sides.map(side => side.ask<{ cpu: number; resent: number }>({ kind: 'usage' })))
      return { cpu: a.cpu + b.cpu, resent: a.resent + b.resent }
    },
    close,
  }
}

// ---- references ----

const gsoReference = (mtu: number, bytes: number) => () => runReference('udp_stream', 'gso', mtu + OVERHEAD, mtu, bytes)
const spinReference = (mtu: number, bytes: number) => () =>
  runReference('udp_stream', 'gso-spin', mtu + OVERHEAD, mtu, bytes)
const plainReference = (mtu: number, bytes: number) => () =>
  runReference('udp_stream', 'plain', mtu + OVERHEAD, mtu, bytes)

const IPERF_SECONDS = 1

/** GB/s that iperf3 receives over TCP, with writes of `size` bytes. */
const iperf = async (size: number): Promise<number> => {
  const port = await freePort()
  // The first output shows that iperf3 listens. --forceflush writes it to the pipe immediately.
  const server = spawn('iperf3', ['-s', '-1', '-p', String(port), '--forceflush'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  try {
    await Promise.race([once(server.stdout, 'data'), once(server, 'close')])
    const args = ['-c', '127.0.0.1', '-p', String(port), '-l', String(size), '-t', String(IPERF_SECONDS), '-J']
    const client = spawn('iperf3', args, { stdio: ['ignore', 'pipe', 'ignore'] })
    let output = ''
    client.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
    await once(client, 'close')
    const found = JSON.parse(output) as { end?: { sum_received?: { bits_per_second: number } } }
    const bits = found.end?.sum_received?.bits_per_second
    if (bits === undefined) throw new Unavailable(`iperf3 failed: ${output.slice(0, 200)}`)
    return bits / 8e9
  } finally {
    server.kill()
  }
}

interface Dgram {
  readonly near: Child<DgramOrder>
  readonly far: Child<DgramOrder>
  readonly port: number
  close(): Promise<void>
}
const startDgram = async (): Promise<Dgram> => {
  const [near, far] = [startChild<DgramOrder>('dgram-side.js'), startChild<DgramOrder>('dgram-side.js')]
  const close = async () => void (await Promise.all([near.stop(), far.stop()]))
  const [, { port }] = await startAfter({ close }, () => Promise.all([near.hear(), far.hear<{ port: number }>()]))
  return { near, far, port, close }
}

// ---- bandwidth ----

const MEBI = 2 ** 20

interface Bandwidth {
  readonly operation: Operation
  readonly size: number
  readonly mtu: number
  readonly segmentation?: 'auto' | 'never'
  readonly qps?: number
  /** Default `spin`. */
  readonly drive?: SideOptions['drive']
}

const sizeText = (bytes: number): string => {
  if (bytes < 1024) return `${bytes} B`
  return bytes < MEBI ? `${bytes / 1024} KiB` : `${bytes / MEBI} MiB`
}

/** Bytes per round, by `segmentation`: single packets are slower. */
const ROUND_BYTES = { auto: 1e9, never: 1e8 }

/** Returns the measurement of the reference; `bytes` is the payload. */
type ReferenceOf = (bytes: number) => Measure

const bandwidth = async (
  { operation, size, mtu, segmentation = 'auto', qps = 1, drive = 'spin' }: Bandwidth,
  referenceOf: ReferenceOf,
): Promise<Bench> => {
  const bytes = ROUND_BYTES[segmentation]
  const messages = Math.ceil(bytes / size)
  const reference = referenceOf(bytes)
  const pair = await startPair({ operation, size, mtu, segmentation, qps, depth: 64, drive })
  return {
    ours: async () => (messages * size) / (await pair.stream(messages)) / 1e9,
    reference,
    note: `${messages} messages a round`,
    close: () => pair.close(),
  }
}

const bandwidthRow = (
  options: Bandwidth,
  reference: string,
  limits: { floor: number; aim: number },
  referenceOf: ReferenceOf,
  label?: string,
): Row => {
  const { operation, size, mtu, segmentation, drive } = options
  const isPlain = segmentation === 'never'
  const method = `${isPlain ? ', packet by packet' : ''}${drive === 'loop' ? ', event driven' : ''}`
  return {
    name: `udp ${label ?? `${operation} ${size} mtu ${mtu}${isPlain ? ' plain' : ''}`}`,
    quantity: `UDP ${operation.toUpperCase()} ${sizeText(size)}, MTU ${mtu}${method}`,
    unit: 'GB/s',
    better: 'higher',
    reference,
    ...limits,
    cores: 2,
    prepare: () => bandwidth(options, referenceOf),
  }
}

const C_GSO = 'C with GSO and GRO'
const C_PLAIN = 'C with sendmmsg'

const gsoRows = (['write', 'read', 'send'] as const).flatMap(operation =>
  [
    { size: 4096, mtu: 4096, floor: 0.2, aim: 0.4 },
    { size: 65536, mtu: 4096, floor: 0.4, aim: 0.65 },
    { size: MEBI, mtu: 4096, floor: 0.5, aim: 0.75 },
    { size: 65536, mtu: 1024, floor: 0.28, aim: 0.5 },
    { size: MEBI, mtu: 1024, floor: 0.28, aim: 0.5 },
  ].map(({ size, mtu, floor, aim }) =>
    bandwidthRow({ operation, size, mtu }, C_GSO, { floor, aim }, bytes => gsoReference(mtu, bytes)),
  ),
)
/**
 * All ends poll, and thus run on two cores. Processes that wait for packets may share one core, where data does not
 * cross caches.
 */
const spinRows = (['write', 'read'] as const).map(operation => {
  const limits = { floor: 0.4, aim: 0.65 }
  const reference = (bytes: number) => spinReference(4096, bytes)
  const options = { operation, size: 65536, mtu: 4096 }
  const row = bandwidthRow(options, 'C with GSO and GRO, polling', limits, reference, `two cores ${operation}`)
  return { ...row, quantity: `${row.quantity}, both polling` }
})
const loopRows = [65536, MEBI].map(size =>
  bandwidthRow(
    { operation: 'write', size, mtu: 4096, drive: 'loop' },
    C_GSO,
    size === MEBI ? { floor: 0.5, aim: 0.75 } : { floor: 0.4, aim: 0.65 },
    bytes => gsoReference(4096, bytes),
    `loop ${size}`,
  ),
)
const plainRows = (['write', 'read', 'send'] as const).map(operation =>
  bandwidthRow(
    { operation, size: 65536, mtu: 4096, segmentation: 'never' },
    C_PLAIN,
    { floor: 0.55, aim: 0.8 },
    bytes => plainReference(4096, bytes),
  ),
)
const iperfRows = [65536, MEBI].map(size =>
  bandwidthRow(
    { operation: 'write', size, mtu: 4096 },
    `iperf3 TCP -l ${sizeText(size)}`,
    { floor: 1.2, aim: 2 },
    () => {
      needProgram('iperf3', 'iperf3')
      return () => iperf(size)
    },
    `iperf3 ${size}`,
  ),
)

const dgramRow: Row = {
  name: 'udp dgram 65536',
  quantity: 'UDP WRITE 64 KiB, MTU 4096',
  unit: 'GB/s',
  better: 'higher',
  reference: 'the same with node:dgram',
  floor: 5,
  aim: 10,
  cores: 2,
  async prepare() {
    const size = 65536
    const nodeDgram = await startDgram()
    const options = {
      operation: 'write',
      size,
      mtu: 4096,
      segmentation: 'auto',
      qps: 1,
      depth: 64,
      drive: 'spin',
    } as const
    const pair = await startAfter(nodeDgram, () => startPair(options))
    const messages = Math.ceil(1e9 / size)
    // node:dgram is slower.
    const referenceMessages = Math.ceil(1e8 / size)
    return {
      ours: async () => (messages * size) / (await pair.stream(messages)) / 1e9,
      reference: async () => {
        const { near, far, port } = nodeDgram
        const order = { kind: 'stream', port, messages: referenceMessages, size, mtu: 4096, window: 131072 } as const
        // A new sink, which expects PSN 0.
        await far.ask({ kind: 'sink' })
        return (referenceMessages * size) / (await near.ask<{ value: number }>(order)).value / 1e9
      },
      close: async () => void (await Promise.all([pair.close(), nodeDgram.close()])),
    }
  },
}

/** Bytes of a round. */
const VETH_BYTES = 5e8

const vethRow: Row = {
  name: 'udp veth 65536',
  quantity: 'UDP WRITE 64 KiB between namespaces over veth, MTU 4096',
  unit: 'GB/s',
  better: 'higher',
  reference: 'C with GSO and GRO there',
  floor: 0.5,
  aim: 0.7,
  cores: 2,
  async prepare() {
    const size = 65536
    const mtu = 4096
    const messages = Math.ceil(VETH_BYTES / size)
    const network = vethNetwork()
    const [sender, receiver] = network.addresses
    const options = { operation: 'write', size, mtu, segmentation: 'auto', qps: 1, depth: 64, drive: 'spin' } as const
    const pair = await startPair(options, network)
    return {
      ours: async () => (messages * size) / (await pair.stream(messages)) / 1e9,
      reference: () => {
        const args = ['gso', mtu + OVERHEAD, mtu, VETH_BYTES, sender, receiver, network.files[1]]
        return runReferenceIn(network.prefixes[0], 'udp_stream', ...args)
      },
      close: () => pair.close(),
    }
  },
}

// ---- latency ----

const ROUNDS = 20_000

/** A pair after a warm-up with SENDs of 64 bytes. */
const latencyPair = async (spin: boolean): Promise<Pair> => {
  const pair = await startPair({
    operation: 'send',
    size: 64,
    mtu: 1024,
    segmentation: 'auto',
    qps: 1,
    depth: 16,
    drive: spin ? 'spin' : 'loop',
  })
  await startAfter(pair, () => pair.pingpong(ROUNDS, spin))
  return pair
}

const spinLatencyRow: Row = {
  name: 'udp latency spin',
  quantity: 'UDP 64 B SEND, busy poll, round trip / 2',
  unit: 'µs',
  better: 'lower',
  reference: 'C, UDP spin',
  floor: 1.8,
  aim: 1.35,
  cores: 2,
  async prepare() {
    const pair = await latencyPair(true)
    return {
      ours: async () => (await pair.pingpong(ROUNDS, true)) / 2,
      reference: async () => (await runReference('udp_pingpong', 'spin', SMALL_SEND_PACKET, ROUNDS)) / 2,
      close: () => pair.close(),
    }
  },
}

const eventLatencyRow: Row = {
  name: 'udp latency events',
  quantity: 'UDP 64 B SEND, event driven, round trip / 2',
  unit: 'µs',
  better: 'lower',
  reference: 'node:dgram ping-pong',
  floor: 0.75,
  aim: 0.4,
  cores: 2,
  async prepare() {
    const nodeDgram = await startDgram()
    const pair = await startAfter(nodeDgram, async () => {
      await nodeDgram.far.ask({ kind: 'echo' })
      return latencyPair(false)
    })
    return {
      ours: async () => (await pair.pingpong(ROUNDS, false)) / 2,
      reference: async () =>
        (await nodeDgram.near.ask<{ value: number }>({ kind: 'ping', port: nodeDgram.port, rounds: ROUNDS, size: 64 }))
          .value / 2,
      close: async () => void (await Promise.all([pair.close(), nodeDgram.close()])),
    }
  },
}

// ---- message rate, many queue pairs, cost ----

const RATE_MESSAGES = 400_000

/** The ratio, and the rate alone. */
const rateRows: readonly Row[] = [
  { name: 'udp rate', reference: 'C with GSO, 96 B', floor: 0.08, aim: 0.35 },
  { name: 'udp rate alone', reference: 'none', floor: 1.5, aim: 5 },
].map(row => ({
  ...row,
  quantity: 'UDP 64 B WRITE rate, up to 512 posted',
  unit: 'M/s',
  better: 'higher',
  cores: 2,
  async prepare() {
    const pair = await startPair({
      operation: 'write',
      size: 64,
      mtu: 1024,
      segmentation: 'auto',
      qps: 1,
      depth: 512,
      drive: 'spin',
    })
    return {
      ours: async () => RATE_MESSAGES / (await pair.stream(RATE_MESSAGES)) / 1e6,
      ...(row.reference !== 'none' && {
        // With a counted payload of 1000 bytes per datagram, GB/s are million datagrams per second.
        reference: () => runReference('udp_stream', 'gso', SMALL_WRITE_PACKET, 1000, 2e9),
      }),
      close: () => pair.close(),
    }
  },
}))

const manyRow = (qps: number): Row => ({
  name: `udp qps ${qps}`,
  quantity: `UDP 64 B WRITE rate with ${qps} busy QPs`,
  unit: 'M/s',
  better: 'higher',
  reference: 'the same with 1 QP',
  floor: 0.4,
  aim: 0.7,
  cores: 2,
  async prepare() {
    const options = { operation: 'write', size: 64, mtu: 1024, segmentation: 'auto', drive: 'spin', depth: 64 } as const
    const singlePair = await startPair({ ...options, qps: 1 })
    const network = { ...loopback, addresses: ['127.0.42.1', '127.0.42.2'] as const }
    // `stream` fills one queue after another. With this depth, every queue pair has requests.
    const depth = Math.min(options.depth, RATE_MESSAGES / qps)
    const manyPairs = await startAfter(singlePair, () => startPair({ ...options, qps, depth }, network))
    return {
      ours: async () => RATE_MESSAGES / (await manyPairs.stream(RATE_MESSAGES)) / 1e6,
      reference: async () => RATE_MESSAGES / (await singlePair.stream(RATE_MESSAGES)) / 1e6,
      close: async () => void (await Promise.all([singlePair.close(), manyPairs.close()])),
    }
  },
})

const costRow: Row = {
  name: 'udp cost',
  quantity: 'CPU seconds per GB, both ends, WRITE 64 KiB, MTU 4096, event driven',
  unit: 's/GB',
  better: 'lower',
  reference: C_GSO,
  floor: 3,
  aim: 1.8,
  cores: 2,
  async prepare() {
    const size = 65536
    const messages = Math.ceil(1e9 / size)
    const pair = await startPair({
      operation: 'write',
      size,
      mtu: 4096,
      segmentation: 'auto',
      qps: 1,
      depth: 64,
      drive: 'loop',
    })
    return {
      async ours() {
        const before = (await pair.usage()).cpu
        await pair.stream(messages)
        return ((await pair.usage()).cpu - before) / ((messages * size) / 1e9)
      },
      reference: () => runReference('udp_stream', 'gso-cost', 4096 + OVERHEAD, 4096, 1e9),
      close: () => pair.close(),
    }
  },
}

export const udpRows: readonly Row[] = [
  ...gsoRows,
  ...spinRows,
  ...loopRows,
  ...plainRows,
  ...iperfRows,
  dgramRow,
  vethRow,
  spinLatencyRow,
  eventLatencyRow,
  ...rateRows,
  manyRow(100),
  manyRow(10_000),
  costRow,
]
