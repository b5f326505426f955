/*
 * An event-driven server with many queue pairs, which share one receive queue and one completion queue. The memory for
 * messages depends on the messages in flight, not on the number of connections. The server answers questions of clients
 * in capitals.
 *
 *   node dist/examples/many-connections.js [connections] [questions]
 */
import { createNetwork, type Device, type Endpoint, open, type RcQueuePair } from 'userdma'

const connections = Number(process.argv[2] ?? 1000)
const questions = Number(process.argv[3] ?? 5)
const MESSAGE_BYTES = 64
const BUFFER_COUNT = 256

const createServer = (device: Device, signal: AbortSignal) => {
  const pd = device.pd()
  const cq = device.cq({ entries: 4 * BUFFER_COUNT })
  const srq = pd.srq({ maxWr: BUFFER_COUNT })
  const memory = Buffer.alloc(BUFFER_COUNT * MESSAGE_BYTES)
  const mr = pd.register(memory)
  const slices = Array.from({ length: BUFFER_COUNT }, (_, i) => mr.slice(i * MESSAGE_BYTES, MESSAGE_BYTES))
  const peers = new Map<number, RcQueuePair>()
  for (const [i, slice] of slices.entries()) srq.receive(slice, i)

  const serve = async (): Promise<void> => {
    for await (const wc of cq.completions({ signal })) {
      if (!wc.ok) throw new Error(`a request failed: ${wc.statusName}`)
      if (wc.opcodeName !== 'RECV') continue
      const at = wc.id * MESSAGE_BYTES
      const answer = memory.toString('utf8', at, at + wc.bytes).toUpperCase()
      peers.get(wc.qpn)?.send(Buffer.from(answer), { signaled: false })
      srq.receive(slices[wc.id], wc.id)
    }
  }
  const accept = (client: Endpoint): Endpoint => {
    const qp = pd.polledRcQp({ sendCq: cq, srq, maxSendWr: 4 })
    qp.connect(client)
    peers.set(qp.qpn, qp)
    return qp.endpoint
  }
  return { serve, accept }
}

/** Returns a function that sends a question and resolves with the answer. */
const createClient = (device: Device, connectToServer: (client: Endpoint) => Endpoint) => {
  const pd = device.pd()
  const cq = device.cq({ entries: 8 })
  const buffer = Buffer.alloc(MESSAGE_BYTES)
  const mr = pd.register(buffer)
  const qp = pd.polledRcQp({ sendCq: cq, maxSendWr: 4, maxRecvWr: 2 })
  qp.connect(connectToServer(qp.endpoint))
  return async (question: string): Promise<string> => {
    qp.receive(mr.slice())
    qp.send(Buffer.from(question), { signaled: false })
    while (!cq.poll()) await cq.wait()
    return buffer.toString('utf8', 0, cq.completion.bytes)
  }
}

const network = createNetwork()
await using clientDevice = await open({ network })
await using serverDevice = await open({ network })
const stop = new AbortController()
const server = createServer(serverDevice, stop.signal)
const serving = server.serve()
const clients = Array.from({ length: connections }, () => createClient(clientDevice, server.accept))

const start = performance.now()
const correctAnswers = await Promise.all(
  clients.map(async (ask, i) => {
    let correct = 0
    for (let n = 0; n < questions; n++) if ((await ask(`client ${i}, ${n}`)) === `CLIENT ${i}, ${n}`) correct++
    return correct
  }),
)
const seconds = (performance.now() - start) / 1000
stop.abort()
await serving.catch(error => {
  if (error !== stop.signal.reason) throw error
})
const correct = correctAnswers.reduce((sum, count) => sum + count, 0)
const rate = Math.round(correct / seconds)
console.log(`${correct} of ${connections * questions} answers on ${connections} connections, ${rate} a second`)
