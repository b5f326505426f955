/*
 * Rows "connections": connect, one message answered, and disconnect, WINDOW at a time, by the library in one process and
 * by node:net; the same without the message, one after the other, by librdmacm in two processes and a daemon, and by C
 * programs over TCP; and the cost of unused connections.
 */
import { once } from 'node:events'
import { type AddressInfo, createServer, connect as dial } from 'node:net'
import { connect, createNetwork, listen, open } from '../src/verbs/index.ts'
import { startChild } from './children.ts'
import type { IdleCost, IdleOrder } from './connections-side.ts'
import type { Bench, Row } from './harness.ts'
import { benchProgram, runReference, startDaemon } from './processes.ts'

const WINDOW = 32
const COUNT = 1000

/** Connections per second; `one` opens one after the other in each of WINDOW lanes. */
const rate = async (one: () => Promise<void>): Promise<number> => {
  let left = COUNT
  const start = performance.now()
  const lane = async (): Promise<void> => {
    while (left-- > 0) await one()
  }
  await Promise.all(Array.from({ length: WINDOW }, lane))
  return (COUNT * 1000) / (performance.now() - start)
}

const byLibrary = async () => {
  const network = createNetwork()
  const [left, right] = [await open({ network }), await open({ network })]
  const server = await listen('rdma://0.0.0.0:7471', { device: left })
  const serving = (async () => {
    for await (const request of server) {
      const connection = await request.accept({ prepare: qp => void qp.receive().then(() => qp.send([])) })
      void connection.closed.then(() => connection.close())
    }
  })()
  const url = `rdma://${left.address}:${server.port}`
  const one = async (): Promise<void> => {
    const { qp, close } = await connect(url, { device: right })
    const answer = qp.receive()
    await qp.send([])
    await answer
    await close()
  }
  const end = async (): Promise<void> => {
    await server.close()
    await serving
    await left.close()
    await right.close()
  }
  return { one, end }
}

const byTcp = async () => {
  const server = createServer(socket => socket.on('data', data => socket.end(data))).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const one = async (): Promise<void> => {
    const socket = dial(port, '127.0.0.1')
    socket.on('connect', () => socket.write('x'))
    socket.on('data', () => socket.end())
    await once(socket, 'close')
  }
  return { one, end: () => server.close() }
}

const prepare = async (): Promise<Bench> => {
  const [ours, tcp] = [await byLibrary(), await byTcp()]
  return {
    ours: () => rate(ours.one),
    reference: () => rate(tcp.one),
    note: `${COUNT} connections a round, ${WINDOW} at a time`,
    async close() {
      await ours.end()
      tcp.end()
    },
  }
}

/** By librdmacm. */
const PORT = 7471
const ONE_BY_ONE = 500

const prepareRdmacm = async (): Promise<Bench> => {
  const program = benchProgram('rdmacm_connects')
  const daemon = await startDaemon()
  try {
    const server = await daemon.runReady(program, 'server', '127.0.0.1', PORT)
    return {
      ours: async () =>
        Number.parseFloat(await daemon.run(program, 'client', '127.0.0.1', PORT, ONE_BY_ONE).finished()),
      reference: () => runReference('tcp_connects', ONE_BY_ONE * 10),
      note: `${ONE_BY_ONE} connections a round, one after the other`,
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

const MANY = 10_000
const IDLE_SECONDS = 10

const idleCost = async (seconds: number): Promise<IdleCost> => {
  const child = startChild<IdleOrder>('connections-side.js')
  try {
    return await child.ask<IdleCost>({ count: MANY, seconds })
  } finally {
    await child.stop()
  }
}

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
    reference: 'connections of TCP in C',
    byValue: true,
    floor: 300,
    aim: 1500,
    prepare: prepareRdmacm,
  },
  {
    name: 'connections memory',
    quantity: `bytes of an idle connection, both ends, of ${MANY}`,
    unit: 'B',
    better: 'lower',
    cores: 0,
    reference: 'its limit',
    floor: 30_000,
    aim: 20_000,
    rounds: 1,
    prepare: () => ({ ours: async () => (await idleCost(0)).bytes }),
  },
  {
    name: 'connections idle',
    quantity: `CPU of a process with a listener and ${MANY} idle connections`,
    unit: '%',
    better: 'lower',
    cores: 0,
    reference: 'its limit',
    floor: 0.1,
    aim: 0.05,
    rounds: 1,
    prepare: () => ({ ours: async () => (await idleCost(IDLE_SECONDS)).cpuPercent, note: `${IDLE_SECONDS} s` }),
  },
]
