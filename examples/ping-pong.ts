/*
 * Two RC queue pairs exchange a message back and forth, in this process.
 *
 *   node dist/examples/ping-pong.js [rounds] [bytes]
 */
import { createNetwork, type Device, open } from 'userdma'

const rounds = Number(process.argv[2] ?? 1000)
const bytes = Number(process.argv[3] ?? 64)

/** One side: a device, memory, a completion queue and a queue pair. */
const player = (device: Device) => {
  const pd = device.pd()
  const ball = pd.register(new Uint8Array(bytes))
  const cq = device.cq()
  const qp = pd.rcQp({ sendCq: cq })
  return { ball, cq, qp }
}

/** Receives and sends until the last round. */
const play = async ({ ball, cq, qp }: ReturnType<typeof player>, begins: boolean): Promise<void> => {
  let caught = 0
  qp.receive(ball.slice())
  if (begins) qp.send(ball.slice())
  for await (const wc of cq) {
    if (!wc.ok) throw new Error(`a request failed: ${wc.statusName}`)
    if (wc.opcodeName !== 'RECV') continue
    caught++
    if (caught < rounds) qp.receive(ball.slice())
    if (caught < rounds || !begins) qp.send(ball.slice())
    if (caught === rounds) return
  }
}

const network = createNetwork()
await using one = await open({ network })
await using two = await open({ network })
const [left, right] = [player(one), player(two)]
left.qp.connect(right.qp.endpoint)
right.qp.connect(left.qp.endpoint)

const start = performance.now()
await Promise.all([play(left, true), play(right, false)])
const microseconds = ((performance.now() - start) * 1000) / rounds
console.log(`${rounds} round trips of ${bytes} bytes, ${microseconds.toFixed(1)} µs each`)
