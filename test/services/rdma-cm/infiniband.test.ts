/*
 * rdma_cm on InfiniBand ports under attack: programs that set garbage, that leave in the middle, and many at once; a
 * manager that dies. One host with ports in the embedded subnet, in virtual time.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { identify } from '../../../src/core/devices/identity.ts'
import { createSharedLimits } from '../../../src/daemon/accounts.ts'
import { createRxeDevice, type RxeDevice } from '../../../src/drivers/rxe/device.ts'
import { importSubnet } from '../../../src/services/clients.ts'
import { setOption } from '../../../src/services/rdma-cm/options.ts'
import { pathRecord } from '../../../src/services/rdma-cm/path-record.ts'
import { Family, ipAddress } from '../../../src/services/socket-address.ts'
import type { SocketAddress } from '../../../src/spec/classes/connections/cm_parameters.ts'
import { CmOptionLevel, CmPortSpace, PortState, QpState } from '../../../src/spec/enums.ts'
import { CallError, Errno } from '../../../src/spec/errno.ts'
import { accountIn, OWNER } from '../../core/accounts.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { inLongRun } from '../../long-run.ts'
import { attributesOf, byGid, type Host, ip4, parametersOf, VirtualNetwork } from './hosts.ts'
import { Program } from './program.ts'

const subnetCode = await importSubnet()
const { ACTIVE } = PortState.values
const { TCP, IB } = CmPortSpace.values
const SECOND = 1_000_000

/** Ports 10.0.0.1, 10.0.0.2, … of one host, ACTIVE. */
const infinibandHost = (ports = 2, pkeys?: readonly number[]) => {
  const network = new VirtualNetwork()
  const host = network.host()
  host.clients.subnetCode = subnetCode
  const devices = Array.from({ length: ports }, (_, i): RxeDevice => {
    const name = `rxe${i + 1}`
    const identity = identify(ipv4(10, 0, 0, i + 1), { name: 'lo', index: 1 })
    const options = { name, identity, port: network.link.attach(), now: () => network.now, fabric: { pkeys } }
    const rxe = createRxeDevice(host.core, options)
    host.devices.set(name, rxe)
    host.clients.subnet.attach(rxe.subnetPort!)
    return rxe
  })
  network.settle()
  for (const { device } of devices) assert.equal(device.ports[0].attributes.state, ACTIVE)
  return { network, host, devices }
}

/** An AF_IB address. */
const partition = (gid: Uint8Array, port: number, pkey = 0xffff): SocketAddress => ({
  ...byGid(ipAddress(gid, port)),
  pkey,
})

/** Runs until `time` has passed. */
const pass = (network: VirtualNetwork, time: number): void => {
  const end = network.now + time
  network.settle()
  for (;;) {
    const due = Math.min(
      ...network.hosts.flatMap(({ clients, devices }) => [
        clients.nextTimeout(),
        ...[...devices.values()].map(device => device.nextTimeout()),
      ]),
    )
    if (due > end) break
    network.tick()
  }
  network.now = end
}

describe('path records that a program sets', () => {
  const RECORD_AT = 8
  const optionOf = (record: Uint8Array): Uint8Array => {
    const option = new Uint8Array(72)
    option[0] = 0x2b
    option.set(record, RECORD_AT)
    return option
  }
  it('of any bytes are refused, or end as a lost request; the host goes on', () => {
    const { network, host } = infinibandHost()
    const listener = host.listen(ip4(2, 7471))
    const good = host.create()
    host.resolve(good, ip4(2, 7471))
    network.settle()
    const { record } = pathRecord(good)[0]!
    const byte = fc.record({ at: fc.nat(63), value: fc.nat(255) })
    fc.assert(
      fc.property(fc.array(byte, { maxLength: 6 }), changes => {
        const changed = Uint8Array.from(record)
        for (const { at, value } of changes) changed[at] = value
        const id = host.create()
        host.cm.resolveAddress(id, ip4(2, 7471), undefined)
        network.settle()
        try {
          setOption(host.cm, id, CmOptionLevel.values.IB, 1, optionOf(changed))
          host.cm.connect(id, parametersOf(1))
          network.settle()
          const request = host.requests(listener)[0]
          if (request !== undefined) {
            attributesOf(request, QpState.values.INIT)
            host.cm.accept(request, parametersOf(2))
            network.settle()
            host.cm.destroy(request)
          }
          attributesOf(id, QpState.values.INIT)
        } catch (error) {
          assert.ok(error instanceof CallError, (error as Error).stack)
        }
        host.cm.destroy(id)
        network.settle()
        assert.ok(network.hosts[0]!.clients.nextTimeout() >= network.now)
      }),
      { numRuns: 300 },
    )
    pass(network, 200 * SECOND)
    assert.equal(host.cm.counts.identifiers, 2)
    assert.equal(host.cm.counts.connections, 0)
  })
})

/** A datagram identifier on the first port, and what its joins report. */
const groupMember = (network: VirtualNetwork, host: Host) => {
  const id = host.create(CmPortSpace.values.UDP)
  host.cm.bind(id, ip4(1, 0))
  const outcomes: unknown[] = []
  const join = (address: SocketAddress): (() => void) => {
    const report = (outcome: object | number): void =>
      void outcomes.push(typeof outcome === 'number' ? outcome : 'joined')
    return id.device!.protocol.joinGroup!(id, { address, isSendOnly: false }, report)
  }
  return { id, outcomes, join, groups: () => host.clients.subnet, network }
}

describe('joins', () => {
  it('of many groups, and of as many programs in one group, succeed and leave nothing', () => {
    const count = inLongRun(10_000, 2000)
    const { network, host } = infinibandHost(1)
    const { join, outcomes } = groupMember(network, host)
    const addresses = Array.from({ length: count }, (_, i) => ipAddress(ipv4(239, 1, i >> 8, i & 0xff), 0))
    for (const list of [addresses, addresses.map(() => addresses[0]!)]) {
      const leaves = list.map(join)
      network.settle()
      assert.equal(outcomes.filter(each => each === 'joined').length, count)
      outcomes.length = 0
      for (const leave of leaves) leave()
      network.settle()
    }
    const again = addresses.map(join)
    network.settle()
    assert.equal(outcomes.filter(each => each === 'joined').length, count)
    for (const leave of again) leave()
    network.settle()
    assert.deepEqual(
      outcomes.filter(each => each !== 'joined'),
      [],
    )
  })

  it('of one user leave groups to another, and to the owner', () => {
    const { host } = infinibandHost(1)
    const limits = createSharedLimits()
    const joined = (user: number): number => {
      const program = new Program(host, accountIn(limits, user, user))
      const channel = program.channel()
      const id = program.create(channel, 0n, CmPortSpace.values.UDP)
      program.bind(id, ip4(1, 0))
      let count = 0
      try {
        for (; count < 20_000; count++)
          program.join(id, ipAddress(ipv4(239, user & 0xff, count >> 8, count & 0xff), 0), BigInt(count))
      } catch (error) {
        assert.equal((error as CallError).code, 'ENOMEM')
      }
      return count
    }
    const [first, second, owner] = [1001, 1002, OWNER].map(joined)
    assert.ok(first! < 8000 && second! > 1000 && owner! > 1000, `${first} ${second} ${owner}`)
  })

  it('of addresses that are no groups are refused', () => {
    const { network, host, devices } = infinibandHost()
    const { join, outcomes } = groupMember(network, host)
    const gid = devices[1]!.device.ports[0].gids.entries[0]!.gid
    const addresses = [
      byGid(ipAddress(gid, 0)),
      byGid(ipAddress(Uint8Array.of(0xff, 0xff, ...new Uint8Array(14)), 0)),
      byGid(ipAddress(Uint8Array.of(0xff, 0x12, 0xa0, 0x1b, ...new Uint8Array(12).fill(9)), 0)),
    ]
    for (const address of addresses) join(address)
    network.settle()
    assert.deepEqual(
      outcomes,
      addresses.map(() => -Errno.EINVAL),
    )
  })

  it('that are left before their answer do not stay', () => {
    const { network, host } = infinibandHost(1)
    const { join, outcomes } = groupMember(network, host)
    for (let i = 0; i < 100; i++) join(ipAddress(ipv4(239, 2, 0, i), 0))()
    network.settle()
    assert.deepEqual(outcomes, [])
    join(ipAddress(ipv4(239, 2, 0, 0), 0))
    network.settle()
    assert.deepEqual(outcomes, ['joined'])
  })
})

describe('connections', () => {
  it('200 at once are all established', () => {
    const { network, host } = infinibandHost()
    const listener = host.listen(ip4(2, 7471), { backlog: 1000 })
    const active = Array.from({ length: 200 }, () => host.create())
    for (const id of active) host.resolve(id, ip4(2, 7471))
    network.settle()
    for (const [i, id] of active.entries()) host.cm.connect(id, parametersOf(i + 1))
    network.settle()
    const passive = host.requests(listener)
    assert.equal(passive.length, 200)
    for (const [i, id] of passive.entries()) host.cm.accept(id, parametersOf(1000 + i))
    network.settle()
    for (const id of active) host.cm.accept(id, undefined)
    network.settle()
    for (const id of passive) assert.deepEqual(host.eventNames(id), ['ESTABLISHED'])
    for (const id of [...active, ...passive]) host.cm.destroy(id)
    host.cm.destroy(listener)
    pass(network, 200 * SECOND)
    assert.deepEqual(host.cm.counts, { identifiers: 0, listeners: 0, connections: 0 })
  })

  it('end when the LID of a port changes before the answer, and nothing stays', () => {
    const { network, host, devices } = infinibandHost()
    const listener = host.listen(ip4(2, 7471))
    const id = host.create()
    host.resolve(id, ip4(2, 7471))
    network.settle()
    host.cm.connect(id, parametersOf(1))
    network.settle()
    const [request] = host.requests(listener)
    devices[0]!.subnetPort!.set({ lid: 77 })
    host.cm.accept(request!, parametersOf(2))
    pass(network, 300 * SECOND)
    for (const each of [id, request!, listener]) host.cm.destroy(each)
    pass(network, 300 * SECOND)
    assert.deepEqual(host.cm.counts, { identifiers: 0, listeners: 0, connections: 0 })
  })

  it('to a service id with listeners by AF_INET and by AF_IB get to the latter, which has no header', () => {
    const { network, host, devices } = infinibandHost()
    const [from, to] = devices.map(({ device }) => device.ports[0].gids.entries[0]!.gid)
    const byIp = host.listen(ip4(2, 7471))
    const data = new Uint8Array(56).fill(7)
    const first = host.create()
    host.resolve(first, ip4(2, 7471))
    network.settle()
    host.cm.connect(first, parametersOf(1))
    network.settle()
    assert.equal(host.requests(byIp).length, 1)
    const ofGid = host.create(IB)
    host.cm.bind(ofGid, partition(to!, 7471))
    host.cm.listen(ofGid, 0)
    for (const address of [ip4(2, 7471), partition(to!, 7471)]) {
      const id = host.create(address.family === Family.IB ? IB : TCP)
      if (address.family === Family.IB) host.cm.bind(id, partition(from!, 0))
      host.cm.resolveAddress(id, address, undefined)
      host.cm.resolveRoute(id)
      network.settle()
      host.cm.connect(id, parametersOf(1, data))
      network.settle()
      assert.deepEqual([host.requests(byIp).length, host.requests(ofGid).length], [0, 1])
    }
  })

  it('by AF_IB need the partition of the address, whose P_Key the path and the queue pair have', () => {
    const { network, host, devices } = infinibandHost(2, [0xffff, 0x8001])
    const to = devices[1]!.device.ports[0].gids.entries[0]!.gid
    for (const [pkey, expected] of [
      [0x8002, 'ADDR_ERROR'],
      [0, 'ADDR_ERROR'],
      [0x8001, 'ADDR_RESOLVED'],
    ] as const) {
      const id = host.create(IB)
      host.cm.resolveAddress(id, partition(to, 7471, pkey), undefined)
      assert.deepEqual(host.eventNames(id), [expected])
      if (expected === 'ADDR_ERROR') continue
      host.cm.resolveRoute(id)
      network.settle()
      assert.deepEqual(host.eventNames(id), ['ROUTE_RESOLVED'])
      const { record } = pathRecord(id)[0]!
      assert.equal((record[50]! << 8) | record[51]!, pkey)
      host.cm.connect(id, parametersOf(1))
      assert.equal(attributesOf(id, QpState.values.INIT).pkeyIndex, 1)
    }
    const datagrams = host.create(CmPortSpace.values.UDP)
    host.cm.resolveAddress(datagrams, { ...partition(to, 7471, 0x8001), serviceId: 0x1110000n + 7471n }, undefined)
    assert.equal(attributesOf(datagrams, QpState.values.INIT).pkeyIndex, 1)
  })
})

describe('a manager that dies', () => {
  /** The ports believe that a manager is at a LID of nobody. */
  const killManager = (devices: readonly RxeDevice[]): void => {
    for (const { subnetPort } of devices) subnetPort!.set({ smLid: 99 })
  }
  const nextManager = (devices: readonly RxeDevice[]): void => {
    for (const { subnetPort } of devices) {
      subnetPort!.set({ smLid: 1 })
      subnetPort!.reregister()
    }
  }

  it('during a join: the join goes on with the next manager', () => {
    const { network, host, devices } = infinibandHost()
    const { join, outcomes } = groupMember(network, host)
    const before = join(ipAddress(ipv4(239, 5, 5, 4), 0))
    network.settle()
    // The query is lost: the port believes that its manager is elsewhere, and has not been told of a change.
    devices[0]!.device.ports[0].attributes.smLid = 99
    const leave = join(ipAddress(ipv4(239, 5, 5, 5), 0))
    pass(network, SECOND)
    assert.deepEqual(outcomes, ['joined'])
    nextManager(devices)
    pass(network, SECOND)
    assert.deepEqual(outcomes, ['joined', -102, 'joined'])
    before()
    leave()
    pass(network, 10 * SECOND)
    assert.equal(outcomes.length, 3)
  })

  it('during a query of a route: it fails after its time; a program that leaves ends it at once', () => {
    const { network, host, devices } = infinibandHost()
    killManager(devices)
    const ids = [1000, 0xffff_ffff].map(timeout => {
      const id = host.create()
      host.cm.resolveAddress(id, ip4(2, 7471), undefined)
      host.cm.resolveRoute(id, timeout)
      return id
    })
    pass(network, 2 * SECOND)
    assert.deepEqual(host.eventNames(ids[0]!), ['ADDR_RESOLVED', 'ROUTE_ERROR'])
    host.cm.destroy(ids[1]!)
    pass(network, SECOND)
    assert.ok(network.hosts[0]!.clients.nextTimeout() - network.now < 100 * SECOND, 'nothing is sent for who has left')
  })

  it('during connections: they go on, for they need no manager', () => {
    const { network, host, devices } = infinibandHost()
    const listener = host.listen(ip4(2, 7471))
    const id = host.create()
    host.resolve(id, ip4(2, 7471))
    network.settle()
    killManager(devices)
    host.cm.connect(id, parametersOf(1))
    network.settle()
    const [request] = host.requests(listener)
    host.cm.accept(request!, parametersOf(2))
    network.settle()
    nextManager(devices)
    host.cm.accept(id, undefined)
    network.settle()
    assert.deepEqual(host.eventNames(request!), ['ESTABLISHED'])
  })
})
