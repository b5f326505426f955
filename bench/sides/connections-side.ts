/*
 * A process that opens very many connections by the library, with both ends in the process, and measures their cost
 * while they are unused: for the rows "connections memory" and "connections idle".
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Connection, connect, createNetwork, listen, open } from '../../src/verbs/index.ts'
import { memoryAfterCollection } from '../memory.ts'

export interface IdleOrder {
  readonly count: number
  /** Seconds for which the processor time is measured; 0: `cpuPercent` is meaningless. */
  readonly seconds: number
}

export interface IdleCost {
  /** Bytes of one connection, both ends, in heap and buffers. */
  readonly bytes: number
  /** Percent of one processor, for all connections together. */
  readonly cpuPercent: number
}

/** Connections that are opened at a time. */
const WINDOW = 32
/** Connections opened and closed before the measurement, so that code is compiled and one-time allocations are done. */
const WARM_UP = 500
/** Milliseconds, longer than queue pairs of closed connections stay in TIMEWAIT. */
const TIMEWAIT_MS = 2000

/** Two devices in this process. `opened` has both ends of each connection between them; `openMore` opens more. */
const connectionSource = async () => {
  const network = createNetwork()
  const [serverDevice, clientDevice] = [await open({ network }), await open({ network })]
  const server = await listen('rdma://0.0.0.0:0', { device: serverDevice })
  const opened: Connection[] = []
  void (async () => {
    for await (const request of server) opened.push(await request.accept())
  })()
  const url = `rdma://${serverDevice.address}:${server.port}`
  return {
    opened,
    async openMore(count: number): Promise<void> {
      const total = opened.length + 2 * count
      let remaining = count
      const lane = async (): Promise<void> => {
        while (remaining-- > 0) opened.push(await connect(url, { device: clientDevice }))
      }
      await Promise.all(Array.from({ length: WINDOW }, lane))
      while (opened.length < total) await new Promise(resolve => setImmediate(resolve))
    },
  }
}

const costOf = async ({ count, seconds }: IdleOrder): Promise<IdleCost> => {
  const { opened, openMore } = await connectionSource()
  await openMore(WARM_UP)
  for (const connection of opened.splice(0)) await connection.close()
  await sleep(TIMEWAIT_MS)
  const before = await memoryAfterCollection()
  await openMore(count)
  await sleep(TIMEWAIT_MS)
  const bytes = ((await memoryAfterCollection()).used - before.used) / count
  // V8 ends its garbage collection in other threads, whose processor time would be counted.
  await sleep(TIMEWAIT_MS)
  const start = performance.now()
  const cpu = process.cpuUsage()
  await sleep(seconds * 1000)
  const { user, system } = process.cpuUsage(cpu)
  return { bytes, cpuPercent: ((user + system) / 1000 / (performance.now() - start)) * 100 }
}

process.on('message', async (order: IdleOrder) => {
  try {
    process.send?.(await costOf(order))
  } catch (error) {
    process.send?.({ failed: (error as Error).message })
  }
  process.disconnect()
  process.exit()
})
