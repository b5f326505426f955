/*
 * A process with very many idle connections of the library, for the rows "connections memory" and "connections idle".
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Connection, connect, createNetwork, listen, open } from '../../src/library/index.ts'
import { answerOnce } from '../harness/answer-once.ts'
import { median } from '../harness/harness.ts'
import { memoryAfterCollection } from '../memory.ts'

export interface IdleOrder {
  readonly count: number
  /** Intervals of INTERVAL_MS in which processor time is measured; 0: no measurement. */
  readonly intervals: number
}

export interface IdleCost {
  /** Bytes of one connection, both ends, in heap and buffers. */
  readonly bytes: number
  /** Percent of one processor, for all connections together: the median of the intervals, 0 if there are none. */
  readonly cpuPercent: number
}

/** Connections that are opened at the same time. */
const WINDOW = 32
/** Connections that are opened and closed before the measurement. */
const WARM_UP = 500
/** Milliseconds after which connections have left TIMEWAIT and the finalizers of collected objects have run. */
const SETTLE_MS = 2000
/**
 * Milliseconds of an interval. Some ten seconds after the last allocation V8 collects garbage once more, which takes
 * up to a second of processor time in one or two intervals, so the median of several intervals is reported.
 */
const INTERVAL_MS = 2000

/** Two devices in this process. `opened` has both ends of the connections; `openMore` opens more. */
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

/** Percent of one processor that this process uses during an interval. */
const intervalCpuPercent = async (): Promise<number> => {
  const start = performance.now()
  const cpu = process.cpuUsage()
  await sleep(INTERVAL_MS)
  const { user, system } = process.cpuUsage(cpu)
  return ((user + system) / 1000 / (performance.now() - start)) * 100
}

const costOf = async ({ count, intervals }: IdleOrder): Promise<IdleCost> => {
  const { opened, openMore } = await connectionSource()
  await openMore(WARM_UP)
  for (const connection of opened.splice(0)) await connection.close()
  await sleep(SETTLE_MS)
  const before = await memoryAfterCollection()
  await openMore(count)
  await sleep(SETTLE_MS)
  const bytes = ((await memoryAfterCollection()).used - before.used) / count
  const percents: number[] = []
  for (let i = 0; i < intervals; i++) percents.push(await intervalCpuPercent())
  return { bytes, cpuPercent: intervals ? median(percents) : 0 }
}

answerOnce(costOf)
