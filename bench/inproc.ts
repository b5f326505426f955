/*
 * Rows "inproc": messages between two devices of the library inside this process, all through the public API: posted,
 * moved and polled on one thread. Bandwidth is compared with memcpy in C, message by message over the same two buffers;
 * one small request from post to poll, and small requests in batches, have limits of their own.
 */
import { createNetwork, open } from '../src/verbs/index.ts'
import type { Bench, Row } from './harness.ts'
import { type Body, perCall } from './loops.ts'
import { runTwin } from './processes.ts'

/** Requests that are posted before the first completion is polled for. */
const BATCH = 16
const MEBI = 2 ** 20
const TWIN_BYTES = 5e9

/** Two connected queue pairs, each on a device of its own, and their memory. */
const pair = async (size: number, depth: number) => {
  const network = createNetwork()
  const access = { remoteWrite: true, remoteRead: true }
  const end = async () => {
    const device = await open({ network })
    const pd = device.pd()
    const cq = device.cq({ entries: 2 * depth })
    const region = pd.register(new Uint8Array(size).fill(1), access)
    const qp = pd.rcQp({ sendCq: cq, maxSends: depth, maxReceives: depth })
    return { device, cq, region, qp }
  }
  const [near, far] = [await end(), await end()]
  near.qp.connect(far.qp.endpoint)
  far.qp.connect(near.qp.endpoint)
  const close = async (): Promise<void> => {
    await near.device.close()
    await far.device.close()
  }
  return { near, far, close }
}

type Pair = Awaited<ReturnType<typeof pair>>

/** Polls for `count` completions of a queue. */
const take = ({ cq }: Pair['near'], count: number): void => {
  for (let left = count; left > 0; ) {
    if (!cq.poll()) throw new Error('a message does not arrive')
    if (!cq.completion.ok) throw new Error(`a request failed: ${cq.completion.statusName}`)
    left--
  }
}

/** Posts `times` requests in batches, and takes their completions. */
const posting = ({ near, far }: Pair, operation: 'write' | 'read' | 'send', batch: number): Body => {
  const local = near.region.slice()
  const room = far.region.slice()
  const remote = far.region.remote()
  return times => {
    for (let left = times; left > 0; left -= batch) {
      for (let i = 0; i < batch; i++) {
        if (operation === 'write') near.qp.write(local, remote)
        else if (operation === 'read') near.qp.read(local, remote)
        else {
          far.qp.receive(room)
          near.qp.send(local)
        }
      }
      take(near, batch)
      if (operation === 'send') take(far, batch)
    }
    return times
  }
}

const bandwidth = async (operation: 'write' | 'read' | 'send', size: number): Promise<Bench> => {
  const two = await pair(size, BATCH)
  const nanoseconds = perCall(posting(two, operation, BATCH))
  return {
    ours: async () => size / (await nanoseconds()),
    beside: () => runTwin('memcpy', size, Math.round(TWIN_BYTES / size)),
    close: two.close,
  }
}

const bandwidthRow = (operation: 'write' | 'read' | 'send', size: number, floor: number, aim: number): Row => ({
  name: `inproc ${operation} ${size}`,
  quantity: `${operation.toUpperCase()} ${size / 1024} KiB inside a process`,
  unit: 'GB/s',
  better: 'higher',
  cores: 1,
  reference: 'memcpy in C',
  floor,
  aim,
  prepare: () => bandwidth(operation, size),
})

const SMALL = 64
/** More than one look at the clock is worth. */
const MANY = 256

const small = async (batch: number, value: (nanoseconds: number) => number): Promise<Bench> => {
  const two = await pair(SMALL, batch)
  const nanoseconds = perCall(posting(two, 'write', batch))
  return { ours: async () => value(await nanoseconds()), close: two.close }
}

export const inprocRows: readonly Row[] = [
  ...[65536, MEBI].flatMap(size => [
    bandwidthRow('write', size, 0.75, 0.9),
    bandwidthRow('read', size, 0.75, 0.9),
    bandwidthRow('send', size, 0.6, 0.85),
  ]),
  {
    name: 'inproc post-poll',
    quantity: 'WRITE of 64 bytes inside a process, post to poll',
    unit: 'µs',
    better: 'lower',
    cores: 1,
    reference: 'no peer',
    floor: 0.5,
    aim: 0.15,
    prepare: () => small(1, nanoseconds => nanoseconds / 1000),
  },
  {
    name: 'inproc rate',
    quantity: `WRITEs of 64 bytes inside a process, ${MANY} at a time`,
    unit: 'M/s',
    better: 'higher',
    cores: 1,
    reference: 'no peer',
    floor: 2,
    aim: 8,
    prepare: () => small(MANY, nanoseconds => 1000 / nanoseconds),
  },
]
