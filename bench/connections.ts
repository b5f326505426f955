/*
 * Rows "connections": simultaneous connections of the library with one message and answer, compared with node:net;
 * successive connections of librdmacm, compared with a C program over TCP; and the cost of idle connections, without
 * and with messages.
 */
import { once } from 'node:events'
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net'
import { connect, createNetwork, listen, open } from '../src/library/index.ts'
import { startChild } from './harness/children.ts'
import type { Bench, Row } from './harness/harness.ts'
import { benchProgram, runReference, startDaemon } from './harness/processes.ts'
import type { IdleCost, IdleOrder } from './sides/connections-side.ts'
import type { ConnectionCost, MessagesOrder } from './sides/messages-side.ts'

/** Port of the RDMA servers. */
const PORT = 7471
/** Simultaneous connections, and connections per measurement. */
const WINDOW = 32
const COUNT = 1000

/** Connections per second: WINDOW lanes call `connectOnce`, COUNT times in total. */
const rate = async (connectOnce: () => Promise<void>): Promise<number> => {
  let remaining = COUNT
  const start = performance.now()
  const lane = async (): Promise<void> => {
    while (remaining-- > 0) await connectOnce()
  }
  await Promise.all(Array.from({ length: WINDOW }, lane))
  return (COUNT * 1000) / (performance.now() - start)
}

const byLibrary = async () => {
  const network = createNetwork()
  const [serverDevice, clientDevice] = [await open({ network }), await open({ network })]
  const server = await listen(`rdma://0.0.0.0:${PORT}`, { device: serverDevice })
  const serving = (async () => {
    for await (const request of server) {
      const connection = await request.accept({ prepare: qp => void qp.receive().then(() => qp.send([])) })
      void connection.closed.then(() => connection.close())
    }
  })()
  const url = `rdma://${serverDevice.address}:${server.port}`
  const connectOnce = async (): Promise<void> => {
    const { qp, close } = await connect(url, { device: clientDevice })
    const answer = qp.receive()
    await qp.send([])
    await answer
    await close()
  }
  const stop = async (): Promise<void> => {
    await server.close()
    await serving
    await serverDevice.close()
    await clientDevice.close()
  }
  return { connectOnce, stop }
}

const byTcp = async () => {
  const server = createServer(socket => socket.on('data', data => socket.end(data))).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const connectOnce = async (): Promise<void> => {
    const socket = connectTcp(port, '127.0.0.1')
    socket.on('connect', () => socket.write('x'))
    socket.on('data', () => socket.end())
    await once(socket, 'close')
  }
  return { connectOnce, stop: () => server.close() }
}

const prepare = async (): Promise<Bench> => {
  const [ours, tcp] = [await byLibrary(), await byTcp()]
  return {
    ours: () => rate(ours.connectOnce),
    reference: () => rate(tcp.connectOnce),
    note: `${COUNT} connections a round, ${WINDOW} at a time`,
    async close() {
      await ours.stop()
      tcp.stop()
    },
  }
}

/** Connections per round of librdmacm, and of the faster reference. */
const SEQUENTIAL = 500
const SEQUENTIAL_TCP = 5000

const prepareRdmacm = async (): Promise<Bench> => {
  const program = benchProgram('rdmacm_connects')
  const daemon = await startDaemon()
  try {
    const server = await daemon.runReady(program, 'server', '127.0.0.1', PORT)
    return {
      ours: async () =>
        Number.parseFloat(await daemon.run(program, 'client', '127.0.0.1', PORT, SEQUENTIAL).finished()),
      reference: () => runReference('tcp_connects', SEQUENTIAL_TCP),
      note: `${SEQUENTIAL} connections a round, one after the other`,
      async close() {
        await server.stop()
        await daemon.stop()
      },
    }
  } catch (error) {
    await daemon.stop()
    throw error
  }
}

/** Idle connections, and intervals in which their processor time is measured. */
const IDLE_CONNECTIONS = 10_000
const IDLE_INTERVALS = 9

const idleCost = async (intervals: number): Promise<IdleCost> => {
  const child = startChild<IdleOrder>('connections-side.js')
  try {
    return await child.ask<IdleCost>({ count: IDLE_CONNECTIONS, intervals })
  } finally {
    await child.stop()
  }
}

/** Idle connections with messages. */
const MESSAGES_CONNECTIONS = 1000

const messagesCost = async (kind: MessagesOrder['kind']): Promise<ConnectionCost> => {
  const child = startChild<MessagesOrder>('messages-side.js')
  try {
    return await child.ask<ConnectionCost>({ kind, count: MESSAGES_CONNECTIONS })
  } finally {
    await child.stop()
  }
}

const messagesRow = (cost: keyof ConnectionCost, quantity: string, unit: string, floor: number, aim: number): Row => ({
  name: `messages ${cost}`,
  quantity: `${quantity} of a connection with messages, both ends`,
  unit,
  better: 'lower',
  cores: cost === 'bytes' ? 0 : 1,
  reference: 'node:net',
  // Most memory of a socket is outside the heap of Node.
  ...(cost === 'bytes' && { isJudgedByValue: true }),
  floor,
  aim,
  rounds: 3,
  prepare: () => ({
    ours: async () => (await messagesCost('messages'))[cost],
    reference: async () => (await messagesCost('net'))[cost],
    note: `${MESSAGES_CONNECTIONS} connections a round`,
  }),
})

export const connectionRows: readonly Row[] = [
  {
    name: 'connections',
    quantity: 'connect, echo and disconnect, both ends in one process',
    unit: 'connections/s',
    better: 'higher',
    cores: 1,
    reference: 'node:net',
    floor: 0.5,
    aim: 1.5,
    prepare,
  },
  {
    name: 'connections rdmacm',
    quantity: 'connect and disconnect by librdmacm',
    unit: 'connections/s',
    better: 'higher',
    cores: 2,
    reference: 'TCP connections in C',
    isJudgedByValue: true,
    floor: 300,
    aim: 1500,
    prepare: prepareRdmacm,
  },
  {
    name: 'connections memory',
    quantity: `bytes of an idle connection, both ends, of ${IDLE_CONNECTIONS}`,
    unit: 'B',
    better: 'lower',
    cores: 0,
    reference: 'none',
    floor: 30_000,
    aim: 20_000,
    rounds: 1,
    prepare: () => ({ ours: async () => (await idleCost(0)).bytes }),
  },
  {
    name: 'connections idle',
    quantity: `CPU of a process with a listener and ${IDLE_CONNECTIONS} idle connections`,
    unit: '%',
    better: 'lower',
    cores: 0,
    reference: 'none',
    floor: 0.1,
    aim: 0.05,
    rounds: 1,
    prepare: () => ({
      ours: async () => (await idleCost(IDLE_INTERVALS)).cpuPercent,
      note: `median of ${IDLE_INTERVALS} intervals`,
    }),
  },
  messagesRow('bytes', 'bytes', 'B', 90_000, 64_000),
  messagesRow('open', 'CPU of the opening', 'ms', 15, 6),
  messagesRow('close', 'CPU of the closing', 'ms', 15, 6),
]
