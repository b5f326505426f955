/*
 * InfiniBand ports on a fat tree, in virtual time: a subnet manager gives LIDs, a WRITE and a datagram travel by them, and
 * a link of a switch fails.
 *
 *   node dist/examples/infiniband.js [hosts]        default: 4
 */
import { createNetwork, type Device, open } from 'userdma'

const hosts = Number(process.argv[2] ?? 4)
const network = createNetwork({ clock: 'virtual', fabric: 'fat-tree,leaves=2,spines=2' })
const devices: Device[] = []
for (let i = 0; i < hosts; i++) devices.push(await open({ network, layer: 'infiniband', name: `host${i + 1}` }))
const [first, last] = [devices[0]!, devices.at(-1)!]

/** What a program has on a device. */
const resources = (device: Device) => {
  const pd = device.pd()
  const buffer = new Uint8Array(4096)
  const mr = pd.register(buffer, { remoteWrite: true })
  return { device, pd, buffer, mr, qp: pd.rcQp(), ud: pd.udQp({ active: true }) }
}
const [a, b] = [resources(first), resources(last)]
console.log(
  `${devices.length} ports are ACTIVE, ${first.name} has LID ${a.qp.endpoint.lid}, ${last.name} ${b.qp.endpoint.lid}`,
)

// The endpoint of a queue pair has the LID of its port.
a.qp.connect(b.qp.endpoint)
b.qp.connect(a.qp.endpoint)
a.buffer.set(new TextEncoder().encode('by LID'))
await a.qp.write(a.mr.slice(0, 6), b.mr.remote())
console.log(`${last.name} has "${new TextDecoder().decode(b.buffer.subarray(0, 6))}"`)

// 40 bytes precede a datagram, which only a GRH fills: the receiver knows the sender by its LID.
const { lid, qpn, qkey } = b.ud.endpoint
const received = b.ud.receive(b.mr.slice(0, 100))
await a.ud.send(a.mr.slice(0, 6), { ah: a.pd.addressHandle({ lid }), qpn, qkey })
const { bytes, hasGrh, sourceLid } = await received
console.log(`a datagram of ${bytes - 40} bytes from LID ${sourceLid}, ${hasGrh ? 'with' : 'without'} a GRH`)

network.setLink(last.name, false)
const outcome = await a.qp.write(a.mr.slice(0, 6), b.mr.remote()).catch(error => error.status)
console.log(`without the cable of ${last.name}: ${outcome}`)
for (const device of devices) await device.close()
