/*
 * Clients ask subnet administration, join groups, and are told what happens.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { GSI_QKEY } from '../../../src/spec/wire/mad.ts'
import { MadMethod } from '../../../src/spec/wire/management.ts'
import { SaStatus, saRecords, Trap } from '../../../src/spec/wire/subnet.ts'
import { noticeCodecs, type SaRecord } from '../../../src/transport/wire/mad/subnet.ts'
import { SECOND } from '../subnet-engine/lab.ts'
import { fatTree, SaClient } from './managed.ts'

const net = (
  leaves: number,
  spines: number,
  hosts: number,
  pkeysOf?: (guid: bigint) => readonly number[] | undefined,
) => {
  const tree = fatTree(leaves, spines, hosts)
  const { lab, bottoms, adapters, at } = tree
  const managed = lab.manage(at(bottoms[0]!, 0), { ...(pkeysOf && { pkeysOf }) })
  managed.start()
  lab.untilActive()
  lab.run(SECOND)
  return { ...tree, managed, clients: adapters.map(adapter => new SaClient(lab, adapter)) }
}

const gidOf = (client: SaClient): Uint8Array => {
  const gid = new Uint8Array(16)
  const view = new DataView(gid.buffer)
  view.setBigUint64(0, client.at.port.info.gidPrefix)
  view.setBigUint64(8, client.at.port.guids[0]!)
  return gid
}
const hex = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString('hex')
const bytesOf = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'))
const BROADCAST = bytesOf('ff12401bffff000000000000ffffffff')
const lidOf = (client: SaClient) => client.at.port.info.lid

describe('records', () => {
  test('nodes, ports and links are tables of several datagrams', () => {
    const { clients, lab } = net(4, 2, 4)
    const [client] = clients
    const nodes = client!.table('NodeRecord')
    assert.equal(nodes.length, 22)
    const names = nodes.map(({ description }) => Buffer.from(description).toString().replace(/\0+$/, ''))
    assert.ok(['h1', 'h16', 'leaf4', 'spine2'].every(name => names.includes(name)))
    assert.equal(client!.table('NodeRecord', { nodeType: 2 }).length, 6)
    assert.equal(client!.get('NodeRecord', { lid: lidOf(clients[3]!) })?.nodeGuid, clients[3]!.at.node.guid)
    const ports = lab.fabric.nodes.reduce((sum, node) => sum + node.ports.length, 0)
    assert.equal(client!.table('PortInfoRecord').length, ports)
    assert.equal(client!.table('LinkRecord').length, 2 * (16 + 8))
    assert.deepEqual(
      client!.table('SMInfoRecord').map(({ state }) => state),
      [3],
    )
    assert.equal(client!.get('ClassPortInfo')?.classVersion, 2)
  })

  test('tables of switches and ports', () => {
    const { clients, lab } = net(2, 1, 2)
    const [client] = clients
    const switches = lab.fabric.nodes.filter(({ kind }) => kind === 'switch')
    assert.equal(client!.table('SwitchInfoRecord').length, 3)
    for (const { ports, tables } of switches) {
      const { lid } = ports[0]!.info
      const linear = client!.get('LinearForwardingTableRecord', { lid, blockNumber: 0 })
      assert.deepEqual(linear?.ports, [...tables!.linear.subarray(0, 64)])
      const [masks] = client!.table('MulticastForwardingTableRecord', { lid, blockNumber: 0, position: 0 })
      const inTable = [...Array(32).keys()].map(i => tables!.multicast[i * tables!.positions])
      assert.deepEqual(masks?.masks ?? Array(32).fill(0), inTable)
    }
    const { guid } = { guid: client!.at.port.guids[0]! }
    assert.equal(client!.get('GUIDInfoRecord', { lid: lidOf(client!), blockNumber: 0 })?.guids[0], guid)
    assert.equal(client!.ask('P_KeyTableRecord', MadMethod.GET_TABLE, {})?.status, SaStatus.REQUEST_INVALID)
    const trusted = client!.ask(
      'P_KeyTableRecord',
      MadMethod.GET,
      { lid: lidOf(client!), blockNumber: 0 },
      { smKey: 1n },
    )
    assert.equal(trusted?.records[0]?.pkeys[0], 0xffff)
  })

  test('tables of virtual lanes are asked at the ports: now, and without port numbers of adapters', () => {
    const { clients, lab } = net(1, 0, 3)
    const [client, other] = [clients[0]!, clients[2]!]
    const [leaf] = lab.fabric.nodes.filter(({ kind }) => kind === 'switch')
    const { lid } = leaf!.ports[0]!.info
    const lanes = Array.from({ length: 16 }, (_, sl) => sl % 4)
    leaf!.port(2)!.slToVl.set(1, lanes)
    const pair = { lid, inputPort: 1, outputPort: 2 }
    assert.deepEqual(client.get('SLtoVLMappingTableRecord', pair), { ...pair, lanes })
    const all = leaf!.ports.length
    assert.equal(client.table('SLtoVLMappingTableRecord', { lid }).length, all * all)
    assert.equal(client.table('SLtoVLMappingTableRecord', { lid, outputPort: 2 }).length, all)
    const ofAdapter = client.get('SLtoVLMappingTableRecord', { lid: lidOf(other), inputPort: 7, outputPort: 7 })
    assert.deepEqual([ofAdapter?.inputPort, ofAdapter?.outputPort], [0, 0])

    const entries = Array.from({ length: 32 }, (_, i) => i)
    other.at.port.vlArbitration[2] = entries
    const block = { lid: lidOf(other), outputPort: 0, blockNumber: 3 }
    assert.deepEqual(client.get('VLArbitrationTableRecord', block), { ...block, outputPort: 1, entries })
    assert.equal(client.table('VLArbitrationTableRecord', { lid }).length, 4 * all)
    const missing = client.ask('VLArbitrationTableRecord', MadMethod.GET, { lid, outputPort: 99, blockNumber: 1 })
    assert.equal(missing?.status, SaStatus.NO_RECORDS)
  })

  test('a port that does not answer has no tables', () => {
    const { clients, lab } = net(1, 0, 2)
    const [client, other] = [clients[0]!, clients[1]!]
    lab.fabric.setPlugged(lab.fabric.linkOf(other.at.port)!, false)
    const answer = client.ask('SLtoVLMappingTableRecord', MadMethod.GET, { lid: lidOf(other) })
    assert.equal(answer?.status, SaStatus.NO_RECORDS)
  })

  test('a Get has one record', () => {
    const { clients } = net(1, 0, 2)
    const [client] = clients
    assert.equal(client!.ask('NodeRecord', MadMethod.GET, {})?.status, SaStatus.TOO_MANY_RECORDS)
    assert.equal(client!.ask('NodeRecord', MadMethod.GET, { lid: 77 })?.status, SaStatus.NO_RECORDS)
    assert.equal(client!.ask('NodeRecord', MadMethod.SET, {})?.status, 0xc)
  })
})

describe('paths', () => {
  test('by GIDs and by LIDs', () => {
    const { clients } = net(2, 1, 2)
    const [a, b] = [clients[0]!, clients[3]!]
    const path = a.get('PathRecord', { sgid: gidOf(a), dgid: gidOf(b), reversible: true, numbPath: 1, pkey: 0xffff })!
    assert.deepEqual([path.slid, path.dlid, path.pkey, path.hopLimit], [lidOf(a), lidOf(b), 0xffff, 0])
    // MTU 4096, 100 Gb/s, about a second.
    assert.deepEqual([path.mtu, path.rate, path.packetLifeTime, path.reversible], [5, 16, 18, true])
    const byLid = a.get('PathRecord', { slid: lidOf(a), dlid: lidOf(b), numbPath: 1 })
    assert.deepEqual(byLid, path)
    assert.equal(a.table('PathRecord', { sgid: gidOf(a) }).length, 7)
    assert.equal(a.table('PathRecord').length, 49)
    assert.equal(
      a.ask('PathRecord', MadMethod.GET, { sgid: gidOf(a), dgid: new Uint8Array(16) })?.status,
      SaStatus.NO_RECORDS,
    )
  })

  test('MTU and rate by selectors', () => {
    const { clients } = net(1, 0, 2)
    const [a, b] = [clients[0]!, clients[1]!]
    const ask = (fields: Partial<SaRecord<'PathRecord'>>) =>
      a.get('PathRecord', { slid: lidOf(a), dlid: lidOf(b), ...fields })
    assert.equal(ask({ mtuSelector: 2, mtu: 3 })?.mtu, 3)
    assert.equal(ask({ mtuSelector: 1, mtu: 4 })?.mtu, 3)
    assert.equal(ask({ mtuSelector: 0, mtu: 4 })?.mtu, 5)
    assert.equal(ask({ mtuSelector: 0, mtu: 5 }), undefined)
    assert.equal(ask({ rateSelector: 2, rate: 3 })?.rate, 3)
    assert.equal(ask({ rateSelector: 0, rate: 16 }), undefined)
    // 56 Gb/s has a lower code than 100 Gb/s, and 400 a higher one.
    assert.equal(ask({ rateSelector: 0, rate: 12 })?.rate, 16)
    assert.equal(ask({ rateSelector: 0, rate: 21 }), undefined)
  })

  test('only within a partition, and not between two limited members', () => {
    const keys = new Map<bigint, readonly number[]>()
    const { clients, managed, lab } = net(1, 0, 3, guid => keys.get(guid))
    const [a, b, c] = clients as [SaClient, SaClient, SaClient]
    const guid = ({ at }: SaClient) => at.port.guids[0]!
    keys.set(guid(a), [0x7fff, 0x8001]).set(guid(b), [0x7fff, 0x0001]).set(guid(c), [0xffff])
    managed.manager.resweep(lab.now)
    lab.run(SECOND)
    const pkeyOf = (from: SaClient, to: SaClient, more = {}) =>
      from.get('PathRecord', { slid: lidOf(from), dlid: lidOf(to), ...more })?.pkey
    assert.deepEqual([pkeyOf(a, b), pkeyOf(b, a), pkeyOf(a, c), pkeyOf(c, a)], [0x8001, 1, 0x7fff, 0xffff])
    assert.equal(pkeyOf(a, b, { pkey: 0xffff }), undefined)
    assert.equal(pkeyOf(a, b, { pkey: 0x8001 }), 0x8001)
  })
})

describe('multicast', () => {
  const join = (client: SaClient, mgid: Uint8Array, more: Partial<SaRecord<'MCMemberRecord'>> = {}) =>
    client.set('MCMemberRecord', { mgid, portGid: gidOf(client), joinState: 1, ...more })
  const creating = { qkey: 0x1234, pkey: 0xffff, sl: 0, flowLabel: 0, trafficClass: 0 }

  test('the broadcast group of IP over InfiniBand exists', () => {
    const { clients, lab } = net(2, 1, 2)
    const groups = clients[0]!.table('MCMemberRecord')
    assert.deepEqual(
      groups.map(({ mgid, mlid, qkey, mtu, rate }) => [hex(mgid), mlid, qkey, mtu, rate]),
      [[hex(BROADCAST), 0xc000, 0x0b1b, 4, 3]],
    )
    for (const client of clients) assert.equal(join(client, BROADCAST)?.records[0]?.mlid, 0xc000)
    lab.run()
    const reached = lab.fabric.reached(clients[0]!.at, 0xc000).map(({ port }) => port)
    assert.deepEqual(new Set(reached), new Set(clients.slice(1).map(({ at }) => at.port)))
    const path = clients[0]!.get('PathRecord', { sgid: gidOf(clients[0]!), dgid: BROADCAST, numbPath: 1 })
    assert.deepEqual([path?.dlid, path?.mtu, path?.pkey], [0xc000, 4, 0xffff])
  })

  test('a group is created, joined and left', () => {
    const { clients, lab } = net(3, 2, 2)
    const [a, b, c] = [clients[0]!, clients[2]!, clients[5]!]
    const mgid = bytesOf('ff12401bffff00000000000000000107')
    assert.equal(join(a, mgid)?.status, SaStatus.REQUEST_INVALID)
    const made = join(a, mgid, creating)!.records[0]!
    assert.deepEqual([made.mlid, made.mtu, made.rate, made.joinState, made.scope], [0xc001, 5, 16, 1, 2])
    for (const client of [b, c]) assert.equal(join(client, mgid)?.records[0]?.mlid, 0xc001)
    assert.equal(join(b, mgid, { joinState: 4 })?.records[0]?.joinState, 5)
    assert.equal(join(b, mgid, { qkey: 5 })?.status, SaStatus.REQUEST_INVALID)
    // Another port of the partition may be joined by proxy; who has joined itself leaves itself.
    const ofB = { mgid, portGid: gidOf(b), joinState: 1 }
    assert.equal(a.set('MCMemberRecord', ofB)?.status, 0)
    assert.equal(a.remove('MCMemberRecord', ofB)?.status, SaStatus.REQUEST_INVALID)
    lab.run()
    const reachedBy = (client: SaClient) => lab.fabric.reached(client.at, 0xc001).map(({ port }) => port)
    assert.deepEqual(new Set(reachedBy(a)), new Set([b.at.port, c.at.port]))
    assert.equal(a.table('MCMemberRecord', { mgid }, 1n).length, 3)
    assert.equal(a.table('MCMemberRecord', { mgid }).length, 1)
    const leave = (client: SaClient, joinState = 1) =>
      client.remove('MCMemberRecord', { mgid, portGid: gidOf(client), joinState })?.status
    assert.equal(leave(c), 0)
    assert.equal(leave(c), SaStatus.REQUEST_INVALID)
    lab.run()
    assert.deepEqual(reachedBy(a), [b.at.port])
    assert.deepEqual([leave(a), leave(b)], [0, 0])
    assert.equal(a.get('MCMemberRecord', { mgid }), undefined)
    lab.run()
    assert.deepEqual(reachedBy(a), [])
  })

  test('a manager names a group that has no name', () => {
    const { clients } = net(1, 0, 1)
    const [first, second] = [0, 1].map(() => join(clients[0]!, new Uint8Array(16), creating)?.records[0])
    assert.match(hex(first?.mgid)!, /^ff12a01b/)
    assert.notEqual(hex(first?.mgid), hex(second?.mgid))
  })

  test('a host that has gone is in no group', () => {
    const { clients, lab } = net(1, 0, 2)
    const [a, b] = clients as [SaClient, SaClient]
    for (const client of [a, b]) join(client, BROADCAST)
    lab.fabric.setPlugged(lab.fabric.linkOf(b.at.port)!, false)
    lab.run(2 * SECOND)
    assert.deepEqual(
      a.table('MCMemberRecord', {}, 1n).map(({ portGid }) => hex(portGid)),
      [hex(gidOf(a))],
    )
  })

  test('10,000 joins', () => {
    const { clients, lab } = net(4, 2, 4)
    for (let group = 0; group < 625; group++) {
      const mgid = bytesOf(`ff12401bffff0000000000000001${group.toString(16).padStart(4, '0')}`)
      for (const client of clients) assert.equal(join(client, mgid, creating)?.status, 0)
    }
    lab.run(SECOND)
    assert.equal(clients[0]!.table('MCMemberRecord', {}, 1n).length, 10_001)
    assert.equal(lab.fabric.reached(clients[0]!.at, 0xc000 + 625).length, 15)
  })
})

test('a service is registered until its lease ends', () => {
  const { clients, lab } = net(1, 0, 2)
  const [a, b] = clients as [SaClient, SaClient]
  const service = { serviceId: 0x77n, gid: gidOf(a), pkey: 0xffff, lease: 30, name: new TextEncoder().encode('store') }
  assert.equal(a.set('ServiceRecord', service)?.status, 0)
  const found = () => b.table('ServiceRecord', { serviceId: 0x77n }).map(({ gid }) => hex(gid))
  assert.deepEqual(found(), [hex(gidOf(a))])
  lab.run(31 * SECOND)
  assert.deepEqual(found(), [])
  a.set('ServiceRecord', { ...service, lease: 0xffff_ffff })
  lab.run(100 * SECOND)
  assert.equal(found().length, 1)
  assert.equal(a.remove('ServiceRecord', service)?.status, 0)
  assert.deepEqual(found(), [])
})

test('subscribers are told of ports that come and go, and of groups', () => {
  const { clients, lab } = net(1, 0, 3)
  const [a, b] = clients as [SaClient, SaClient, SaClient]
  const inform = {
    lidBegin: 0xffff,
    isGeneric: 1,
    subscribe: 1,
    type: 0xffff,
    trapNumber: 0xffff,
    qpn: 1,
    producerType: 0xffffff,
  }
  assert.equal(a.set('InformInfo', inform)?.status, 0)
  assert.equal(a.table('InformInfoRecord').length, 1)
  const told = () =>
    a.reports
      .splice(0)
      .map(({ trapNumber, data }) => [
        trapNumber,
        trapNumber < 128 ? hex(noticeCodecs[Trap.GID_IN].parse(data).gid) : '',
      ])
  const link = lab.fabric.linkOf(b.at.port)!
  lab.fabric.setPlugged(link, false)
  lab.run(SECOND)
  assert.deepEqual(told(), [
    [Trap.LINK_STATE, ''],
    [Trap.GID_OUT, hex(gidOf(b))],
  ])
  lab.fabric.setPlugged(link, true)
  lab.run(SECOND)
  assert.deepEqual(told(), [
    [Trap.LINK_STATE, ''],
    [Trap.GID_IN, hex(gidOf(b))],
  ])
  const mgid = bytesOf('ff12401bffff00000000000000000107')
  const member = { mgid, portGid: gidOf(b), joinState: 1 }
  b.set('MCMemberRecord', { ...member, qkey: 1, pkey: 0xffff, sl: 0, flowLabel: 0, trafficClass: 0 })
  b.remove('MCMemberRecord', member)
  lab.run()
  assert.deepEqual(told(), [
    [Trap.GROUP_CREATED, hex(mgid)],
    [Trap.GROUP_DELETED, hex(mgid)],
  ])
  assert.equal(a.set('InformInfo', { ...inform, subscribe: 0 })?.status, 0)
  lab.fabric.setPlugged(link, false)
  lab.run(SECOND)
  assert.deepEqual(told(), [])
})

test('datagrams with any bytes do no harm', () => {
  const { clients, lab, managed } = net(1, 0, 2)
  const [a] = clients
  const header = {
    slid: lidOf(a!),
    dlid: a!.at.port.info.smLid,
    sl: 0,
    sourceQp: 1,
    destQp: 1,
    pkey: 0xffff,
    qkey: GSI_QKEY,
    hops: 0,
  }
  const datagram = fc.record({
    mad: fc.uint8Array({ minLength: 256, maxLength: 256 }),
    method: fc.constantFrom(1, 2, 3, 6, 0x12, 0x13, 0x14, 0x15, 0x81, 0x86, 0x92, 0x95),
    attribute: fc.constantFrom(...Object.values(saRecords).map(({ id }) => id), 0x77),
    rmpp: fc.constantFrom([0, 0, 0], [1, 1, 7], [1, 2, 1], [1, 3, 1], [1, 4, 1]),
    isZero: fc.boolean(),
  })
  fc.assert(
    fc.property(datagram, ({ mad, method, attribute, rmpp, isZero }) => {
      if (isZero) mad.fill(0)
      mad.set([1, 3, 2, method, 0, 0])
      mad.set([0, attribute], 16)
      mad.set(rmpp, 24)
      lab.fabric.send(a!.at, { ...header, mad }, lab.now)
      lab.run(SECOND / 100)
    }),
    { numRuns: 500 },
  )
  lab.run(60 * SECOND)
  assert.ok(managed.manager.isSettled)
  assert.equal(a!.table('NodeRecord').length, 3)
})
