/*
 * A routed fabric in virtual time: 2 spines, 4 leaves, 32 hosts, each of which writes to one of another leaf. Then a
 * spine is down for a moment: its flows move to the other one, and nothing fails.
 *
 *   node dist/examples/fabric.js [bytes]        default: 262144
 */
import { createNetwork, type Device, leafSpineTopology, open } from 'userdma'

const [bytes = '262144'] = process.argv.slice(2)
const HOSTS = 32
const { switches, ...fabric } = leafSpineTopology(4, 2, HOSTS / 4, { rate: '25gbit' }, { rate: '100gbit' })
const network = createNetwork({ clock: 'virtual', links: { ...fabric, switches: [], routers: switches } })

const devices: Device[] = []
while (devices.length < HOSTS) devices.push(await open({ network }))

const writes = devices.map((device, i) => {
  const [near, far] = [device.pd(), devices[(i + 8) % HOSTS]!.pd()]
  const [qp, peer] = [near.rcQp(), far.rcQp()]
  qp.connect(peer.endpoint)
  peer.connect(qp.endpoint)
  const source = near.register(new Uint8Array(Number(bytes))).slice()
  const target = far.register(new Uint8Array(Number(bytes)), { remoteWrite: true }).remote()
  return () => qp.write(source, target)
})

/** By spine: the flows whose last packets crossed it. */
const bySpine = (): string =>
  ['s5', 's6']
    .map(spine => {
      const flows = network.stats().flows.filter(({ paths }) => paths.at(-1)?.through?.includes(spine))
      return `${spine} has ${flows.length} flows`
    })
    .join(', ')

const writeAll = async (what: string): Promise<void> => {
  const start = network.now()
  await Promise.all(writes.map(write => write()))
  console.log(`${what}: ${bySpine()}, ${(network.now() - start).toFixed(2)} ms`)
}

await writeAll('two spines')
network.setRouter('s5', false)
await writeAll('one spine')
network.setRouter('s5', true)
await writeAll('two spines')
const flow = network.stats().flows.find(({ paths }) => paths.length > 1)
console.log(`${flow!.from} to ${flow!.to}, port ${flow!.sourcePort}:`)
for (const { through, packets } of flow!.paths) console.log(`  ${through?.join(' ')}: ${packets} packets`)
for (const device of devices) await device.close()
