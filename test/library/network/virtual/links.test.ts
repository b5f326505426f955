/*
 * Networks with links in virtual time: rates, delays, queues, marks, losses and paths are those of the topology, for
 * real devices; and what is refused.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { exportSession } from '../../../../src/cli/commands/export.ts'
import {
  chainTopology,
  createNetwork,
  type Device,
  type LinkStats,
  leafSpineTopology,
  type Network,
  type NetworkOptions,
  open,
  readTopology,
  starTopology,
} from '../../../../src/library/index.ts'
import type { LocalNetwork } from '../../../../src/library/network/contract.ts'
import type { PacketsEvent } from '../../../../src/spec/session-events.ts'
import { bytesSource, openSession } from '../../../../src/tools/record/reader.ts'
import { fairness } from '../../../../src/tools/sim/statistics.ts'
import { scratchFolder } from '../../../tools.ts'
import { startEcho, talk } from './echo.ts'

/**
 * Bytes of a WRITE that fills one packet of path MTU 4096, of the last packet of a longer one, and of an ACK on a link.
 */
const [ONLY, LAST] = [4096 + 12 + 16 + 4 + 66, 4096 + 12 + 4 + 66]
const ACK = 12 + 4 + 4 + 66
/** µs of the library's look for the completion before it waits. */
const POLL = 1

const networkOf = async (
  options: NetworkOptions,
  count: number,
): Promise<{ network: Network; devices: readonly Device[]; close(): Promise<void> }> => {
  const network = createNetwork({ clock: 'virtual', seed: 1, ...options })
  const devices: Device[] = []
  for (let i = 0; i < count; i++) devices.push(await open({ network }))
  return {
    network,
    devices,
    async close() {
      for (const device of devices) await device.close()
    },
  }
}

/** Connects queue pairs of two devices; `write` writes so many bytes. */
const flowOf = (from: Device, to: Device, bytes: number, flowLabel?: number) => {
  const [near, far] = [from.pd(), to.pd()]
  const [qp, peer] = [near.rcQp(), far.rcQp()]
  qp.connect(peer.endpoint, { ...(flowLabel !== undefined && { flowLabel }) })
  peer.connect(qp.endpoint, { ...(flowLabel !== undefined && { flowLabel }) })
  const source = near.register(new Uint8Array(bytes).fill(7)).slice()
  const buffer = new Uint8Array(bytes)
  const target = far.register(buffer, { remoteWrite: true }).remote()
  return { buffer, write: () => qp.write(source, target) }
}

const linkOf = (network: Network, from: string, to: string): LinkStats => {
  const found = network.stats().links.find(link => link.from === from && link.to === to)
  assert.ok(found, `${from} to ${to}`)
  return found
}

const isNear = (value: number, expected: number): void =>
  assert.ok(Math.abs(value - expected) < 1e-6, `${value} is not ${expected}`)

test('a message takes delays and serialization on each link, and a flow alone reaches the line rate', async () => {
  const links = chainTopology(2, 1, { rate: '10gbit', delay: '1us' }, { rate: '1gbit', delay: '5us' })
  const { network, devices, close } = await networkOf({ links }, 2)
  const { buffer, write } = flowOf(devices[0]!, devices[1]!, 4096)
  const bits = (bytes: number): number => bytes * 8
  // to the switch and from it at 10 bits/ns, between switches at 1 bit/ns; there and back
  const oneWay = (bytes: number): number => 7 + (bits(bytes) / 10e3) * 2 + bits(bytes) / 1e3
  const posted = network.now()
  await write()
  isNear((network.now() - posted) * 1000, POLL + oneWay(ONLY) + oneWay(ACK))
  assert.deepEqual(buffer, new Uint8Array(4096).fill(7))
  const long = flowOf(devices[0]!, devices[1]!, 2 ** 20)
  const start = network.now()
  await long.write()
  const seconds = (network.now() - start) / 1000
  const rate = (256 * bits(LAST)) / seconds
  assert.ok(rate > 0.99e9 && rate < 1e9, `${rate} bits/s`)
  const trunk = linkOf(network, 's1', 's2')
  assert.equal(trunk.packets, 257)
  assert.deepEqual(trunk.lost, { overflow: 0, chance: 0, mtu: 0, down: 0 })
  assert.ok(trunk.utilization > 0.98 && trunk.utilization <= 1, String(trunk.utilization))
  assert.equal(trunk.queue.now, 0)
  await close()
})

/** All other devices write to the first one until `end`, ms; goodput from `from` on, bits/s. */
const incast = async (options: NetworkOptions, senders: number, from: number, end: number) => {
  const { network, devices, close } = await networkOf(options, senders + 1)
  const received = new Array<number>(senders).fill(0)
  const size = 16_384
  const send = async ({ write }: ReturnType<typeof flowOf>, sender: number): Promise<void> => {
    while (network.now() < end) {
      await write()
      if (network.now() >= from && network.now() < end) received[sender]! += size
    }
  }
  const queues: number[] = []
  const watch = async (): Promise<void> => {
    while (network.now() < end) {
      await network.sleep(0.1)
      if (network.now() >= from) queues.push(linkOf(network, 's1', 'h1').queue.now)
    }
  }
  const flows = received.map((_, i) => flowOf(devices[i + 1]!, devices[0]!, size))
  await Promise.all([watch(), ...flows.flatMap((flow, i) => [1, 2, 3, 4].map(() => send(flow, i)))])
  const { devices: counters } = network.stats()
  const bottleneck = linkOf(network, 's1', 'h1')
  await close()
  return {
    goodput: (received.reduce((a, b) => a + b) * 8e3) / (end - from),
    fair: fairness(received),
    queues,
    bottleneck,
    hw: (name: string) => counters[name]!.counters.hw_counters,
  }
}

test('eight senders share a link with DCQCN: near line rate, fair, and the queue between the thresholds', async () => {
  const links = starTopology(9, { rate: '10gbit', mark: '5kb-400kb-100%' })
  const { goodput, fair, queues, bottleneck, hw } = await incast({ links, dcqcn: true }, 8, 15, 27)
  assert.ok(goodput > 9.3e9 && goodput < 9.8e9, `${goodput}`)
  assert.ok(fair > 0.98, `${fair}`)
  const mean = queues.reduce((a, b) => a + b) / queues.length
  assert.ok(mean > 5e3 && mean < 400e3 && Math.max(...queues) < 400e3, `${mean} ${Math.max(...queues)}`)
  assert.deepEqual(bottleneck.lost, { overflow: 0, chance: 0, mtu: 0, down: 0 })
  assert.ok(bottleneck.marked > 500)
  const { np_ecn_marked_roce_packets: marked, np_cnp_sent: sent } = hw('rxe0')
  assert.equal(marked, bottleneck.marked)
  assert.ok(sent > 100 && sent < marked)
  assert.ok(hw('rxe1').rp_cnp_handled > 10)
})

test('without DCQCN nothing is marked, a small queue overflows, and go-back-N sends again', async () => {
  const { bottleneck, hw } = await incast({ links: starTopology(9, { rate: '10gbit', queue: '100kb' }) }, 8, 2, 5)
  assert.equal(bottleneck.marked, 0)
  assert.ok(bottleneck.lost.overflow > 100, String(bottleneck.lost.overflow))
  assert.ok(bottleneck.queue.max <= 100e3)
  assert.ok(hw('rxe1').completer_retry_err > 0)
  assert.ok(hw('rxe0').out_of_seq_request > 0)
})

test('switches spread flows over paths by their source port; a flow keeps its path and its order', async () => {
  const links = leafSpineTopology(2, 4, 2, { rate: '100gbit' }, { rate: '100gbit' })
  const { network, devices, close } = await networkOf({ links }, 4)
  const [near, far] = [devices[0]!, devices[2]!]
  const spines = (): number[] => ['s3', 's4', 's5', 's6'].map(spine => linkOf(network, 's1', spine).packets)
  const paths = new Array<number>(4).fill(0)
  const pathOf = async (flow: ReturnType<typeof flowOf>): Promise<number> => {
    const before = spines()
    await Promise.all([flow.write(), flow.write(), flow.write()])
    const used = spines().map((packets, i) => packets - before[i]!)
    assert.deepEqual(
      used.toSorted((a, b) => a - b),
      [0, 0, 0, 12],
      'a flow has one path',
    )
    return used.indexOf(12)
  }
  for (let i = 0; i < 32; i++) paths[await pathOf(flowOf(near, far, 16_384))]!++
  assert.ok(Math.min(...paths) >= 3, paths.join())
  const labelled = new Set<number>()
  const once = await pathOf(flowOf(near, far, 16_384, 5))
  for (let i = 0; i < 8; i++) {
    assert.equal(await pathOf(flowOf(near, far, 16_384, 5)), once, 'the flow label decides')
    labelled.add(await pathOf(flowOf(near, far, 16_384, 100 + i)))
  }
  assert.ok(labelled.size > 1)
  // nothing arrived out of order
  const { out_of_seq_request, duplicate_request } = far.counters().hw_counters
  assert.deepEqual([out_of_seq_request, duplicate_request], [0, 0])
  await close()
})

test('a link in the middle with a small MTU loses long packets; one at the host lowers the path MTU', async () => {
  const middle = {
    hosts: 2,
    switches: ['a', 'b'],
    links: [{ between: ['h1', 'a'] }, { between: ['a', 'b'], mtu: 1500 }, { between: ['b', 'h2'] }],
  } as const
  const { network, devices, close } = await networkOf({ links: middle }, 2)
  await flowOf(devices[0]!, devices[1]!, 1024).write()
  await assert.rejects(flowOf(devices[0]!, devices[1]!, 4096).write(), /RETRY_EXC/)
  const { lost } = linkOf(network, 'a', 'b')
  assert.ok(lost.mtu > 1 && lost.overflow === 0, JSON.stringify(lost))
  await close()
  const ends = await networkOf({ links: starTopology(2, { mtu: 1500 }) }, 2)
  await flowOf(ends.devices[0]!, ends.devices[1]!, 4096).write()
  assert.deepEqual(linkOf(ends.network, 'h1', 's1').lost, { overflow: 0, chance: 0, mtu: 0, down: 0 })
  await ends.close()
})

test('losses by chance are repaired under messages', async () => {
  const echo = await startEcho({ seed: 4, links: starTopology(2, { rate: '1gbit', loss: '2%' }) })
  await talk(echo, 100)
  const lost = echo.network.stats().links.reduce((sum, link) => sum + link.lost.chance, 0)
  assert.ok(lost > 3, String(lost))
  await echo.end()
})

test('packets that a fault damages at the sender are dropped by their ICRC, and others keep theirs', async () => {
  const { devices, close } = await networkOf({ links: starTopology(2), fault: 'device=rxe0,dir=sent,corrupt=5%' }, 2)
  const { buffer, write } = flowOf(devices[0]!, devices[1]!, 2 ** 19)
  await write()
  assert.ok(buffer.every(byte => byte === 7))
  const { icrcErrors } = devices[1]!.counters().port
  const { corrupted } = devices[0]!.counters().faults
  // bits that the ICRC does not cover may be among the damaged ones
  assert.ok(icrcErrors > 3 && icrcErrors <= corrupted, `${icrcErrors} ${corrupted}`)
  await close()
})

test('a datagram to a group crosses the links to each member', async () => {
  const { network, devices, close } = await networkOf({ links: starTopology(3, { rate: '1gbit', delay: '50us' }) }, 3)
  const stacks = devices.map((device, i) => device.ip({ address: `10.9.0.${i + 1}/24` }))
  const sockets = stacks.map(ip => ip.udp({ port: 7 }))
  for (const socket of sockets) socket.join('239.1.1.1')
  await network.sleep(10)
  const before = network.stats().links.map(({ packets }) => packets)
  sockets[0]!.send(Uint8Array.of(1, 2, 3), { address: '239.1.1.1', port: 7 })
  const start = network.now()
  for (const socket of sockets.slice(1)) {
    const { value } = await socket.arrivals().next()
    assert.deepEqual([...value.payload], [1, 2, 3])
  }
  assert.ok(network.now() - start > 0.1)
  assert.deepEqual(
    network.stats().links.map(({ packets }, i) => packets - before[i]!),
    // h1 sends a packet for each other member
    [2, 0, 0, 1, 0, 1],
  )
  for (const socket of sockets) socket.close()
  for (const ip of stacks) ip.close()
  await close()
})

test('devices take hosts in order or by name, one each, and give them back', async () => {
  const network = createNetwork({ clock: 'virtual', links: { hosts: ['east', 'west'] } })
  const west = await open({ network, host: 'west' })
  const east = await open({ network })
  assert.deepEqual(
    Object.values(network.stats().devices).map(({ host }) => host),
    ['west', 'east'],
  )
  await assert.rejects(open({ network }), { code: 'ENOSPC', message: /each of the 2 hosts has a device/ })
  await assert.rejects(open({ network, host: 'west' }), {
    code: 'EADDRINUSE',
    message: /host "west" has the device rxe0/,
  })
  await assert.rejects(open({ network, host: 'wets' }), {
    code: 'EINVAL',
    message: /no host "wets", did you mean "west"/,
  })
  // packets that are in flight to a closed device do not reach the next one at its host
  const lost = flowOf(east, west, 4096).write()
  const failed = assert.rejects(lost)
  await network.sleep(0.002)
  await west.close()
  const next = await open({ network, host: 'west' })
  await failed
  await flowOf(east, next, 4096).write()
  assert.equal(next.counters().transport.dropped, 0)
  await east.close()
  await next.close()
})

test('a device with a rate of its own is limited, others are not', async () => {
  const network = createNetwork({
    clock: 'virtual',
    links: starTopology(3, { rate: '10gbit', mark: '5kb-400kb-100%' }),
  })
  const target = await open({ network })
  const reacting = await open({ network, dcqcn: '10gbit' })
  const other = await open({ network })
  await Promise.all([reacting, other].map(device => flowOf(device, target, 2 ** 20).write()))
  const cnps = ({ rp_cnp_handled, rp_cnp_ignored }: Record<string, number>) => [rp_cnp_handled! > 0, rp_cnp_ignored]
  assert.deepEqual(cnps(reacting.counters().hw_counters), [true, 0])
  // its packets do not say that it reacts, so none is marked
  assert.deepEqual(cnps(other.counters().hw_counters), [false, 0])
  for (const device of [target, reacting, other]) await device.close()
})

test('an hour of delay, and two networks at once', async () => {
  const slow = await networkOf({ links: starTopology(2, { delay: 3_600_000 }) }, 2)
  const fast = await networkOf({ links: starTopology(2) }, 2)
  const [near, far] = slow.devices
  const [socket, other] = [near!, far!].map((device, i) => device.ip({ address: `10.9.0.${i + 1}/24` }))
  await Promise.all([
    flowOf(fast.devices[0]!, fast.devices[1]!, 100).write(),
    assert.rejects(socket!.ping('10.9.0.2', { timeout: 1000 })),
  ])
  assert.ok(fast.network.now() < 1 && slow.network.now() === 1000)
  for (const ip of [socket!, other!]) ip.close()
  // in flight when the devices close
  await slow.close()
  await fast.close()
})

test('topologies are read from files of `userdma net` and `userdma sim`', async () => {
  const folder = scratchFolder()
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text)
    return join(folder, name)
  }
  const net = file('net.yaml', 'hosts: [a, b]\nlinks:\n  - { between: [a, b], rate: 1gbit, delay: 20us, mtu: 4200 }\n')
  assert.deepEqual(await readTopology(net), {
    hosts: ['a', 'b'],
    switches: [],
    links: [
      { between: ['a', 'b'], rate: 1e9, delay: 0.02, queue: 2e6, mark: '5000b-200000b-0.01', loss: 0, mtu: 4200 },
    ],
  })
  const sim = file(
    'sim.yaml',
    'topology: { star: 3 }\nlink: { rate: 25gbit, mark: none }\ntraffic: { pattern: incast }\n',
  )
  const topology = await readTopology(sim)
  assert.deepEqual(topology, starTopology(3, { rate: 25e9, mark: 'none' }))
  for (const text of ['{"topology": {"star": 3}}', '  topology: { star: 3 }\n', '\ufefftopology: { star: 3 }\n'])
    assert.deepEqual(await readTopology(file('other.yaml', text)), starTopology(3), text)
  const { hosts } = await readTopology(file('net.yaml', 'hosts:\n  topology: {}\n  b: {}\n'))
  assert.deepEqual(hosts, ['topology', 'b'])
  const { network, devices, close } = await networkOf({ links: topology }, 3)
  await flowOf(devices[2]!, devices[0]!, 100).write()
  assert.equal(linkOf(network, 's1', 'h1').packets, 1)
  await close()
  await assert.rejects(readTopology(file('bad.yaml', 'hosts: 0')), {
    code: 'EINVAL',
    message: /bad\.yaml:1:8: hosts "0": give an integer from 1 to 512/,
  })
  await assert.rejects(readTopology(join(folder, 'none.yaml')), { code: 'EINVAL', message: /cannot read the topology/ })
})

const pair = (link: object) => ({
  hosts: 2,
  switches: ['s'],
  links: [{ between: ['h1', 's'], ...link }, { between: ['s', 'h2'] }],
})
for (const [links, message] of [
  [null, /links: null: give a map with hosts, switches, routers, links/],
  [{ hosts: 0 }, /links\.hosts: 0: give an integer from 1 to 1024/],
  [{ hosts: 10_000 }, /links\.hosts: 10000: give an integer from 1 to 1024/],
  [{ hosts: ['a', 'b', 'a'] }, /two hosts, switches or routers have the name "a"/],
  [{ hosts: ['a', 7] }, /links\.hosts\[1\]: 7 is not a name/],
  [{ hosts: 2, switchs: [] }, /links\.switchs: there is no such setting, did you mean "switches"/],
  [{ hosts: 2, links: [] }, /links: there is no path from h1 to h2; hosts do not forward packets/],
  [{ hosts: 3, links: [{ between: ['h1', 'h2'] }, { between: ['h2', 'h3'] }] }, /there is no path from h1 to h3/],
  [pair({ between: ['h1', 'h9'] }), /links\.links\[0\]\.between: there is no host, switch or router "h9"/],
  [pair({ between: ['s', 's'] }), /a link has two different ends, not twice "s"/],
  [pair({ between: 'h1' }), /links\.links\[0\]\.between: "h1": give the names of two hosts, switches or routers/],
  [pair({ rate: 0 }), /links\.links\[0\]\.rate: 0: give a rate from 1mbit to 800gbit/],
  [pair({ rate: Number.NaN }), /rate: NaN: give a rate/],
  [pair({ rate: -1e9 }), /rate: -1000000000: give a rate/],
  [pair({ delay: -1 }), /delay: -1: give a time with a unit \(ns, us, ms, s\), up to 3600s/],
  [pair({ delay: 3_600_001 }), /delay: 3600001: give a time/],
  [pair({ queue: '2kb' }), /queue: 2000 bytes: a packet has up to 4290 bytes, and would never pass/],
  [pair({ loss: 2 }), /loss: 2: give a probability/],
  [pair({ mtu: 100 }), /mtu: 100: give an integer from 352 to 65535/],
  [pair({ mark: '9kb-5kb-1%' }), /mark: "9kb-5kb-1%": give MIN-MAX-PROBABILITY/],
  [{ hosts: 2, links: [7] }, /links\.links\[0\]: 7: give a map with between, rate/],
  [{ hosts: 2, switches: ['s', 't'] }, /links\.links: is missing: hosts are linked to the only switch by default/],
  [{ hosts: 2n }, /links\.hosts: 2n: give an integer/],
  [{ hosts: [2n] }, /links\.hosts\[0\]: 2n is not a name/],
  [pair({ rate: 10_000_000_000n }), /rate: 10000000000n: give a rate/],
  [pair({ delay: Object.create(null) }), /delay: \{\}: give a time/],
  [pair({ between: [1n, 2n] }), /between: there is no host, switch or router 1n; there are h1, h2, s/],
  [pair({ between: [Object.create(null), 's'] }), /between: there is no host, switch or router \{\}; there are/],
  [pair({ between: Object.assign(new Array(2), ['h1']) }), /between: there is no host, switch or router undefined/],
  [{ hosts: 2, links: new Array(1) }, /links\.links\[0\]: undefined: give a map/],
] as const)
  test(`links ${inspect(links)} are refused`, () => {
    assert.throws(() => createNetwork({ clock: 'virtual', links: links as never }), { code: 'EINVAL', message })
  })

test('links without virtual time, hosts without links and bad rates are refused', async () => {
  assert.throws(() => createNetwork({ links: starTopology(2) }), {
    code: 'EINVAL',
    message: /links are for clock 'virtual'/,
  })
  assert.throws(() => starTopology(1.5), { code: 'EINVAL', message: /starTopology: hosts: 1\.5: give an integer/ })
  assert.throws(() => starTopology(2, { rate: 'fast' }), { code: 'EINVAL', message: /link\.rate: "fast": give a rate/ })
  assert.throws(() => createNetwork({ dcqcn: '1kbit' }), {
    code: 'EINVAL',
    message: /dcqcn: "1kbit": give a rate from 1mbit/,
  })
  await assert.rejects(open({ host: 'h1' }), { code: 'EINVAL', message: /host "h1": the network has no links/ })
})

test('a recording and a capture show which packets a switch has marked and lost', async () => {
  const folder = scratchFolder()
  const record = join(folder, 'session.udr')
  const { network, devices, close } = await networkOf(
    {
      links: {
        hosts: 2,
        switches: ['s'],
        links: [
          { between: ['h1', 's'], rate: '100gbit', delay: '1ms' },
          { between: ['s', 'h2'], rate: '1gbit', delay: '1ms', mark: '1kb-2kb-100%', queue: '10kb' },
        ],
      },
      dcqcn: true,
      record,
    },
    2,
  )
  const stop = network.capture(join(folder, 'packets.pcapng'))
  await flowOf(devices[0]!, devices[1]!, 16_384).write()
  stop()
  assert.equal(devices[1]!.counters().port.icrcErrors, 0)
  const { marked, lost } = linkOf(network, 's', 'h2')
  assert.ok(marked > 1 && lost.overflow > 1, `${marked} ${lost.overflow}`)
  await close()
  await (network as LocalNetwork).endRecording?.()
  const packets: PacketsEvent[] = []
  const session = await openSession(bytesSource(readFileSync(record)))
  for await (const event of session.eventsIn()) if (event.kind === 'packets') packets.push(event)
  const capture = readFileSync(join(folder, 'packets.pcapng'), 'latin1')
  for (const [outcome, count] of [
    ['marked', marked],
    ['dropped', lost.overflow],
  ] as const) {
    const found = packets.filter(event => event.direction === 'received' && event.outcome === outcome)
    assert.equal(
      found.reduce((sum, event) => sum + event.count, 0),
      count,
    )
    assert.equal(capture.split(outcome).length - 1, count)
  }
})

/** Frames of a capture, and their comments. */
const framesOf = (path: string): (string | undefined)[] => {
  const bytes = readFileSync(path)
  const comments: (string | undefined)[] = []
  for (let at = 0; at < bytes.length; at += bytes.readUInt32LE(at + 4)) {
    if (bytes.readUInt32LE(at) !== 6) continue
    const option = at + 28 + ((bytes.readUInt32LE(at + 20) + 3) & ~3)
    const end = at + bytes.readUInt32LE(at + 4) - 4
    const hasComment = option + 4 <= end && bytes.readUInt16LE(option) === 1
    const length = hasComment ? bytes.readUInt16LE(option + 2) : 0
    comments.push(hasComment ? bytes.toString('utf8', option + 4, option + 4 + length) : undefined)
  }
  return comments
}

for (const [what, link, bytes] of [
  ['that are lost long after they were sent', { rate: '1gbit', delay: '200ms', loss: 0.1 }, 20_000],
  ['of which thousands are in flight', { rate: '10gbit', delay: '5ms', queue: '500kb' }, 10_000_000],
] as const)
  test(`packets ${what} are one frame of a capture, and of an exported recording`, async () => {
    const folder = scratchFolder()
    const [record, captured, exported] = ['session.udr', 'captured.pcapng', 'exported.pcapng'].map(name =>
      join(folder, name),
    ) as [string, string, string]
    const { network, devices, close } = await networkOf({ links: starTopology(3, link), record }, 3)
    const stop = network.capture(captured)
    const [target, ...senders] = devices as [Device, ...Device[]]
    const options = { ackTimeout: 1000 }
    await Promise.all(
      senders.map(async device => {
        const [pd, far] = [device.pd(), target.pd()]
        const [qp, peer] = [pd.rcQp(), far.rcQp()]
        qp.connect(peer.endpoint, options)
        peer.connect(qp.endpoint, options)
        const region = far.register(new Uint8Array(bytes), { remoteWrite: true })
        await qp.write(pd.register(new Uint8Array(bytes)).slice(), region.remote())
      }),
    )
    const { links } = network.stats()
    await close()
    stop()
    await (network as LocalNetwork).endRecording?.()
    await exportSession(record, { to: 'pcapng', output: exported, maxSize: 2 ** 30 })
    const lost = links.reduce((sum, { lost }) => sum + lost.chance + lost.overflow, 0)
    const sent = links.reduce((sum, { from, packets, lost }) => sum + (from === 's1' ? 0 : packets + lost.chance), 0)
    assert.ok(lost > 2, `${lost}`)
    for (const frames of [framesOf(captured), framesOf(exported)]) {
      assert.equal(frames.length, sent)
      assert.equal(frames.filter(comment => comment === 'dropped').length, lost)
    }
  })

test('a capture says which of two copies of a packet in flight was marked', async () => {
  const path = join(scratchFolder(), 'packets.pcapng')
  const middle = { between: ['s', 'h2'], rate: '1mbit', queue: '9kb', mark: '1kb-2kb-100%' } as const
  const links = { hosts: 2, switches: ['s'], links: [{ between: ['h1', 's'], rate: '100gbit' }, middle] } as const
  const { network, devices, close } = await networkOf({ links, dcqcn: true }, 2)
  const stop = network.capture(path)
  const [near, far] = [devices[0]!.pd(), devices[1]!.pd()]
  const [qp, peer] = [near.rcQp(), far.rcQp()]
  // The two packets take 70 ms: meanwhile the sender sends copies, which the queue has no room for.
  qp.connect(peer.endpoint, { ackTimeout: 10 })
  peer.connect(qp.endpoint)
  const region = far.register(new Uint8Array(8192), { remoteWrite: true })
  await qp.write(near.register(new Uint8Array(8192)).slice(), region.remote())
  await network.sleep(1000)
  const { packets, marked, lost } = linkOf(network, 's', 'h2')
  const sent = packets + lost.overflow + linkOf(network, 'h2', 's').packets
  await close()
  stop()
  const frames = framesOf(path)
  assert.deepEqual(frames.slice(0, 3), [undefined, 'marked', 'dropped'])
  assert.equal(frames.length, sent)
  for (const [outcome, count] of [['marked', marked] as const, ['dropped', lost.overflow] as const])
    assert.equal(frames.filter(comment => comment === outcome).length, count)
})
