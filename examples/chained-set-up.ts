/*
 * One call creates many objects, or none after a mistake. The function that `device.chain` gets describes the objects.
 * An object may refer to earlier objects. With a daemon, this takes one message instead of one per object.
 *
 *   node dist/examples/chained-set-up.js [queue pairs, at least 2] [socket of a daemon]
 */
import { open, RdmaError } from 'userdma'

const count = Number(process.argv[2] ?? 100)
const socket = process.argv[3]
await using device = await open(socket === undefined ? {} : { socket })

const measure = <T>(title: string, create: () => T): T => {
  const start = performance.now()
  const created = create()
  const microseconds = ((performance.now() - start) * 1000) / count
  console.log(`${title}: ${microseconds.toFixed(1)} µs for each queue pair`)
  return created
}

const createByChain = () =>
  device.chain(chain => {
    const pd = chain.pd()
    const cq = chain.cq({ entries: 1000 })
    const mr = chain.register(pd, new Uint8Array(4096), { remoteWrite: true })
    const qps = Array.from({ length: count }, () => chain.rcQp(pd, { sendCq: cq }))
    return { pd, cq, mr, qps }
  })
const createBySingleCalls = ({ pd, cq }: ReturnType<typeof createByChain>) =>
  Array.from({ length: count }, () => pd.polledRcQp({ sendCq: cq }))
const close = ({ pd, cq, mr, qps }: ReturnType<typeof createByChain>): void => {
  for (const object of [...qps, mr, cq, pd]) object.close()
}

// Warm-up for the JIT compiler.
for (let i = 0; i < 3; i++) {
  const warmUp = createByChain()
  for (const qp of createBySingleCalls(warmUp)) qp.close()
  close(warmUp)
}

const chained = measure('one chain', createByChain)
const singleQps = measure('single calls', () => createBySingleCalls(chained))
const { pd, cq, mr, qps } = chained

// Objects of a chain work like other objects.
const [sender, receiver] = qps
sender.connect(receiver.endpoint)
receiver.connect(sender.endpoint)
sender.write(Uint8Array.of(42), mr.remote(100, 1))
while (!cq.poll()) await cq.wait()
console.log(`${cq.completion.statusName}: the peer's byte is ${mr.buffer[100]}`)
for (const qp of singleQps) qp.close()

try {
  device.chain(chain => [chain.rcQp(pd, { sendCq: cq }), chain.rcQp(pd, { sendCq: cq, maxSendWr: 1e9 })])
} catch (error) {
  if (!(error instanceof RdmaError)) throw error
  console.log(`nothing was created: ${error.message}`)
}
close(chained)
