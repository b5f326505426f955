/*
 * Row "stream": a pipeline through `messageStream`, both ends in one process, compared with the same chunks as messages.
 */
import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { messageStream } from '../src/library/connections/messages/stream.ts'
import { connect, createNetwork, listen, type Messages, open } from '../src/library/index.ts'
import type { Bench, Row } from './harness/harness.ts'

const CHUNK_BYTES = 65_536
/** Chunks per measurement. */
const COUNT = 8000
/** Messages of the reference in flight. */
const BATCH = 16

const chunk = new Uint8Array(CHUNK_BYTES)

const bySendAndReceive = async (near: Messages, far: Messages): Promise<void> => {
  const receiving = (async () => {
    for await (const _ of far);
  })()
  for (let sent = 0; sent < COUNT; sent += BATCH)
    await Promise.all(Array.from({ length: BATCH }, () => near.send(chunk)))
  await near.end()
  await receiving
}

const byPipelines = async (near: Messages, far: Messages): Promise<void> => {
  let remaining = COUNT
  const source = new Readable({
    read() {
      this.push(remaining-- > 0 ? chunk : null)
    },
  })
  const sink = new Writable({ objectMode: true, write: (_chunk, _encoding, callback) => callback() })
  await Promise.all([pipeline(source, messageStream(near)), pipeline(messageStream(far), sink)])
}

const prepare = async (): Promise<Bench> => {
  const network = createNetwork()
  const [serverDevice, clientDevice] = [await open({ network }), await open({ network })]
  const server = await listen('rdma://0.0.0.0:0', { device: serverDevice })
  const address = { host: serverDevice.address, port: server.port }
  /** GB/s over a connection of its own. */
  const rate = async (transfer: (near: Messages, far: Messages) => Promise<void>): Promise<number> => {
    const accepting = server.arrivals().next()
    const connecting = connect(address, { device: clientDevice })
    const accepted = (await accepting).value.accept()
    const [near, far] = await Promise.all([(await connecting).messages(), (await accepted).messages()])
    const start = performance.now()
    await transfer(near, far)
    const milliseconds = performance.now() - start
    await Promise.all([near.close(), far.close()])
    return (COUNT * CHUNK_BYTES) / milliseconds / 1e6
  }
  return {
    ours: () => rate(byPipelines),
    reference: () => rate(bySendAndReceive),
    note: `${COUNT} chunks a round`,
    async close() {
      await server.close()
      await serverDevice.close()
      await clientDevice.close()
    },
  }
}

export const streamRows: readonly Row[] = [
  {
    name: 'stream',
    quantity: `pipeline of ${CHUNK_BYTES / 1024} KiB chunks by a stream of messages, both ends in one process`,
    unit: 'GB/s',
    better: 'higher',
    cores: 1,
    reference: `the same chunks as messages, ${BATCH} in flight`,
    floor: 0.45,
    aim: 0.8,
    prepare,
  },
]
