/*
 * A process that opens very many connections by the library, with both ends in the process, and measures their cost
 * while they are unused: for the rows "connections memory" and "connections idle".
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Connection, connect, createNetwork, listen, open } from '../src/verbs/index.ts'
import { settled } from './memory.ts'

export interface IdleOrder {
  readonly count: number
  /** Seconds for which the processor time is measured; 0: not at all. */
  readonly seconds: number
}

export interface IdleCost {
  /** Bytes of both ends of a connection, in heap and buffers. */
  readonly bytes: number
  /** Percent of one processor, for all connections together. */
  readonly cpuPercent: number
}

const WINDOW = 32
/** Connections opened and closed before the measurement, so that code is compiled and one-time allocations are done. */
const WARM_UP = 500
/** Maximum time for which queue pairs of closed connections stay in TIMEWAIT. */
const REST_MS = 2000

const connections = async () => {
  const network = createNetwork()
  const [left, right] = [await open({ network }), await open({ network })]
  const server = await listen('rdma://0.0.0.0:0', { device: left })
  const made: Connection[] = []
  void (async () => {
    for await (const request of server) made.push(await request.accept())
  })()
  const url = `rdma://${left.address}:${server.port}`
  return {
    made,
    async make(count: number): Promise<void> {
      const wanted = made.length + 2 * count
      let left = count
      const lane = async (): Promise<void> => {
        while (left-- > 0) made.push(await connect(url, { device: right }))
      }
      await Promise.all(Array.from({ length: WINDOW }, lane))
      while (made.length < wanted) await new Promise(resolve => setImmediate(resolve))
    },
  }
}

const costOf = async ({ count, seconds }: IdleOrder): Promise<IdleCost> => {
  const { made, make } = await connections()
  await make(WARM_UP)
  for (const connection of made.splice(0)) await connection.close()
  await sleep(REST_MS)
  const before = await settled()
  await make(count)
  await sleep(REST_MS)
  const bytes = ((await settled()).used - before.used) / count
  // The garbage collection has continued in other threads.
  await sleep(REST_MS)
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
