/*
 * Rows "rpc": calls of 64 bytes with answers of 64 bytes, both ends in one process, compared with an echo over node:net
 * and over WebSockets. One call of each client is in flight.
 */
import { once } from 'node:events'
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net'
import { WebSocket, WebSocketServer } from 'ws'
import { connect, createNetwork, listen, open } from '../src/library/index.ts'
import type { Bench, Row } from './harness/harness.ts'

const BYTES = 64
const CLIENTS = 8
/** Calls per measurement. */
const COUNT = 40_000

/** A client's call; resolves with the answer. */
type Call = () => Promise<unknown>

interface Side {
  readonly calls: readonly Call[]
  readonly stop: () => void | Promise<void>
}

/** Calls per second of all clients together. */
const rate = async ({ calls }: Side): Promise<number> => {
  let remaining = COUNT
  const start = performance.now()
  const lane = async (call: Call): Promise<void> => {
    while (remaining-- > 0) await call()
  }
  await Promise.all(calls.map(lane))
  return (COUNT * 1000) / (performance.now() - start)
}

const request = new Uint8Array(BYTES)

const byMessages = async (): Promise<Side> => {
  const network = createNetwork()
  const [serverDevice, clientDevice] = [await open({ network }), await open({ network })]
  const server = await listen('rdma://0.0.0.0:0', { device: serverDevice })
  const serve = async (): Promise<void> => {
    for await (const incoming of server)
      void incoming.accept().then(async connection => {
        const messages = await connection.messages()
        for await (const message of messages) await messages.send(message)
        await messages.close()
      })
  }
  const serving = serve()
  const address = { host: serverDevice.address, port: server.port }
  const clients = await Promise.all(
    Array.from({ length: CLIENTS }, async () => (await connect(address, { device: clientDevice })).messages()),
  )
  return {
    calls: clients.map(messages => async () => {
      await messages.send(request)
      await messages.receive()
    }),
    stop: async () => {
      for (const messages of clients) await messages.close()
      await server.close()
      await serving
      await serverDevice.close()
      await clientDevice.close()
    },
  }
}

/** A call of a connection on which an answer calls `answered`. `send` sends the request. */
const callOf = (send: () => void) => {
  let resolve = (): void => {}
  const call: Call = () => {
    const answer = new Promise<void>(resolveAnswer => {
      resolve = resolveAnswer
    })
    send()
    return answer
  }
  return { call, answered: () => resolve() }
}

const byTcp = async (): Promise<Side> => {
  const server = createServer({ noDelay: true }, socket => socket.on('data', data => socket.write(data)))
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const sockets = await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      const socket = connectTcp({ port, host: '127.0.0.1', noDelay: true })
      await once(socket, 'connect')
      return socket
    }),
  )
  return {
    calls: sockets.map(socket => {
      const { call, answered } = callOf(() => socket.write(request))
      let received = 0
      socket.on('data', data => {
        received += data.length
        if (received % BYTES === 0) answered()
      })
      return call
    }),
    stop() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

const byWebSockets = async (): Promise<Side> => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false })
  server.on('connection', socket => socket.on('message', data => socket.send(data)))
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const sockets = await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      const socket = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: false })
      await once(socket, 'open')
      return socket
    }),
  )
  return {
    calls: sockets.map(socket => {
      const { call, answered } = callOf(() => socket.send(request))
      socket.on('message', answered)
      return call
    }),
    stop() {
      for (const socket of sockets) socket.terminate()
      server.close()
    },
  }
}

const against = async (prepareReference: () => Promise<Side>): Promise<Bench> => {
  const [ours, reference] = [await byMessages(), await prepareReference()]
  return {
    ours: () => rate(ours),
    reference: () => rate(reference),
    note: `${CLIENTS} clients, ${COUNT} calls a round`,
    async close() {
      await ours.stop()
      await reference.stop()
    },
  }
}

const row = (name: string, reference: string, floor: number, aim: number, prepare: () => Promise<Side>): Row => ({
  name,
  quantity: `calls of ${BYTES} bytes by messages, ${CLIENTS} clients, both ends in one process`,
  unit: 'calls/s',
  better: 'higher',
  cores: 1,
  reference,
  floor,
  aim,
  prepare: () => against(prepare),
})

export const rpcRows: readonly Row[] = [
  row('rpc net', 'echo over node:net', 1, 1.5, byTcp),
  row('rpc ws', 'echo over ws', 1, 1.5, byWebSockets),
]
