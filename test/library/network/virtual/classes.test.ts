/*
 * Classes of packets in the links of a network in virtual time: what a lossy class loses and a lossless one does not,
 * what pauses cost others, storms, why a request fails, rules that select by DSCP, and the settings.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  type ClassStats,
  chainTopology,
  createNetwork,
  type Device,
  type Finding,
  type LinkClassOptions,
  type Network,
  type NetworkOptions,
  open,
  readTopology,
  starTopology,
} from '../../../../src/library/index.ts'
import { scratchFolder } from '../../../tools.ts'

const classes: readonly LinkClassOptions[] = [
  { name: 'storage', dscp: 'af31', lossless: true },
  { name: 'bulk', dscp: ['cs1', '10..14'], weight: 2 },
]
/** DSCP 26. */
const STORAGE = { trafficClass: 26 << 2 }

const networkOf = async (count: number, options: NetworkOptions) => {
  const network = createNetwork({ clock: 'virtual', seed: 1, ...options })
  const devices: Device[] = []
  while (devices.length < count) devices.push(await open({ network }))
  return {
    network,
    devices,
    async close() {
      for (const device of devices) await device.close()
    },
  }
}

/** Connects queue pairs of two devices; returns a function that writes so many bytes. */
const flowOf = (
  from: Device,
  to: Device,
  bytes: number,
  { trafficClass = 0, ackTimeoutExponent = 14 }: { trafficClass?: number; ackTimeoutExponent?: number } = {},
) => {
  const [near, far] = [from.pd(), to.pd()]
  const [qp, peer] = [near.rcQp(), far.rcQp()]
  const options = { trafficClass, ackTimeoutExponent, retryCount: 2 }
  qp.connect(peer.endpoint, options)
  peer.connect(qp.endpoint, options)
  const source = near.register(new Uint8Array(bytes).fill(7)).slice()
  const buffer = new Uint8Array(bytes)
  const target = far.register(buffer, { remoteWrite: true }).remote()
  return { buffer, write: () => qp.write(source, target) }
}

const classOf = (network: Network, from: string, to: string, name: string): ClassStats => {
  const link = network.stats().links.find(one => one.from === from && one.to === to)
  const found = link?.classes.find(one => one.name === name)
  assert.ok(found, `${from} ${to} ${name}`)
  return found
}

test('three writers to one host: the lossless class pauses them and loses nothing, the lossy one loses', async () => {
  const links = { ...chainTopology(2, 3, { rate: '10gbit', queue: '100kb', mark: 'none' }), classes }
  const writeAll = async (trafficClass: number) => {
    const { network, devices, close } = await networkOf(4, { links })
    const flows = devices.slice(0, 3).map(one => flowOf(one, devices[3]!, 2 ** 20, { trafficClass }))
    await Promise.all(flows.map(({ write }) => write()))
    assert.ok(flows.every(({ buffer }) => buffer.every(byte => byte === 7)))
    const time = network.now()
    await close()
    return { network, time }
  }
  const lossless = await writeAll(STORAGE.trafficClass)
  const trunk = classOf(lossless.network, 's1', 's2', 'storage')
  assert.deepEqual([trunk.lossless, trunk.lost, trunk.packets], [true, { overflow: 0, buffer: 0 }, 768])
  const up = classOf(lossless.network, 'h1', 's1', 'storage')
  assert.ok(up.pauses.received > 0 && up.pauses.time > 0.5 && !up.pauses.isPaused, JSON.stringify(up))
  assert.equal(classOf(lossless.network, 's1', 'h1', 'storage').pauses.sent, up.pauses.received)
  const lossy = await writeAll(0)
  assert.ok(classOf(lossy.network, 's1', 's2', 'default').lost.overflow > 0)
  assert.equal(classOf(lossy.network, 'h1', 's1', 'storage').packets, 0)
  const dscpsOf = ({ network }: typeof lossy) => [...new Set(network.stats().flows.map(({ dscp }) => dscp))]
  assert.deepEqual([dscpsOf(lossless), dscpsOf(lossy)], [[26], [0]])
  // 3 MiB at 10 Gbit/s are 2.5 ms
  assert.ok(lossless.time < 2.7 && lossy.time > 2 * lossless.time, `${lossless.time} and ${lossy.time}`)
})

test('DCQCN: a class marks before it pauses', async () => {
  const marking: LinkClassOptions[] = [{ name: 'storage', dscp: 26, lossless: true, mark: '5kb-60kb-100%' }]
  const links = { ...starTopology(5, { rate: '10gbit', mark: 'none' }), classes: marking }
  const { network, devices, close } = await networkOf(5, { links, dcqcn: true })
  const flows = devices.slice(1).map(one => flowOf(one, devices[0]!, 2 ** 20, STORAGE))
  await Promise.all(flows.map(({ write }) => write()))
  const down = classOf(network, 's1', 'h1', 'storage')
  assert.ok(down.marked > 0 && down.lost.overflow === 0, JSON.stringify(down))
  const stats = network.stats().links.find(({ from, to }) => from === 's1' && to === 'h1')
  assert.equal(stats!.marked, down.marked)
  await close()
})

test('a pause storm stops a class for all hosts behind it; check says which link is paused, and no rule of retries', async () => {
  const links = { ...chainTopology(2, 2), classes }
  const found: Finding[] = []
  const check = { onFinding: (finding: Finding) => void found.push(finding), failOn: 'never' } as const
  const { network, devices, close } = await networkOf(4, { links, check })
  const [h1, h2, h3, h4] = devices as [Device, Device, Device, Device]
  network.setPauseStorm(['h4', 's2'], 'storage', true)
  const stuck = flowOf(h1, h4, 2 ** 20, { ...STORAGE, ackTimeoutExponent: 8 })
  const behind = flowOf(h2, h3, 2 ** 20, { ...STORAGE, ackTimeoutExponent: 20 })
  const other = flowOf(h1, h4, 2 ** 16)
  const waiting = behind.write()
  await other.write()
  await assert.rejects(stuck.write(), /RETRY_EXC/)
  assert.ok(classOf(network, 's2', 'h4', 'storage').pauses.isPaused)
  assert.ok(classOf(network, 's1', 's2', 'storage').pauses.isPaused, 'hop by hop')
  assert.match(found[0]!.text, /DSCP 26 is in class storage, which h4 pauses: .* from s2 to h4/)
  network.setPauseStorm(['h4', 's2'], 'storage', false)
  await waiting
  assert.ok(behind.buffer.every(byte => byte === 7))
  const again = flowOf(h1, h4, 2 ** 16, STORAGE)
  await again.write()
  await close()
})

test('a request of a lossy class that is not answered: check names the class, the link and the lossless class', async () => {
  const links = { ...starTopology(9, { rate: '1gbit', queue: '20kb', mark: 'none' }), classes }
  const found: Finding[] = []
  const check = { onFinding: (finding: Finding) => void found.push(finding), failOn: 'never' } as const
  const { network, devices, close } = await networkOf(9, { links, check })
  const flows = devices.slice(1).map(one => flowOf(one, devices[0]!, 2 ** 20, { ackTimeoutExponent: 4 }))
  const ends = await Promise.allSettled(flows.map(({ write }) => write()))
  const failed = ends.find(end => end.status === 'rejected')
  assert.ok(failed)
  const { text, advice } = found.find(({ text }) => text.includes('lossy'))!
  assert.match(text, /DSCP 0 is in class default, which is lossy: \d+ of its packets were lost .* from s1 to h1/)
  assert.match(text, /class storage is lossless there/)
  assert.match(advice!, /connect both ends with a trafficClass of the lossless class/)
  assert.ok(classOf(network, 's1', 'h1', 'default').lost.overflow > 0)
  await close()
})

test('a rule selects packets by DSCP: numbers, names and ranges', async () => {
  const { network, devices, close } = await networkOf(2, { fault: 'dscp=cs3..31,drop=1' })
  const [near, far] = devices as [Device, Device]
  await flowOf(near, far, 4096).write()
  await assert.rejects(flowOf(near, far, 4096, { ...STORAGE, ackTimeoutExponent: 8 }).write(), /RETRY_EXC/)
  network.setFaults('dscp=ef+0,drop=1')
  await flowOf(near, far, 4096, STORAGE).write()
  await assert.rejects(flowOf(near, far, 4096, { ackTimeoutExponent: 8 }).write(), /RETRY_EXC/)
  for (const text of ['dscp=64,drop=1', 'dscp=af44,drop=1', 'dscp=9..3,drop=1'])
    assert.throws(() => network.setFaults(text), /is not a DSCP from 0 to 63, a name as ef, af31 or cs3/)
  await close()
})

test('files of nets and of the simulation have classes; userdma net alone refuses lossless ones', async () => {
  const folder = scratchFolder()
  const classesIn = async (text: string) => {
    const file = join(folder, 'file.yaml')
    writeFileSync(file, text)
    const { links } = await readTopology(file)
    return links!.map(({ classes }) => classes?.map(({ name, lossless = false }) => `${name} ${lossless}`))
  }
  const own = 'classes: [{ name: storage, dscp: af31, lossless: true }]'
  const net = `hosts: 2\n${own}\nlinks:\n  - { between: [h1, h2] }\n  - { between: [h1, h2], classes: [] }\n`
  assert.deepEqual(await classesIn(net), [['storage true', 'default false'], []])
  const sim = `topology: { star: 2 }\nlink: { ${own} }\ntraffic: { pattern: incast }\n`
  assert.deepEqual(await classesIn(sim), Array(2).fill(['storage true', 'default false']))
})

test('settings: an object describes itself, and mistakes are named with what is allowed', () => {
  const star = starTopology(2, { classes })
  const [first] = star.links!
  assert.deepEqual(
    first!.classes!.map(({ name, dscp, lossless }) => [name, (dscp as number[]).length, lossless ?? false]),
    [
      ['storage', 1, true],
      ['bulk', 6, false],
      ['default', 57, false],
    ],
  )
  assert.doesNotThrow(() => createNetwork({ clock: 'virtual', links: star }))
  const refused = (given: readonly unknown[], message: RegExp): void =>
    assert.throws(() => starTopology(2, { classes: given as LinkClassOptions[] }), message)
  refused([{ name: 'a', dscp: 64 }], /link.classes\[0\].dscp: 64: give a DSCP from 0 to 63/)
  refused(
    [
      { name: 'a', dscp: 'af31' },
      { name: 'b', dscp: '24..30' },
    ],
    /classes\[1\].dscp: 26 is in class a too/,
  )
  refused([{ name: 'a' }, { name: 'b' }], /classes\[1\]: is the second class without dscp/)
  refused([{ name: 'a', xoff: '10kb' }], /classes\[0\].xoff: only a lossless class has it/)
  refused([{ name: 'a', lossless: true, xoff: 20_000, xon: '30kb' }], /classes\[0\].xon: "30kb": give bytes/)
  refused([{ name: 'a', lossles: true }], /lossles: there is no such setting, did you mean "lossless"/)
  refused([{ name: 'a b' }], /"a b": a name has 1 to 32 letters/)
  const nine = Array.from({ length: 8 }, (_, i) => ({ name: `c${i}`, dscp: i }))
  refused(nine, /there are 9, with that of all other DSCPs; a link has at most 8/)
  refused([{ name: 'default', dscp: 3 }], /two classes have the name "default"/)
  const network = createNetwork({ clock: 'virtual', links: star })
  assert.throws(() => network.setPauseStorm(['h1', 's1'], 'bulk', true), /no lossless class "bulk".*it has storage/s)
  assert.throws(() => network.setPauseStorm(['h1', 'h2'], 'storage', true), /no link between h1 and h2/)
  assert.throws(() => network.setPauseStorm(['h1', 's2'], 'storage', true), /no host, switch or router "s2"/)
  assert.throws(() => createNetwork().setPauseStorm(['h1', 's1'], 'storage', true), /the network has no links/)
})
