/*
 * A subnet manager brings fabrics up, and keeps them so.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { MadClass, MadMethod } from '../../../src/spec/wire/management.ts'
import { PortState, SMI_QPN, SmState, smAttributes } from '../../../src/spec/wire/subnet.ts'
import { smCodecs, smpCodec } from '../../../src/transport/wire/mad/subnet.ts'
import { SECOND } from '../subnet-engine/lab.ts'
import { fatTree, ManagedLab } from './managed.ts'

const managedTree = (leaves: number, spines: number, hosts: number) => {
  const net = fatTree(leaves, spines, hosts)
  const { lab, bottoms, at } = net
  const managed = lab.manage(at(bottoms[0]!, 0))
  managed.start()
  return { ...net, managed, time: lab.untilActive() }
}

const isUnreached = (lab: ManagedLab, hosts: ReturnType<typeof fatTree>['adapters']) =>
  hosts.flatMap((from, i) => hosts.flatMap((to, j) => (i === j || lab.reaches(from, to) ? [] : [`${i} to ${j}`])))

describe('a fabric comes up', () => {
  test('one adapter without a link', () => {
    const lab = new ManagedLab()
    const host = lab.addAdapter('host')
    lab.manage(host).start()
    lab.run(SECOND)
    assert.equal(host.port.info.portState, PortState.DOWN)
  })

  test('two adapters without a switch', () => {
    const lab = new ManagedLab()
    const [a, b] = [lab.addAdapter('a'), lab.addAdapter('b')]
    lab.connect(a, b)
    lab.manage(a).start()
    lab.untilActive()
    assert.ok(lab.reaches(a, b) && lab.reaches(b, a))
  })

  test('a switch with a manager in it', () => {
    const { adapters, lab, bottoms } = managedTree(1, 0, 3)
    assert.deepEqual(isUnreached(lab, adapters), [])
    const lids = [...adapters.map(({ port }) => port), bottoms[0]!.ports[0]!].map(({ info }) => info.lid)
    assert.equal(new Set(lids).size, 4)
    for (const { port } of adapters) {
      assert.equal(port.info.smLid, bottoms[0]!.ports[0]!.info.lid)
      assert.deepEqual(port.pkeys.slice(0, 2), [0xffff, 0])
    }
  })

  test('64 hosts and 12 switches, each host with a way to each other one', () => {
    const { adapters, bottoms, lab, managed, time } = managedTree(8, 4, 8)
    assert.equal(adapters.length, 64)
    assert.deepEqual(isUnreached(lab, adapters), [])
    assert.ok(time < SECOND, `${time} µs`)
    assert.ok(managed.sent < 3000, `${managed.sent} datagrams`)
    // Shortest paths are spread over the spines.
    const { linear } = bottoms[1]!.tables!
    const used = new Set(adapters.slice(16).map(({ port }) => linear[port.info.lid]))
    assert.ok(used.size >= 4)
  })

  test('a ring of switches', () => {
    const lab = new ManagedLab()
    const ring = Array.from({ length: 7 }, (_, i) => lab.addSwitch(`s${i}`, 3))
    const hosts = ring.map((node, i) => {
      const host = lab.addAdapter(`h${i}`)
      lab.connect(host, { node, port: node.port(3)! })
      return host
    })
    for (const [i, node] of ring.entries()) {
      const next = ring[(i + 1) % ring.length]!
      lab.connect({ node, port: node.port(1)! }, { node: next, port: next.port(2)! })
    }
    lab.manage(hosts[0]!).start()
    lab.untilActive()
    assert.deepEqual(isUnreached(lab, hosts), [])
  })

  test('partition keys of ports stay, and all are in the default partition', () => {
    const lab = new ManagedLab()
    const node = lab.addSwitch('s', 2)
    const [a, b] = [lab.addAdapter('a', { pkeys: [0x8001] }), lab.addAdapter('b', { pkeys: [0x7fff, 0x0001] })]
    for (const [i, host] of [a, b].entries()) lab.connect(host, { node, port: node.port(i + 1)! })
    lab.manage({ node, port: node.ports[0]! }).start()
    lab.untilActive()
    assert.deepEqual(a.port.pkeys.slice(0, 3), [0xffff, 0x8001, 0])
    assert.deepEqual(b.port.pkeys.slice(0, 3), [0x7fff, 1, 0])
  })

  test('a settled manager sends little', () => {
    const { lab, managed } = managedTree(2, 2, 2)
    lab.run(5 * SECOND)
    const before = managed.sent
    lab.run(60 * SECOND)
    // Each of four switches is asked every 10 s.
    assert.ok(managed.sent - before <= 28, `${managed.sent - before}`)
  })
})

describe('changes', () => {
  test('a link fails, and the manager finds other ways', () => {
    const { lab, adapters, bottoms, at } = managedTree(4, 2, 2)
    lab.run(SECOND)
    const link = lab.fabric.linkOf(at(bottoms[1]!, 3).port)!
    lab.fabric.setPlugged(link, false)
    assert.notDeepEqual(isUnreached(lab, adapters), [])
    lab.run(SECOND)
    assert.deepEqual(isUnreached(lab, adapters), [])
    lab.fabric.setPlugged(link, true)
    lab.run(SECOND)
    assert.ok(lab.areActive())
    assert.deepEqual(isUnreached(lab, adapters), [])
  })

  test('a host comes later, and another one goes and keeps its LID', () => {
    const { lab, adapters, bottoms, at } = managedTree(1, 0, 4)
    const [first] = adapters
    const link = lab.fabric.linkOf(first!.port)!
    const { lid } = first!.port.info
    lab.fabric.setPlugged(link, false)
    lab.run(SECOND)
    const late = lab.addAdapter('late')
    lab.fabric.disconnect(link)
    lab.connect(late, at(bottoms[0]!, 1))
    lab.run(SECOND)
    assert.ok(lab.areActive() && lab.reaches(adapters[1]!, late))
    assert.notEqual(late.port.info.lid, lid)
  })

  test('a datagram that is lost is sent again', () => {
    const lab = new ManagedLab()
    const node = lab.addSwitch('s', 2)
    const hosts = [lab.addAdapter('a'), lab.addAdapter('b')]
    let count = 0
    for (const [i, host] of hosts.entries())
      lab.fabric.connect(host, { node, port: node.port(i + 1)! }, { delay: 10, loses: () => ++count % 4 === 0 })
    lab.manage({ node, port: node.ports[0]! }).start()
    lab.untilActive()
    assert.ok(lab.fabric.lost > 0)
  })
})

describe('several managers', () => {
  const twoManagers = (settings: readonly [object, object]) => {
    const net = fatTree(2, 1, 2)
    const managers = [0, 3].map((index, i) => net.lab.manage(net.adapters[index]!, settings[i]))
    for (const managed of managers) managed.start()
    net.lab.untilActive()
    net.lab.run(30 * SECOND)
    return { ...net, managers, states: () => managers.map(({ manager }) => manager.state) }
  }

  test('the one with the higher priority is the master', () => {
    assert.deepEqual(twoManagers([{ priority: 3 }, { priority: 5 }]).states(), ['standby', 'master'])
    assert.deepEqual(twoManagers([{ priority: 5 }, { priority: 3 }]).states(), ['master', 'standby'])
    // Of equal ones, that with the lower GUID.
    assert.deepEqual(twoManagers([{}, {}]).states(), ['master', 'standby'])
  })

  test('the master is killed, and the other takes over', () => {
    const { lab, managers, adapters } = twoManagers([{ priority: 5 }, { priority: 3 }])
    const [master, standby] = managers
    const lids = adapters.map(({ port }) => port.info.lid)
    master!.kill()
    lab.run(30 * SECOND)
    assert.equal(standby!.manager.state, 'master')
    assert.deepEqual(
      adapters.map(({ port }) => [port.info.lid, port.info.smLid]),
      lids.map(lid => [lid, standby!.at.port.info.lid]),
    )
    assert.ok(lab.areActive())
  })

  test('one that yields gives the subnet to any other, and takes it again when that is gone', () => {
    const net = fatTree(1, 0, 2)
    const { lab, bottoms, adapters, at } = net
    const embedded = lab.manage(at(bottoms[0]!, 0), { yields: true })
    embedded.start()
    lab.untilActive()
    const other = lab.manage(adapters[1]!)
    other.start()
    lab.run(30 * SECOND)
    assert.deepEqual([embedded.manager.state, other.manager.state], ['standby', 'master'])
    assert.equal(adapters[0]!.port.info.smLid, adapters[1]!.port.info.lid)
    other.kill()
    lab.run(30 * SECOND)
    assert.equal(embedded.manager.state, 'master')
    assert.equal(adapters[0]!.port.info.smLid, bottoms[0]!.ports[0]!.info.lid)
  })
})

describe('forged datagrams', () => {
  const packetTo = (dlid: number, mad: Uint8Array) => ({
    slid: 2,
    dlid,
    sl: 0,
    sourceQp: SMI_QPN,
    destQp: SMI_QPN,
    pkey: 0,
    qkey: 0,
    mad,
    hops: 0,
  })

  test('answers that nobody asked for change nothing', () => {
    const { lab, adapters, managed } = managedTree(1, 0, 3)
    const lids = adapters.map(({ port }) => port.info.lid)
    const data = new Uint8Array(64)
    smCodecs.PortInfo.emit({ lid: 99, portState: PortState.ACTIVE }, data)
    for (let tid = 0n; tid < 5000n; tid++) {
      const mad = smpCodec.emit({
        baseVersion: 1,
        mgmtClass: MadClass.SUBNET_DIRECTED_ROUTE,
        classVersion: 1,
        method: MadMethod.GET | MadMethod.RESPONSE,
        tid,
        attribute: smAttributes.PortInfo.id,
        data,
      })
      managed.manager.onPacket(packetTo(managed.at.port.info.lid, mad), lab.now)
    }
    lab.run(30 * SECOND)
    assert.deepEqual(
      adapters.map(({ port }) => port.info.lid),
      lids,
    )
    assert.ok(managed.manager.isMaster && lab.areActive())
  })

  test('a master hears no order of another manager', () => {
    const { lab, managed } = managedTree(1, 0, 2)
    for (const modifier of [1, 2, 3, 4, 5, 77]) {
      const data = new Uint8Array(64)
      smCodecs.SMInfo.emit({ guid: 1n, priority: 15, state: SmState.MASTER }, data)
      const mad = smpCodec.emit({
        baseVersion: 1,
        mgmtClass: MadClass.SUBNET_LID_ROUTED,
        classVersion: 1,
        method: MadMethod.SET,
        attribute: smAttributes.SMInfo.id,
        modifier,
        data,
      })
      managed.manager.onPacket(packetTo(managed.at.port.info.lid, mad), lab.now)
    }
    lab.run(SECOND)
    assert.ok(managed.manager.isMaster)
  })
})
