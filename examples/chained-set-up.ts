/*
 * Many objects with one call. A chain describes objects, later ones referring to earlier ones; either all are created
 * or none. With a daemon that is one message instead of hundreds.
 *
 *   node dist/examples/chained-set-up.js [queue pairs] [socket of a daemon]
 */
import { open, RdmaError } from 'userdma'

const count = Number(process.argv[2] ?? 100)
const socket = process.argv[3]
await using device = await open(socket === undefined ? {} : { socket })

const timed = <T>(what: string, body: () => T): T => {
  const start = performance.now()
  const made = body()
  const each = ((performance.now() - start) * 1000) / count
  console.log(`${what}: ${each.toFixed(1)} µs for each queue pair`)
  return made
}

const byChain = () =>
  device.chain(chain => {
    const pd = chain.pd()
    const cq = chain.cq({ entries: 1000 })
    const mr = chain.register(pd, new Uint8Array(4096), { remoteWrite: true })
    const qps = Array.from({ length: count }, () => chain.rcQp(pd, { sendCq: cq }))
    return { pd, cq, mr, qps }
  })
const bySingleCalls = ({ pd, cq }: ReturnType<typeof byChain>) =>
  Array.from({ length: count }, () => pd.rcQp({ sendCq: cq }))
const close = ({ pd, cq, mr, qps }: ReturnType<typeof byChain>): void => {
  for (const one of [...qps, mr, cq, pd]) one.close()
}

// Warm-up for the JIT compiler: both ways run once before they are compared.
for (let i = 0; i < 3; i++) {
  const before = byChain()
  for (const qp of bySingleCalls(before)) qp.close()
  close(before)
}

const made = timed('one chain', byChain)
const single = timed('single calls', () => bySingleCalls(made))
const { pd, cq, mr, qps } = made

// Objects created by a chain are ordinary objects.
const [one, two] = qps
one.connect(two.endpoint)
two.connect(one.endpoint)
one.write(Uint8Array.of(42), mr.remote(100, 1))
while (!cq.poll()) await cq.wait()
console.log(`${cq.completion.statusName}: the peer's byte is ${mr.buffer[100]}`)
for (const qp of single) qp.close()

try {
  device.chain(chain => [chain.rcQp(pd, { sendCq: cq }), chain.rcQp(pd, { sendCq: cq, maxSendWr: 1e9 })])
} catch (error) {
  if (!(error instanceof RdmaError)) throw error
  console.log(`nothing was created: ${error.message}`)
}
close(made)
