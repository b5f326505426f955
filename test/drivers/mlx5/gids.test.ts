/*
 * The GID table of mlx5 devices: RoCE v1 and v2 of each address, in ib_core's order; data on RoCE v1; hop limits.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { getGid, holdGid, releaseGid } from '../../../src/core/devices/gids.ts'
import { addFailureHandler } from '../../../src/core/failures.ts'
import { rocePaths } from '../../../src/drivers/soft/address/path.ts'
import type { SoftState } from '../../../src/drivers/soft/state.ts'
import { causeText } from '../../../src/spec/check/causes.ts'
import type { Failure } from '../../../src/spec/check/failures.ts'
import { AsyncEventType, GidType } from '../../../src/spec/enums.ts'
import { frameOf } from '../../../src/tools/trace/pcapng.ts'
import type { FlowAddress, Port } from '../../../src/transport/phy/port.ts'
import { addTap, forEachPacket } from '../../../src/transport/phy/tap.ts'
import { addressText } from '../../../src/transport/wire/address.ts'
import { crc32 } from '../../../src/transport/wire/crc.ts'
import { completionsOf } from '../machine.ts'
import { ipv4, machine, program, RDMA_WRITE, SEND } from './machine.ts'

const { ROCE_V1, ROCE_V2 } = GidType.values
const V1 = 2
/** Bytes of an Ethernet frame, and of a GRH, with IPv4's TTL. */
const TTL = 14 + 8
const GRH_TTL = 20 + 8
const TOS = 14 + 1

const tableOf = ({ devices: [first] }: ReturnType<typeof machine>): (readonly [string, number] | undefined)[] => {
  const { gids } = first!.device.ports[0]!
  return gids.entries.slice(0, gids.end).map(entry => entry && [addressText(entry.gid), entry.type])
}

describe('the GID table', () => {
  it('has v1 and v2 of the link-local address, then of each address as it came', () => {
    const m = machine(1)
    const link = m.devices[0]!.link!
    const [own, other] = [addressText(ipv4(1)), addressText(ipv4(7))]
    const local = addressText(link.identity.gids[0]!)
    const fixed = [
      [local, ROCE_V1],
      [local, ROCE_V2],
    ]
    const pair = (address: string) => [
      [address, ROCE_V1],
      [address, ROCE_V2],
    ]
    assert.deepEqual(tableOf(m), [...fixed, ...pair(own)])
    assert.equal(link.addAddress(ipv4(7), 'spare'), AsyncEventType.values.GID_CHANGE)
    assert.deepEqual(tableOf(m), [...fixed, ...pair(own), ...pair(other)])
    link.removeAddress(ipv4(1))
    assert.deepEqual(tableOf(m), [...fixed, undefined, undefined, ...pair(other)])
    // one index is in use, as of a queue pair
    const { gids } = m.devices[0]!.device.ports[0]!
    holdGid(gids, 3)
    link.addAddress(ipv4(1), 'own')
    assert.deepEqual(tableOf(m), [...fixed, [own, ROCE_V1], undefined, ...pair(other), [own, ROCE_V2]])
    releaseGid(gids, 3)
    assert.equal(link.removeAddress(link.identity.gids[0]!), undefined)
    assert.equal(getGid(gids, 1).type, ROCE_V2)
  })
})

/** Two devices, and the frames that they send. */
const twoDevices = (options: Parameters<typeof program>[2] = {}) => {
  const frames: Uint8Array[] = []
  const onPort = (port: Port): void => {
    addTap(port, run => {
      if (run.direction !== 'sent') return
      forEachPacket(run, (offset, length, identification) => {
        const payload = run.arena.bytes.slice(offset, offset + length)
        frames.push(frameOf({ flow: run.flow, identification, payload }))
      })
    })
  }
  const m = machine(2, 'drop=0', onPort)
  return { m, frames, programs: [program(m, 0, options), program(m, 1, options)] as const }
}

/** IBA 7.8.1: ones for the LRH, for traffic class, flow label and hop limit, and for byte 4 of the BTH. */
const icrcOf = (frame: Uint8Array): number => {
  const covered = Uint8Array.of(...new Array<number>(8).fill(0xff), ...frame.subarray(14, frame.length - 4))
  covered.set([0x6f, 0xff, 0xff, 0xff], 8)
  covered[8 + 7] = covered[8 + 40 + 4] = 0xff
  return crc32(covered) >>> 0
}

describe('RoCE v1', () => {
  it('is refused where sockets carry UDP, with the index of the same address on v2', () => {
    const { m } = twoDevices()
    const { gids } = m.devices[0]!.device.ports[0]!
    const opened: FlowAddress[] = []
    const paths = rocePaths({ openFlow: (flow: FlowAddress) => opened.push(flow) } as unknown as Port, () => gids)
    const path = (sgidIndex: number) => ({ ...paths.none, dgid: ipv4(2), sgidIndex, port: 1 })
    assert.throws(() => paths.open(path(V1), 'ah.create'), {
      code: 'EOPNOTSUPP',
      message: /GID index 2 is of RoCE v1.*ethertype 0x8915.*GID index 3 has the same address/,
    })
    paths.open(path(3), 'ah.create')
    assert.deepEqual(
      opened.map(({ source, grh }) => [source, grh]),
      [[ipv4(1), undefined]],
    )
  })

  it('carries messages of connected queue pairs, in frames with a GRH and a right ICRC', () => {
    const { m, frames, programs } = twoDevices()
    const [a, b] = programs
    const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
    qa.connect(qb, 1, 7, undefined, V1)
    qb.connect(qa, 0, 7, undefined, V1)
    a.bytes.fill(5, 0, 3000)
    qa.post({ opcode: RDMA_WRITE, data: [a.element(0, 3000)], remote: { address: b.address, rkey: b.region.rkey } })
    completionsOf(m, a, 1)
    assert.deepEqual(b.bytes.subarray(0, 3000), a.bytes.subarray(0, 3000))
    assert.ok(frames.length > 3)
    for (const frame of frames) {
      assert.deepEqual([frame[12], frame[13], frame[14]! >> 4, frame[20]], [0x89, 0x15, 6, 0x1b])
      assert.equal(new DataView(frame.buffer).getUint32(frame.length - 4, true), icrcOf(frame))
    }
  })

  it('gives datagrams a GRH of IPv6 also for addresses of IPv4', () => {
    const { m, programs } = twoDevices()
    const [a, b] = programs
    const [qa, qb] = [a.queuePair('ud'), b.queuePair('ud')]
    qa.activate()
    qb.activate()
    qb.receive(b.element(0, 2048))
    qa.post({ opcode: SEND, data: [a.element(0, 100)], destination: { gid: ipv4(2), gidIndex: V1, qpn: qb.qpn } })
    assert.equal(completionsOf(m, b, 1)[0]!.bytes, 140)
    assert.deepEqual(b.bytes.subarray(8, 40), Uint8Array.of(...ipv4(1), ...ipv4(2)))
    assert.equal(b.bytes[0]! >> 4, 6)
  })

  it('does not reach a queue pair whose path is of RoCE v2, as on adapters', () => {
    const { m, programs } = twoDevices()
    const [a, b] = programs
    const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
    qa.connect(qb, 1, 7, undefined, V1)
    qb.connect(qa, 0)
    qa.post({ opcode: RDMA_WRITE, data: [a.element(0, 8)], remote: { address: b.address, rkey: b.region.rkey } })
    assert.equal(completionsOf(m, a, 1)[0]!.syndrome, 0x15)
  })
})

describe('the hop limit of packets', () => {
  /** A WRITE between queue pairs of the two devices is complete. */
  const write = ({ m, programs: [a, b] }: ReturnType<typeof twoDevices>): void => {
    const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
    qa.connect(qb, 1)
    qb.connect(qa, 0)
    qa.post({ opcode: RDMA_WRITE, data: [a.element(0, 8)], remote: { address: b.address, rkey: b.region.rkey } })
    completionsOf(m, a, 1)
  }

  it("is the route's for connected queue pairs, and as given in the address of a datagram", () => {
    const devices = twoDevices()
    const { m, frames, programs } = devices
    const [a, b] = programs
    write(devices)
    assert.deepEqual(new Set(frames.map(frame => frame[TTL])), new Set([64]))
    const [ua, ub] = [a.queuePair('ud'), b.queuePair('ud')]
    ua.activate()
    ub.activate()
    for (const hopLimit of [0, 1, 255]) {
      frames.length = 0
      ub.receive(b.element(0, 2048))
      const destination = { gid: ipv4(2), qpn: ub.qpn, hopLimit }
      ua.post({ opcode: SEND, data: [a.element(0, 100)], destination })
      completionsOf(m, b, 1)
      assert.deepEqual([frames[0]![TTL], b.bytes[GRH_TTL]], [hopLimit, hopLimit])
    }
  })

  it("is that of the system's route, where the port knows it", () => {
    const devices = twoDevices()
    const { port } = devices.m.devices[0]!.device.state as SoftState
    Object.assign(port, { hopLimitOf: (_: Uint8Array, to: Uint8Array) => (to[15] === 2 ? 7 : undefined) })
    write(devices)
    assert.deepEqual([devices.frames[0]![TTL], devices.frames[1]![TTL]], [7, 64])
  })

  it('is as given for queue pairs of firmware commands', () => {
    const devices = twoDevices({ commands: true })
    write(devices)
    assert.equal(devices.frames[0]![TTL], 5)
  })
})

describe('the traffic class that an administrator has set', () => {
  it('is that of connected queue pairs of verbs, and not of those of firmware commands', () => {
    for (const commands of [false, true]) {
      const { m, frames, programs } = twoDevices({ commands })
      const [a, b] = programs
      m.devices[0]!.device.taps.trafficClass = () => 106
      const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
      qa.connect(qb, 1)
      qb.connect(qa, 0)
      qa.post({ opcode: RDMA_WRITE, data: [a.element(0, 8)], remote: { address: b.address, rkey: b.region.rkey } })
      completionsOf(m, a, 1)
      assert.deepEqual([frames[0]![TOS], frames[1]![TOS]], [commands ? 0 : 106, 0])
    }
  })
})

describe('a VLAN', () => {
  it('has GIDs that name its interface, and reach GIDs of the VLAN only', () => {
    const { m, programs } = twoDevices()
    const failures: Failure[] = []
    const [a, b] = programs
    const [first] = m.devices
    addFailureHandler(first!.device.core, failure => void failures.push(failure))
    m.devices.forEach(({ link }, i) => {
      link!.addAddress(ipv4(101 + i), 'own', { id: 100, name: 'eth.100', index: 9 })
      link!.addAddress(ipv4(201 + i), 'own', { id: 200 + i, name: `eth.${200 + i}`, index: 10 })
    })
    const { entries } = first!.device.ports[0]!.gids
    const named = entries.slice(4, 8).map(entry => [entry?.gid[15], entry?.type, entry?.ifindex, entry?.vlan?.name])
    assert.deepEqual(named, [
      [101, ROCE_V1, 9, 'eth.100'],
      [101, ROCE_V2, 9, 'eth.100'],
      [201, ROCE_V1, 10, 'eth.200'],
      [201, ROCE_V2, 10, 'eth.200'],
    ])
    const write = (base: number, index: number): void => {
      const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
      qa.connect(qb, base + 1, 7, undefined, index)
      qb.connect(qa, base, 7, undefined, index)
      qa.post({ opcode: RDMA_WRITE, data: [a.element(0, 8)], remote: { address: b.address, rkey: b.region.rkey } })
      completionsOf(m, a, 1)
    }
    for (const index of [4, 5]) write(100, index)
    assert.deepEqual(failures, [])
    write(200, 7)
    assert.match(
      failures.map(({ cause }) => causeText(cause)).join(),
      /GID index 7 is of VLAN 200, and the peer's GID index 7 of VLAN 201/,
    )
  })
})

describe('a router on the way', () => {
  const causeOf = (commands: boolean, index: number, hopLimit = 5): string | undefined => {
    const failures: Failure[] = []
    const { m, programs } = twoDevices({ commands })
    const [a, b] = programs
    const { device } = m.devices[0]!
    addFailureHandler(device.core, failure => void failures.push(failure))
    const { port, queues } = device.state as SoftState
    Object.assign(port, { routerTo: () => 'gateway' })
    const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
    qa.connect(qb, 1, 7, undefined, index)
    const state = queues.find(queue => queue?.qpn === qa.qpn)
    if (state?.address !== undefined) state.address = { ...state.address, hopLimit }
    qa.post({ opcode: RDMA_WRITE, data: [a.element(0, 8)], remote: { address: b.address, rkey: b.region.rkey } })
    completionsOf(m, a, 1)
    const failed = failures.find(({ kind }) => kind === 'send')
    return failed && causeText(failed.cause)
  }

  it('is why RoCE v1 has no answer', () => {
    assert.match(
      causeOf(false, V1) ?? '',
      /^GID index 2 is of RoCE v1, the router gateway is on the way to 127\.0\.0\.2/,
    )
    assert.match(causeOf(false, V1 + 1) ?? '', /^no answer/)
  })

  it('ends packets of queue pairs of firmware commands whose hop limit is 0 or 1', () => {
    assert.match(causeOf(true, 3, 1) ?? '', /^hop_limit is 1, and the router gateway is on the way to 127\.0\.0\.2/)
    for (const [commands, hopLimit] of [
      [true, 2],
      [false, 1],
    ] as const)
      assert.match(causeOf(commands, 3, hopLimit) ?? '', /^no answer/)
  })

  it('is a hazard for address handles with a low hop limit, and not for connected queue pairs of verbs', () => {
    const { m, programs } = twoDevices()
    const { device } = m.devices[0]!
    const { routerHazard } = device.driver.requests!
    const path = { dgid: ipv4(2), sgidIndex: 3, hopLimit: 1 }
    assert.deepEqual(routerHazard!(device, undefined, path), { isReplaced: false })
    assert.equal(routerHazard!(device, undefined, { ...path, hopLimit: 2 }), undefined)
    assert.equal(routerHazard!(device, programs[0].queuePair('rc').qpn, path), undefined)
    assert.deepEqual(routerHazard!(device, undefined, { ...path, sgidIndex: V1, hopLimit: 64 }), { isRoceV1: true })
    Object.assign((device.state as SoftState).port, { routerTo: () => 'gateway' })
    const way = 'the router gateway is on the way to 127.0.0.2'
    assert.deepEqual(routerHazard!(device, undefined, path), { isReplaced: false, way })
  })
})
