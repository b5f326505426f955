/*
 * Two RC queue pairs exchange a message back and forth, in this process.
 *
 *   node dist/examples/ping-pong.js [rounds] [bytes]
 */
import { createNetwork, type Device, open } from 'userdma'

const rounds = Number(process.argv[2] ?? 1000)
const bytes = Number(process.argv[3] ?? 64)

/** One side: memory for the message, a completion queue and a queue pair. */
const createPeer = (device: Device) => {
  const pd = device.pd()
  const mr = pd.register(new Uint8Array(bytes))
  const cq = device.cq()
  const qp = pd.polledRcQp({ sendCq: cq })
  return { mr, cq, qp }
}

/** Receives and sends until the last round. The client sends first. */
const run = async ({ mr, cq, qp }: ReturnType<typeof createPeer>, isClient: boolean): Promise<void> => {
  let received = 0
  qp.receive(mr.slice())
  if (isClient) qp.send(mr.slice())
  for await (const wc of cq) {
    if (!wc.ok) throw new Error(`a request failed: ${wc.statusName}`)
    if (wc.opcodeName !== 'RECV') continue
    received++
    if (received < rounds) qp.receive(mr.slice())
    if (received < rounds || !isClient) qp.send(mr.slice())
    if (received === rounds) return
  }
}

const network = createNetwork()
await using clientDevice = await open({ network })
await using serverDevice = await open({ network })
const [client, server] = [createPeer(clientDevice), createPeer(serverDevice)]
client.qp.connect(server.qp.endpoint)
server.qp.connect(client.qp.endpoint)

const start = performance.now()
await Promise.all([run(client, true), run(server, false)])
const microseconds = ((performance.now() - start) * 1000) / rounds
console.log(`${rounds} round trips of ${bytes} bytes, ${microseconds.toFixed(1)} µs each`)
