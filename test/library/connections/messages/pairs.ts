/*
 * Connected devices for tests of messages, and a peer that writes its frames itself.
 */
import {
  type AwaitableRcQueuePair,
  type Connection,
  connect,
  type Device,
  listen,
  type MessagesOptions,
} from '../../../../src/library/index.ts'

type Cleanup = () => Promise<void>

/** A connection between two devices. */
export const connectPair = async (
  [serverDevice, clientDevice]: readonly [Device, Device],
  options = {},
): Promise<readonly [Connection, Connection, Cleanup]> => {
  const server = await listen('rdma://0.0.0.0:0', { device: serverDevice })
  const accepting = (async () => {
    for await (const request of server) return request.accept(options)
    throw new Error('the server was closed')
  })()
  const url = `rdma://${serverDevice.address}:${server.port}`
  const client = await connect(url, { device: clientDevice, ...options })
  const accepted = await accepting
  const cleanup = async () => {
    await Promise.all([client.close(), accepted.close()])
    await server.close()
    await clientDevice.close()
    await serverDevice.close()
  }
  return [client, accepted, cleanup]
}

/** The messages of both ends of a connection between two devices. */
export const messagePair = async (
  devices: readonly [Device, Device],
  messages: MessagesOptions = {},
  options: object = {},
) => {
  const [client, server, cleanup] = await connectPair(devices, options)
  const [near, far] = await Promise.all([client.messages(messages), server.messages(messages)])
  return { client, server, near, far, cleanup }
}

/** A frame as the page says: type, granted, done, length, and what follows. */
export const frame = (
  type: number,
  granted: number,
  done = 0,
  length = 0,
  rest: readonly number[] = [],
): Uint8Array => {
  const bytes = new Uint8Array(16 + rest.length)
  const view = new DataView(bytes.buffer)
  bytes[0] = type
  view.setUint32(4, granted)
  view.setUint32(8, done)
  view.setUint32(12, length)
  bytes.set(rest, 16)
  return bytes
}

/** Big-endian bytes of numbers of 32 bits. */
export const words = (...values: readonly number[]): number[] =>
  values.flatMap(value => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255])

export const MAGIC = 0x55444d53
/** HELLO of a peer with 12 buffers of 4096 bytes, which takes messages of 1 MiB. */
export const HELLO = frame(1, 12, 0, 0, words(MAGIC, 1, 4096, 2 ** 20))

/** A peer on an ordinary queue pair, with receives for all frames of the other side. */
export const rawPeer = ({ qp, pd }: Connection) => {
  const region = pd.register(new Uint8Array(16 * 4096))
  const frames: Promise<Uint8Array>[] = Array.from({ length: 16 }, async (_, i) => {
    const { bytes } = await qp.receive(region.slice(i * 4096, 4096))
    return region.buffer.slice(i * 4096, i * 4096 + bytes)
  })
  for (const received of frames) received.catch(() => {})
  return { qp, pd, next: () => frames.shift() as Promise<Uint8Array> }
}
export type RawQp = AwaitableRcQueuePair
