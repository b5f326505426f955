/*
 * A process with two connected queue pairs on two devices, for rows of inproc.ts and check.ts. Posts, data movement and
 * polls are on one thread. In a separate process, earlier rows do not influence the measurement.
 */
import { once } from 'node:events'
import { type CheckOptions, createNetwork, open } from '../../src/library/index.ts'
import { type Body, perCall } from '../loops.ts'

export interface InprocOrder {
  readonly operation: 'write' | 'read' | 'send'
  readonly size: number
  /** Requests posted before the first poll. */
  readonly batch: number
  readonly check?: CheckOptions
}

/** Bytes of a page. */
const PAGE = 4096

/**
 * Two buffers of `size` bytes with equal offsets in their pages, as those of the reference. On AMD Zen 3 and 4 the
 * memcpy of glibc 2.36 is up to 20 times slower if the destination's offset is 1 to 31 bytes above the source's.
 */
const buffersOf = (size: number): readonly [Uint8Array, Uint8Array] => {
  const distance = Math.ceil(size / PAGE) * PAGE
  const memory = new ArrayBuffer(distance + size)
  return [new Uint8Array(memory, 0, size).fill(1), new Uint8Array(memory, distance, size).fill(1)]
}

const pair = async (size: number, depth: number, check?: CheckOptions) => {
  const network = createNetwork({ ...(check && { check }) })
  const access = { remoteWrite: true, remoteRead: true }
  const createEnd = async (memory: Uint8Array) => {
    const device = await open({ network })
    const pd = device.pd()
    const cq = device.cq({ entries: 2 * depth })
    const region = pd.register(memory, access)
    const qp = pd.polledRcQp({ sendCq: cq, maxSendWr: depth, maxRecvWr: depth })
    return { device, cq, region, qp }
  }
  const [nearMemory, farMemory] = buffersOf(size)
  const [near, far] = [await createEnd(nearMemory), await createEnd(farMemory)]
  near.qp.connect(far.qp.endpoint)
  far.qp.connect(near.qp.endpoint)
  return { near, far }
}

type Pair = Awaited<ReturnType<typeof pair>>

const pollCompletions = ({ cq }: Pair['near'], count: number): void => {
  for (let polled = 0; polled < count; polled++) {
    if (!cq.poll()) throw new Error('a message does not arrive')
    if (!cq.completion.ok) throw new Error(`a request failed: ${cq.completion.statusName}`)
  }
}

/** Posts requests in whole batches, and polls the completions of each batch. */
const requestLoop = ({ near, far }: Pair, { operation, batch }: InprocOrder): Body => {
  const local = near.region.slice()
  const receiveRegion = far.region.slice()
  const remote = far.region.remote()
  return times => {
    for (let posted = 0; posted < times; posted += batch) {
      for (let i = 0; i < batch; i++) {
        if (operation === 'write') near.qp.write(local, remote)
        else if (operation === 'read') near.qp.read(local, remote)
        else {
          far.qp.receive(receiveRegion)
          near.qp.send(local)
        }
      }
      pollCompletions(near, batch)
      if (operation === 'send') pollCompletions(far, batch)
    }
    return times
  }
}

const [order] = (await once(process, 'message')) as [InprocOrder]
const nanoseconds = perCall(requestLoop(await pair(order.size, order.batch, order.check), order))
process.send?.({ ready: true })
process.on('message', async () => process.send?.({ nanoseconds: await nanoseconds() }))
process.on('disconnect', () => process.exit())
