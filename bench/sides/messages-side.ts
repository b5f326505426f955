/*
 * A process with many idle connections, for the rows "messages …": connections of the library with `messages()` at both
 * ends, or of node:net.
 */
import { once } from 'node:events'
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect, createNetwork, listen, open } from '../../src/library/index.ts'
import { answerOnce } from '../harness/answer-once.ts'
import { memoryAfterCollection } from '../memory.ts'

export interface MessagesOrder {
  readonly kind: 'messages' | 'net'
  readonly count: number
}

/** The cost of one connection, both ends. */
export interface ConnectionCost {
  /** Bytes in heap and buffers while it is idle. */
  readonly bytes: number
  /** Milliseconds of processor time to open and to close it. */
  readonly open: number
  readonly close: number
}

/** Connections that are opened at the same time. */
const WINDOW = 32
/** Connections that are opened and closed before the measurement. */
const WARM_UP = 500
/** Milliseconds after which connections have left TIMEWAIT and the finalizers of collected objects have run. */
const SETTLE_MS = 2000

/** A function that closes one end. */
type Close = () => unknown

interface Ends {
  /** Both ends of the open connections. */
  readonly opened: Close[]
  openOne(): Promise<Close>
}

const byMessages = async (): Promise<Ends> => {
  const network = createNetwork()
  const [serverDevice, clientDevice] = [await open({ network }), await open({ network })]
  const server = await listen('rdma://0.0.0.0:0', { device: serverDevice })
  const opened: Close[] = []
  void (async () => {
    for await (const request of server)
      void request.accept().then(async connection => {
        const messages = await connection.messages()
        opened.push(() => messages.close())
      })
  })()
  const address = { host: serverDevice.address, port: server.port }
  return {
    opened,
    async openOne() {
      const messages = await (await connect(address, { device: clientDevice })).messages()
      return () => messages.close()
    },
  }
}

const byTcp = async (): Promise<Ends> => {
  const opened: Close[] = []
  const server = createServer(socket => opened.push(() => socket.destroy())).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    opened,
    async openOne() {
      const socket = connectTcp(port, '127.0.0.1')
      await once(socket, 'connect')
      return () => socket.destroy()
    },
  }
}

/** Calls `body` `count` times, WINDOW at a time. */
const repeat = async (count: number, body: () => Promise<unknown>): Promise<void> => {
  let remaining = count
  const lane = async (): Promise<void> => {
    while (remaining-- > 0) await body()
  }
  await Promise.all(Array.from({ length: WINDOW }, lane))
}

const openMany = async ({ opened, openOne }: Ends, count: number): Promise<void> => {
  await repeat(count, async () => opened.push(await openOne()))
  while (opened.length < 2 * count) await new Promise(resolve => setImmediate(resolve))
}

const closeAll = async ({ opened }: Ends): Promise<void> => {
  const all = opened.splice(0)
  await repeat(all.length, async () => all.pop()?.())
}

/** Milliseconds of processor time per connection. */
const cpuOf = async (count: number, body: () => Promise<void>): Promise<number> => {
  const start = process.cpuUsage()
  await body()
  const { user, system } = process.cpuUsage(start)
  return (user + system) / 1000 / count
}

const costOf = async ({ kind, count }: MessagesOrder): Promise<ConnectionCost> => {
  const ends = kind === 'net' ? await byTcp() : await byMessages()
  await openMany(ends, WARM_UP)
  await closeAll(ends)
  await sleep(SETTLE_MS)
  const before = await memoryAfterCollection()
  const open = await cpuOf(count, () => openMany(ends, count))
  await sleep(SETTLE_MS)
  const bytes = ((await memoryAfterCollection()).used - before.used) / count
  const close = await cpuOf(count, () => closeAll(ends))
  return { bytes, open, close }
}

answerOnce(costOf)
