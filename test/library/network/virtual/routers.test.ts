/*
 * Routers in the links of a network in virtual time: paths by the hash of the five-tuple, TTL, what no router forwards,
 * links and routers that go down and return, and rules that name a router.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  createNetwork,
  type Device,
  ExploreError,
  type Finding,
  GRH_BYTES,
  type LinkOptions,
  leafSpineTopology,
  type Network,
  type NetworkLink,
  type NetworkOptions,
  type NetworkTopology,
  open,
  type RouterStats,
} from '../../../../src/library/index.ts'
import { temporaryFolder } from '../../../system/programs.ts'
import { problemsIn } from '../../../tools/captures/build.ts'
import { startEcho, talk } from './echo.ts'

/** `leaves` routers with `hosts` hosts each, and each joined to all of `spines` routers. */
const fabricOf = (leaves: number, spines: number, hosts: number, trunk?: LinkOptions): NetworkTopology => {
  const { switches, ...fabric } = leafSpineTopology(leaves, spines, hosts, {}, trunk)
  return { ...fabric, switches: [], routers: switches! }
}

const networkOf = async (options: NetworkOptions, hosts: readonly string[], addresses: readonly string[] = []) => {
  const network = createNetwork({ clock: 'virtual', seed: 1, ...options })
  const devices: Device[] = []
  for (const [i, host] of hosts.entries())
    devices.push(await open({ network, host, ...(addresses[i] !== undefined && { address: addresses[i] }) }))
  return {
    network,
    devices,
    async close() {
      for (const device of devices) await device.close()
    },
  }
}

/** Connects queue pairs of two devices; `write` writes so many bytes. */
const flowOf = (from: Device, to: Device, bytes: number) => {
  const [near, far] = [from.pd(), to.pd()]
  const [qp, peer] = [near.rcQp(), far.rcQp()]
  const retries = { ackTimeoutExponent: 8, retryCount: 3 }
  qp.connect(peer.endpoint, retries)
  peer.connect(qp.endpoint, retries)
  const source = near.register(new Uint8Array(bytes).fill(7)).slice()
  const buffer = new Uint8Array(bytes)
  const target = far.register(buffer, { remoteWrite: true }).remote()
  return { buffer, write: () => qp.write(source, target) }
}

const routerOf = (network: Network, name: string): RouterStats => {
  const found = network.stats().routers.find(router => router.name === name)
  assert.ok(found, name)
  return found
}

/** By spine: the flows from a device whose packets cross it now. */
const spinesOf = (network: Network, from: Device): string[] =>
  network
    .stats()
    .flows.filter(({ source }) => source === from.address)
    .map(({ paths }) => paths.at(-1)?.through?.[1] ?? 'none')

test('a fabric of 2 spines, 4 leaves and 32 hosts: each host writes to one of another leaf', async () => {
  const links = fabricOf(4, 2, 8)
  const names = links.hosts as readonly string[]
  const { network, devices, close } = await networkOf({ links }, names)
  // a link to a router is a subnet
  assert.deepEqual(
    [devices[0]!.address, devices[1]!.address, devices[31]!.address],
    ['10.77.0.1', '10.77.1.1', '10.77.31.1'],
  )
  const flows = devices.map((device, i) => flowOf(device, devices[(i + 8) % 32]!, 65_536))
  await Promise.all(flows.map(({ write }) => write()))
  assert.ok(flows.every(({ buffer }) => buffer.every(byte => byte === 7)))
  const { routers, flows: told } = network.stats()
  assert.ok(
    routers.every(({ forwarded, isUp, lost }) => forwarded > 0 && isUp && lost.ttl + lost.scope + lost.route === 0),
  )
  // each way of each of the 32 connections is a flow with one path: leaf, spine, leaf
  assert.equal(told.length, 64)
  assert.ok(told.every(({ paths }) => paths.length === 1 && paths[0]!.through?.length === 3))
  const [first] = told.filter(({ from, to }) => from === 'h1' && to === 'h9')
  assert.ok(first!.sourcePort >= 0xc000)
  assert.deepEqual([first!.paths[0]!.through![0], first!.paths[0]!.through![2]], ['s1', 's2'])
  const forward = told.filter(({ from, to }) => names.indexOf(to) === (names.indexOf(from) + 8) % 32)
  const bySpine = ['s5', 's6'].map(spine => forward.filter(({ paths }) => paths[0]!.through![1] === spine).length)
  assert.ok(Math.min(...bySpine) > 5, bySpine.join())
  await close()
})

test('RC over four paths: a path that goes away moves its flows to the others, and no write fails', async () => {
  const { network, devices, close } = await networkOf({ links: fabricOf(2, 4, 1, { delay: '10us' }) }, ['h1', 'h2'])
  const [near, far] = devices as [Device, Device]
  const flows = Array.from({ length: 24 }, () => flowOf(near, far, 16_384))
  const writeAll = async () => void (await Promise.all(flows.map(({ write }) => write())))
  await writeAll()
  const before = spinesOf(network, near)
  assert.deepEqual([...new Set(before)].sort(), ['s3', 's4', 's5', 's6'])
  const writes = writeAll()
  await network.sleep(0.02)
  network.setLink(['s1', 's4'], false)
  await writes
  await writeAll()
  const during = spinesOf(network, near)
  assert.ok(!during.includes('s4'))
  const down = network.stats().links.filter(({ from, to }) => from === 's1' && to === 's4')
  assert.ok(down[0]!.lost.down > 0, JSON.stringify(down))
  network.setLink(['s4', 's1'], true)
  await writeAll()
  assert.deepEqual(spinesOf(network, near), before)
  // a flow of the path has had two: its own and another one
  const moved = network.stats().flows.find(({ paths }) => paths.at(-1)!.through?.includes('s4'))
  assert.equal(moved!.paths.length, 2)
  assert.ok(moved!.paths.every(({ packets }) => packets > 0))
  assert.ok(flows.every(({ buffer }) => buffer.every(byte => byte === 7)))
  await close()
})

test('without any path packets are lost, and arrive again when a router is up again', async () => {
  const { network, devices, close } = await networkOf({ links: fabricOf(2, 1, 1) }, ['h1', 'h2'])
  const [near, far] = devices as [Device, Device]
  const flow = flowOf(near, far, 4096)
  network.setRouter('s3', false)
  assert.equal(routerOf(network, 's3').isUp, false)
  await assert.rejects(flow.write(), /RETRY_EXC/)
  assert.ok(network.stats().flows[0]!.paths.some(({ through }) => through === undefined))
  network.setRouter('s3', true)
  await flowOf(near, far, 4096).write()
  assert.equal(routerOf(network, 's3').isUp, true)
  await close()
})

test('each router takes one from the TTL: 63 are crossed, the 64th loses the packet', async () => {
  const chainOf = (count: number): NetworkTopology => {
    const routers = Array.from({ length: count }, (_, i) => `r${i + 1}`)
    const nodes = ['h1', ...routers, 'h2']
    return {
      hosts: 2,
      routers,
      links: nodes.slice(1).map((node, i) => ({ between: [nodes[i]!, node], delay: '10ns' })),
    }
  }
  const short = await networkOf({ links: chainOf(63) }, ['h1', 'h2'])
  await flowOf(short.devices[0]!, short.devices[1]!, 4096).write()
  await short.close()
  const long = await networkOf({ links: chainOf(64) }, ['h1', 'h2'])
  await assert.rejects(flowOf(long.devices[0]!, long.devices[1]!, 4096).write(), /RETRY_EXC/)
  assert.equal(routerOf(long.network, 'r63').lost.ttl, 0)
  assert.ok(routerOf(long.network, 'r64').lost.ttl > 0)
  await long.close()
})

test('a datagram tells its receiver the TTL that routers have left', async () => {
  const { devices, close } = await networkOf({ links: fabricOf(2, 1, 1) }, ['h1', 'h2'])
  const [near, far] = devices.map(device => device.pd())
  const [sender, receiver] = [near!.udQp({ active: true }), far!.udQp({ active: true })]
  const bytes = new Uint8Array(GRH_BYTES + 8)
  const received = receiver.receive(far!.register(bytes).slice())
  const ah = near!.addressHandle({ gid: receiver.endpoint.gid })
  await sender.send(Uint8Array.of(1), { ah, qpn: receiver.qpn, qkey: receiver.endpoint.qkey })
  await received
  // the IPv4 header is the second half; leaf, spine and leaf
  const IPV4_TTL = 20 + 8
  assert.equal(bytes[IPV4_TTL], 64 - 3)
  await close()
})

test('link-local addresses reach hosts behind switches, and none behind a router', async () => {
  const links: NetworkTopology = {
    hosts: ['a', 'b', 'c'],
    switches: ['tor'],
    routers: ['gateway'],
    links: [
      { between: ['a', 'tor'] },
      { between: ['b', 'tor'] },
      { between: ['tor', 'gateway'] },
      { between: ['gateway', 'c'] },
    ],
  }
  const { network, devices, close } = await networkOf({ links }, ['a', 'b', 'c'], ['fe80::a', 'fe80::b', 'fe80::c'])
  const [a, b, c] = devices as [Device, Device, Device]
  await flowOf(a, b, 4096).write()
  await assert.rejects(flowOf(a, c, 4096).write(), /RETRY_EXC/)
  const { lost, forwarded } = routerOf(network, 'gateway')
  assert.ok(lost.scope > 0 && forwarded === 0, JSON.stringify(lost))
  await close()
})

test('check tells a link-local address over a router, and not one of a peer that does not answer', async () => {
  const links: NetworkTopology = {
    hosts: ['a', 'b', 'c'],
    switches: ['tor'],
    routers: ['gateway'],
    links: ['a', 'b', 'gateway']
      .map((node): NetworkLink => ({ between: [node, 'tor'] }))
      .concat({ between: ['gateway', 'c'] }),
  }
  const findingsTo = async (host: string): Promise<string> => {
    const findings: Finding[] = []
    const check = { onFinding: (finding: Finding) => void findings.push(finding), failOn: 'never' } as const
    const { devices, close } = await networkOf({ links, check }, ['a', host], ['fe80::a', 'fe80::b'])
    const { write } = flowOf(devices[0]!, devices[1]!, 4096)
    if (host === 'b') await devices[1]!.close()
    await assert.rejects(write(), /RETRY_EXC/)
    await close()
    const found = findings.find(({ id }) => id === 'no-answer')
    assert.ok(found, findings.map(({ text }) => text).join('\n'))
    return found.text
  }
  const over = await findingsTo('c')
  assert.match(over, /dgid fe80:.*:b is a link-local address, the router gateway is on the way, .* need GIDs of IP/)
  assert.doesNotMatch(await findingsTo('b'), /link-local|router/)
})

test('check tells a link whose MTU is too small, a TTL that ends, and a path that is gone', async () => {
  const findingOf = async (links: NetworkTopology, prepare: (network: Network) => void = () => {}): Promise<string> => {
    const findings: Finding[] = []
    const check = { onFinding: (finding: Finding) => void findings.push(finding), failOn: 'never' } as const
    const hosts = links.hosts as readonly string[]
    const { network, devices, close } = await networkOf({ links, check }, [hosts[0]!, hosts.at(-1)!])
    prepare(network)
    await assert.rejects(flowOf(devices[0]!, devices[1]!, 4096).write(), /RETRY_EXC/)
    await close()
    return findings.find(({ id }) => id === 'no-answer')?.text ?? ''
  }
  const chainOf = (count: number, mtu?: number): NetworkTopology => {
    const routers = Array.from({ length: count }, (_, i) => `r${i + 1}`)
    const nodes = ['a', ...routers, 'b']
    const links = nodes.slice(1).map((node, i): NetworkLink => {
      const between = [nodes[i]!, node] as const
      return { between, ...(mtu !== undefined && node === 'r2' && { mtu }) }
    })
    return { hosts: ['a', 'b'], routers, links }
  }
  assert.match(
    await findingOf(chainOf(2, 1500)),
    /packets are longer than the MTU of the link from r1 to r2, 1500 bytes of IP, which has lost \d+ of this path/,
  )
  assert.match(await findingOf(chainOf(64)), /the TTL of \d+ packets of this path has ended at the router r64/)
  assert.match(
    await findingOf(chainOf(1), network => network.setRouter('r1', false)),
    /a has no path to 10\.77\.1\.1: \d+ packets were lost there/,
  )
})

test('devices of a subnet get addresses of it; one of another subnet is refused', async () => {
  const links: NetworkTopology = {
    hosts: ['a', 'b', 'c'],
    switches: ['tor'],
    routers: ['gateway'],
    links: [...['a', 'b', 'gateway'].map(node => ({ between: [node, 'tor'] as const })), { between: ['c', 'gateway'] }],
  }
  const network = createNetwork({ clock: 'virtual', links })
  const devices = [await open({ network, host: 'c' }), await open({ network }), await open({ network })]
  assert.deepEqual(
    devices.map(({ address }) => address),
    ['10.77.1.1', '10.77.0.1', '10.77.0.2'],
  )
  await devices[0]!.close()
  await assert.rejects(open({ network, host: 'c', address: '10.77.0.9' }), {
    code: 'EINVAL',
    message:
      /address "10\.77\.0\.9" is in the subnet of host a, and the device is at c .*leave it out \(10\.77\.1\.1\)/,
  })
  const other = await open({ network, host: 'c', address: '192.0.2.1' })
  await flowOf(devices[1]!, other, 4096).write()
  for (const device of [other, ...devices.slice(1)]) await device.close()
})

test('a rule with a router acts on packets that cross it: of four paths only one loses', async () => {
  const fault = 'router=s4,drop=1'
  const { devices, network, close } = await networkOf({ links: fabricOf(2, 4, 1), fault }, ['h1', 'h2'])
  const [near, far] = devices as [Device, Device]
  const flows = Array.from({ length: 16 }, () => flowOf(near, far, 4096))
  const results = await Promise.allSettled(flows.map(({ write }) => write()))
  const failed = results.filter(({ status }) => status === 'rejected').length
  // a WRITE fails if the path of its request or of its acknowledgement has the router
  const { flows: told } = network.stats()
  const crosses = told.map(({ paths }) => paths[0]!.through!.includes('s4'))
  assert.ok(failed > 0 && failed < 16, String(failed))
  assert.ok(failed >= crosses.slice(0, 16).filter(Boolean).length)
  // each flow says what was lost of it at the router
  for (const { paths } of told) {
    const [{ through, packets, lost } = {}] = paths
    const isLossy = through!.includes('s4')
    assert.deepEqual(lost, isLossy ? [{ from: 's4', to: undefined, reason: 'rule', packets }] : [])
  }
  network.setFaults('')
  await flowOf(near, far, 4096).write()
  await close()
})

test('of four paths one has a lossy cable: its flows tell where they lost packets, and a capture which they are', async t => {
  const links = fabricOf(2, 4, 1)
  const lossy = links.links!.map(link =>
    link.between.includes('s1') && link.between.includes('s4') ? { ...link, loss: 0.1 } : link,
  )
  const { devices, network, close } = await networkOf({ links: { ...links, links: lossy } }, ['h1', 'h2'])
  const [near, far] = devices as [Device, Device]
  const file = join(temporaryFolder(t), 'fabric.pcapng')
  const endCapture = network.capture(file)
  const flows = Array.from({ length: 16 }, () => flowOf(near, far, 2 ** 18))
  await Promise.all(flows.map(({ write }) => write()))
  endCapture()
  const { flows: told, links: cables } = network.stats()
  const chance = (from: string, to: string): number =>
    cables.find(link => link.from === from && link.to === to)!.lost.chance
  const lostOn = (from: string, to: string): number =>
    told
      .flatMap(({ paths }) => paths.flatMap(({ lost }) => lost))
      .reduce((sum, one) => sum + (one.from === from && one.to === to ? one.packets : 0), 0)
  assert.ok(chance('s1', 's4') > 10)
  assert.deepEqual([lostOn('s1', 's4'), lostOn('s4', 's1')], [chance('s1', 's4'), chance('s4', 's1')])
  for (const { paths } of told)
    for (const { through, lost } of paths) assert.ok(lost.length === 0 || through!.includes('s4'))
  const lossyPorts = told
    .filter(({ source, paths }) => source === near.address && paths.some(({ lost }) => lost.length > 0))
    .map(({ sourcePort }) => sourcePort)
  const { evidence } = problemsIn(readFileSync(file)).find(({ cause }) => cause === 'lossy-path')!
  const [named, others] = evidence.split('; ')
  assert.match(named!, new RegExp(`^10\\.77\\.0\\.1 → 10\\.77\\.1\\.1: ${lossyPorts.length} of 16 UDP source ports`))
  for (const port of lossyPorts) assert.match(named!, new RegExp(` ${port} \\(QP`))
  assert.match(others!, new RegExp(`^never the other ${16 - lossyPorts.length}: `))
  await close()
})

test('explored runs let routers and links fail: what several paths bear passes, and what does not has its fault', async () => {
  const network = createNetwork({ clock: 'virtual', links: fabricOf(2, 4, 1) })
  const talkFor = (limit: number) => async (own: Network) => {
    const echo = await startEcho(own)
    try {
      await talk(echo, 10, limit)
    } finally {
      await echo.close()
    }
  }
  const kinds = ['outage', 'blackhole'] as const
  assert.equal((await network.explore(talkFor(60_000), { kinds, seeds: 8 })).seeds, 8)
  const error: unknown = await network.explore(talkFor(3), { kinds, seeds: 60 }).catch((reason: unknown) => reason)
  assert.ok(error instanceof ExploreError, String(error))
  for (const fault of error.faults)
    assert.match(
      fault,
      /^nth=\d+,(completion=\*,(router=s[1-6]|cable=s\d:s\d):[\d.]+ms|count=\d+,drop=1,router=s[1-6]),seed=\d+$/,
    )
  assert.ok(error.faults.length > 0)
  const again = createNetwork({
    clock: 'virtual',
    links: fabricOf(2, 4, 1),
    seed: error.seed,
    fault: error.faults.join(';'),
  })
  await assert.rejects(talkFor(3)(again), { code: 'ETIMEDOUT' })
  for (const kind of kinds)
    await assert.rejects(
      createNetwork({ clock: 'virtual' }).explore(() => {}, { kinds: [kind] }),
      {
        code: 'EINVAL',
        message: new RegExp(`kinds has '${kind}', for which the network needs routers`),
      },
    )
})

test('rules take a router or a link down at a completion, for their time', async () => {
  for (const fault of ['completion=WRITE,nth=2,router=s3:2s', 'completion=WRITE,nth=2,cable=s1:s3:2s']) {
    const { network, devices, close } = await networkOf({ links: fabricOf(2, 1, 1), fault }, ['h1', 'h2'])
    const [near, far] = devices as [Device, Device]
    const { write } = flowOf(near, far, 64)
    await write()
    await write()
    await network.sleep(1)
    await assert.rejects(flowOf(near, far, 64).write(), /RETRY_EXC/, fault)
    await network.sleep(2000)
    await flowOf(near, far, 64).write()
    await close()
  }
})

const routed: NetworkTopology = {
  hosts: 2,
  routers: ['r1'],
  links: ['h1', 'h2'].map(host => ({ between: [host, 'r1'] })),
}

for (const [options, message] of [
  [{ fault: 'router=r1,drop=1' }, /there are no routers; they are in links of createNetwork/],
  [{ links: routed, fault: 'router=r2,drop=1' }, /fault router: there is no router "r2"; there are r1/],
  [{ links: routed, fault: 'completion=WRITE,router=r1,status=RETRY_EXC_ERR' }, /router=r1 selects packets/],
  [{ links: routed, fault: 'cable=way:1s' }, /simulated links have several ways/],
  [{ links: routed, fault: 'cable=r1:r9:1s' }, /no link is between switches or routers "r1" and "r9"/],
  [{ links: routed, fault: 'manager=1s' }, /simulated links have no subnet manager/],
  [{ links: { hosts: 2, routers: ['r1'] } }, /links: is missing.*and there are routers/],
  [{ links: { ...routed, routers: ['r1', 'h1'] } }, /two hosts, switches or routers have the name "h1"/],
] as const)
  test(`refused: ${message}`, () => {
    assert.throws(() => createNetwork({ clock: 'virtual', ...options }), { code: 'EINVAL', message })
  })

test('outages of unknown links and routers are refused', () => {
  const network = createNetwork({ clock: 'virtual', links: routed })
  assert.throws(() => network.setLink(['h1', 'r1'], false), /no switch or router "h1".*goes down with its device/)
  assert.throws(() => network.setLink(['r1', 'r1'], false), /there is no link of r1 and r1/)
  assert.throws(() => network.setRouter('r7', false), /there is no router "r7"/)
  assert.throws(() => createNetwork().setRouter('r1', false), /setRouter: "r1": the network has no links/)
})
