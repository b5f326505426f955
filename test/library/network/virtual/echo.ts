/*
 * A protocol for tests of virtual time: a server that answers each message with the same bytes, and a client.
 */
import {
  type Connection,
  connect,
  createNetwork,
  type Device,
  listen,
  type Messages,
  type Network,
  type NetworkOptions,
  open,
} from '../../../../src/library/index.ts'

interface Echo {
  readonly network: Network
  readonly left: Device
  readonly right: Device
  readonly connection: Connection
  readonly messages: Messages
  /** Ends in order. */
  end(): Promise<void>
  /** Closes the devices. */
  close(): Promise<void>
}

/** Starts a server and connects a client to it. */
export const startEcho = async (given: NetworkOptions | Network = {}): Promise<Echo> => {
  const network = 'sleep' in given ? given : createNetwork({ clock: 'virtual', ...given })
  const left = await open({ network })
  const right = await open({ network })
  const server = await listen('rdma://0.0.0.0:7471', { device: left })
  const serve = async (): Promise<void> => {
    for await (const request of server) {
      const messages = await (await request.accept()).messages()
      for await (const message of messages) await messages.send(message)
      await messages.close()
    }
  }
  const served = serve()
  // A test may end the devices first.
  served.catch(() => {})
  const connection = await connect(`rdma://${left.address}:7471`, { device: right })
  const messages = await connection.messages()
  const close = async (): Promise<void> => {
    await left.close()
    await right.close()
  }
  return {
    network,
    left,
    right,
    connection,
    messages,
    close,
    async end() {
      await messages.end()
      await messages.close()
      await server.close()
      await served
      await close()
    },
  }
}

/** Sends `count` messages, and awaits each answer. Throws if an answer is another one. */
export const talk = async ({ messages }: Echo, count: number, timeout?: number): Promise<void> => {
  for (let i = 0; i < count; i++) {
    await messages.send(Uint8Array.of(i, i >> 8))
    const [low, high] = await messages.receive({ timeout })
    if (low !== (i & 0xff) || high !== ((i >> 8) & 0xff)) throw new Error(`answer ${low} ${high} to message ${i}`)
  }
}
