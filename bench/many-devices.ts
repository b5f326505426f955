/*
 * Rows "many devices …": what a device of a network in virtual time costs among 1,024, beside one among 64 (of which a network had
 * at most so many).
 */
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { createNetwork, type Device, open } from '../src/library/index.ts'
import type { Row } from './harness/harness.ts'

/** Per device: processor time to open it and to exchange a message with its neighbour, ms, and resident memory, KiB. */
const costs = async (
  count: number,
  layer?: 'infiniband',
): Promise<{ readonly time: number; readonly memory: number }> => {
  const before = process.memoryUsage.rss()
  const start = process.cpuUsage()
  const network = createNetwork({ clock: 'virtual' })
  const devices: Device[] = []
  for (let i = 0; i < count; i++) devices.push(await open({ network, ...(layer && { layer }) }))
  const ends = devices.map(device => {
    const pd = device.pd()
    return { qp: pd.rcQp(), mr: pd.register(new Uint8Array(64)) }
  })
  for (let i = 0; i < count; i += 2) {
    const [a, b] = [ends[i]!, ends[i + 1]!]
    a.qp.connect(b.qp.endpoint)
    b.qp.connect(a.qp.endpoint)
    await Promise.all([b.qp.receive(b.mr.slice()), a.qp.send(a.mr.slice())])
  }
  const { user, system } = process.cpuUsage(start)
  const memory = process.memoryUsage.rss() - before
  for (const device of devices) await device.close()
  return { time: (user + system) / 1000 / count, memory: memory / 1024 / count }
}

const row = (layer: 'infiniband' | undefined, what: 'time' | 'memory', floor: number, aim: number): Row => ({
  name: `many devices ${layer ?? 'roce'} ${what}`,
  quantity: `${what === 'time' ? 'processor time' : 'memory'} per device that is opened and sends or receives a message, of 1,024`,
  unit: what === 'time' ? 'ms' : 'KiB',
  better: 'lower',
  reference: 'of 64',
  floor,
  aim,
  cores: 1,
  rounds: 1,
  prepare: () => ({
    ours: () => (what === 'time' ? timeOf(1024, layer) : memoryOf(1024)),
    reference: () => (what === 'time' ? timeOf(64, layer) : memoryOf(64)),
  }),
})

const timeOf = async (count: number, layer?: 'infiniband'): Promise<number> => (await costs(count, layer)).time

const self = fileURLToPath(import.meta.url)
/** In a process of its own, whose heap is as small as at the start. */
const memoryOf = (count: number): Promise<number> =>
  Promise.resolve(Number(execFileSync(process.execPath, [self, `${count}`], { encoding: 'utf8' })))

export const manyDevicesRows: readonly Row[] = [
  row(undefined, 'time', 2, 1.5),
  row(undefined, 'memory', 2, 1),
  row('infiniband', 'time', 4, 2),
]

if (process.argv[1] === self) console.log((await costs(Number(process.argv[2]))).memory)
