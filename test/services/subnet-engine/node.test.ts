/*
 * Agents of nodes and tables of switches, asked by datagrams.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { MadClass, MadMethod } from '../../../src/spec/wire/management.ts'
import { NO_PORT, PhysicalState, PortCapability, PortState, smAttributes, Trap } from '../../../src/spec/wire/subnet.ts'
import {
  noticeCodecs,
  type SmAttribute,
  type SmAttributeName,
  smCodecs,
  smpCodec,
} from '../../../src/transport/wire/mad/subnet.ts'
import { toolRun } from '../../transport/wire/subnet-tools.ts'
import { chainLab, Lab, SECOND } from './lab.ts'

const text = (record: SmAttribute<'NodeDescription'> | undefined) =>
  record && Buffer.from(record.text).toString().replace(/\0+$/, '')

/** What a manager sets at an end port. */
const settings = (lid: number, portState: number) => ({ lid, smLid: 1, gidPrefix: 0xfe80n << 48n, portState })

/** Ports become ACTIVE, with tables. LIDs: 1 the first host, 2 the last one, 10 + i the switches. */
const activeChain = (switches: number) => {
  const net = chainLab(switches)
  const { lab, first, chain } = net
  const pathTo = (i: number) => [1, ...Array<number>(i).fill(2)]
  for (const state of [PortState.ARMED, PortState.ACTIVE]) {
    for (const [i] of chain.entries()) {
      const path = pathTo(i)
      assert.equal(lab.set(first, 'PortInfo', settings(10 + i, state), { path }), 0)
      for (const modifier of [1, 2])
        assert.equal(lab.set(first, 'PortInfo', { portState: state }, { path, modifier }), 0)
    }
    assert.equal(lab.set(first, 'PortInfo', settings(1, state)), 0)
    assert.equal(lab.set(first, 'PortInfo', settings(2, state), { path: pathTo(switches) }), 0)
  }
  for (const [i] of chain.entries()) {
    const ports = Array<number>(64).fill(NO_PORT)
    ports[1] = 1
    ports[2] = 2
    for (const [j] of chain.entries()) ports[10 + j] = j === i ? 0 : j < i ? 1 : 2
    assert.equal(lab.set(first, 'SwitchInfo', { linearFdbTop: 63 }, { path: pathTo(i) }), 0)
    assert.equal(lab.set(first, 'LinearForwardingTable', { ports }, { path: pathTo(i) }), 0)
  }
  return net
}

describe('directed routes', () => {
  test('reach each node of a chain, and return', () => {
    const { lab, first } = chainLab(3)
    const nameAt = (...path: number[]) => text(lab.get(first, 'NodeDescription', { path }))
    assert.deepEqual([nameAt(), nameAt(1), nameAt(1, 2, 2), nameAt(1, 2, 2, 2)], ['first', 's0', 's2', 'last'])
    assert.equal(lab.get(first, 'NodeInfo', { path: [1, 2] })?.localPort, 1)
    // A port without a link, the management port of a switch, another port than the adapter has, behind an adapter.
    for (const path of [[1, 3], [1, 0, 2], [2], [1, 2, 2, 2, 1]]) assert.equal(nameAt(...path), undefined)
  })

  test('may begin at a LID', () => {
    const { lab, first } = activeChain(3)
    const request = lab.smp(MadMethod.GET, smAttributes.NodeDescription.id, { path: [2, 2] })
    request.drSlid = 1
    // From the first switch on, and back to its LID.
    const answer = lab.ask(first, request, 10)
    assert.equal(text(answer && smCodecs.NodeDescription.parse(answer.data)), 's2')
  })

  test('have up to 63 hops, also in loops', () => {
    const { lab, first } = chainLab(62)
    assert.equal(text(lab.get(first, 'NodeDescription', { path: [1, ...Array<number>(62).fill(2)] })), 'last')
    const loop = chainLab(2)
    // Forth and back between the two switches.
    const path = Array.from({ length: 63 }, (_, i) => (i % 2 === 1 ? 2 : 1))
    assert.equal(text(loop.lab.get(loop.first, 'NodeDescription', { path })), 's0')
    const tooLong = loop.lab.smp(MadMethod.GET, smAttributes.NodeInfo.id, { path })
    tooLong.hopCount = 64
    assert.equal(loop.lab.ask(loop.first, tooLong), undefined)
  })

  test('the answer to a tool is that of a simulator, but for what the node is', () => {
    const { sent, received } = toolRun('smpquery nodeinfo -D 0,1')
    const lab = new Lab()
    const node = lab.addSwitch('leafA', 6)
    const host = lab.addAdapter('hostB')
    lab.connect(host, { node, port: node.port(2)! })
    const answer = lab.ask(host, smpCodec.parse(sent[0]!))!
    const { data, tid, ...golden } = smpCodec.parse(received[0]!)
    assert.equal(answer.returnPath[1], 2)
    // The simulator writes no return path, and leaves the pointer.
    assert.deepEqual({ ...answer, data, tid }, { ...golden, data, tid, hopPointer: 0, returnPath: answer.returnPath })
  })
})

describe('attributes', () => {
  test('an agent answers Get, and refuses what it does not have', () => {
    const { lab, first } = chainLab(1)
    const info = lab.get(first, 'NodeInfo', { path: [1] })!
    assert.deepEqual([info.nodeType, info.numPorts, info.localPort], [2, 4, 1])
    assert.equal(lab.get(first, 'SwitchInfo', { path: [1] })?.enhancedPort0, true)
    assert.equal(lab.get(first, 'SwitchInfo'), undefined)
    assert.equal(lab.get(first, 'PortInfo', { path: [1], modifier: 5 }), undefined)
    // The manager knows extended speeds.
    assert.equal(lab.get(first, 'PortInfo', { path: [1], modifier: 0x8000_0001 })?.portState, PortState.INIT)
    assert.deepEqual(lab.get(first, 'P_KeyTable')?.pkeys.slice(0, 2), [0xffff, 0])
    assert.equal(lab.get(first, 'P_KeyTable', { modifier: 4 }), undefined)
    assert.equal(lab.get(first, 'GUIDInfo')?.guids[0], first.port.guids[0])
    const statusOf = (method: number, attribute: number) =>
      lab.ask(first, lab.smp(method, attribute, { path: [1] }))?.status
    assert.equal(statusOf(MadMethod.GET, 0x77), 0xc)
    assert.equal(statusOf(MadMethod.GET, smAttributes.SMInfo.id), 0xc)
    assert.equal(statusOf(MadMethod.SET, smAttributes.NodeInfo.id), 0xc)
  })

  test('tables are what was set', () => {
    const { lab, first } = chainLab(1)
    const setAndGet = <N extends SmAttributeName>(name: N, value: Partial<SmAttribute<N>>, modifier: number): void => {
      assert.equal(lab.set(first, name, value, { path: [1], modifier }), 0, name)
      assert.deepEqual(lab.get(first, name, { path: [1], modifier }), value)
    }
    const list = (length: number) => Array.from({ length }, (_, i) => i % 16)
    setAndGet('LinearForwardingTable', { ports: list(64) }, 3)
    setAndGet('MulticastForwardingTable', { masks: list(32) }, 1)
    setAndGet('SLtoVLMappingTable', { lanes: list(16) }, 0x102)
    setAndGet('VLArbitrationTable', { entries: list(32) }, 0x10002)
    assert.equal(lab.set(first, 'MulticastForwardingTable', { masks: [] }, { path: [1], modifier: 1 << 28 }), 0x1c)
    assert.equal(lab.set(first, 'P_KeyTable', { pkeys: [0xffff, 0x8001] }), 0)
    assert.deepEqual(first.port.pkeys.slice(0, 3), [0xffff, 0x8001, 0])
  })

  test('the states of a port have an order', () => {
    const { lab, first } = chainLab(1)
    const stateSet = (lid: number, state: number) => lab.set(first, 'PortInfo', settings(lid, state))
    assert.equal(lab.get(first, 'PortInfo')?.portState, PortState.INIT)
    assert.equal(stateSet(1, PortState.ACTIVE), 0x1c)
    assert.equal(stateSet(1, PortState.ARMED), 0)
    assert.equal(stateSet(1, PortState.ACTIVE), 0)
    assert.equal(stateSet(0xc000, PortState.NO_CHANGE), 0x1c)
    const { portState, lid } = lab.get(first, 'PortInfo')!
    assert.deepEqual([portState, lid], [PortState.ACTIVE, 1])
  })

  test('a disabled port has no link until it is enabled', () => {
    const { lab, first, at } = chainLab(2)
    const peer = at(1, 1).port.info
    const physical = (physicalState: number) =>
      lab.set(first, 'PortInfo', { portState: PortState.DOWN, physicalState }, { path: [1], modifier: 2 })
    assert.equal(physical(PhysicalState.DISABLED), 0)
    assert.equal(peer.portState, PortState.DOWN)
    assert.equal(lab.get(first, 'NodeInfo', { path: [1, 2] }), undefined)
    assert.equal(lab.get(first, 'SwitchInfo', { path: [1] })?.portStateChange, true)
    assert.equal(physical(PhysicalState.POLLING), 0)
    assert.equal(peer.portState, PortState.INIT)
  })
})

describe('M_Key', () => {
  test('a Set needs it, and its protection hides or refuses it', () => {
    const { lab, first } = chainLab(1)
    const path = [1]
    const protect = (mKeyProtectBits: number, mKey = 0n) =>
      lab.set(first, 'PortInfo', { ...settings(5, 0), mKey: 7n, mKeyProtectBits }, { path, mKey })
    assert.equal(protect(0), 0)
    assert.equal(lab.get(first, 'PortInfo', { path })?.mKey, 7n)
    assert.equal(protect(1), undefined)
    assert.equal(protect(1, 7n), 0)
    assert.equal(lab.get(first, 'PortInfo', { path })?.mKey, 0n)
    assert.equal(lab.get(first, 'PortInfo', { path, mKey: 7n })?.mKey, 7n)
    assert.equal(protect(2, 7n), 0)
    assert.equal(lab.get(first, 'NodeInfo', { path }), undefined)
    assert.equal(lab.get(first, 'PortInfo', { path, mKey: 7n })?.mKeyViolations, 1)
  })

  test('its lease ends it', () => {
    const { lab, first } = chainLab(1)
    const path = [1]
    lab.set(first, 'PortInfo', { ...settings(5, 0), mKey: 7n, mKeyLeasePeriod: 10 }, { path })
    const statuses = [0, 9 * SECOND, 2 * SECOND].map(time => {
      lab.run(time)
      return lab.set(first, 'PortInfo', settings(6, 0), { path })
    })
    assert.deepEqual(statuses, [undefined, undefined, 0])
  })
})

describe('traps', () => {
  const trapsAt = (lab: Lab) =>
    lab.received.flatMap(({ packet }) => {
      const mad = smpCodec.parse(packet.mad)
      return mad.method === MadMethod.TRAP ? [{ mad, notice: smCodecs.Notice.parse(mad.data) }] : []
    })

  test('a link that changes is told by its switch until the manager represses it', () => {
    const { lab, first, last } = activeChain(1)
    lab.received.length = 0
    lab.fabric.setPlugged(lab.fabric.linkOf(last.port)!, false)
    lab.run(3.5 * SECOND)
    const traps = trapsAt(lab)
    assert.equal(traps.length, 4)
    const { mad, notice } = traps[0]!
    assert.deepEqual([notice.trapNumber, notice.issuerLid, notice.producerType], [Trap.LINK_STATE, 10, 2])
    assert.equal(noticeCodecs[Trap.LINK_STATE].parse(notice.data).lid, 10)
    lab.send(first, { ...mad, method: MadMethod.TRAP_REPRESS }, 10)
    lab.received.length = 0
    lab.run(10 * SECOND)
    assert.equal(trapsAt(lab).length, 0)
  })

  test('capabilities that change are told', () => {
    const { lab, last } = activeChain(1)
    lab.received.length = 0
    last.node.setIsSm(last.port, true)
    lab.run()
    const [trap] = trapsAt(lab)
    assert.deepEqual([trap?.notice.trapNumber, trap?.notice.issuerLid], [Trap.CAPABILITY, 2])
    assert.equal(noticeCodecs[Trap.CAPABILITY].parse(trap!.notice.data).capabilityMask, PortCapability.IS_SM)
  })
})

describe('tables', () => {
  test('a packet goes where they say, or is lost and counted', () => {
    const { lab, first, last, chain } = activeChain(3)
    assert.deepEqual(lab.fabric.reached(first, 2), [last])
    assert.deepEqual(lab.fabric.reached(last, 1), [first])
    assert.deepEqual(
      lab.fabric.reached(first, 11).map(({ node }) => node),
      [chain[1]],
    )
    const nameAt = (dlid: number) => text(lab.get(first, 'NodeDescription', { dlid }))
    assert.deepEqual([nameAt(2), nameAt(12)], ['last', 's2'])
    assert.deepEqual(lab.fabric.reached(first, 40), [])
    const { rerouted } = lab
    const ports = Array<number>(64).fill(NO_PORT)
    assert.equal(lab.set(first, 'LinearForwardingTable', { ports }, { path: [1, 2] }), 0)
    assert.ok(lab.rerouted > rerouted)
    assert.deepEqual(lab.fabric.reached(first, 2), [])
    const errors = () => chain[1]!.port(1)!.counters.port_rcv_switch_relay_errors ?? 0
    assert.equal(errors(), 0)
    lab.fabric.lose(first, 2, 5)
    assert.equal(errors(), 5)
    assert.equal(nameAt(2), undefined)
  })

  test('a loop ends after 64 links', () => {
    const { lab, first, chain, at } = activeChain(2)
    lab.connect(at(0, 3), at(1, 3))
    for (const path of [[1], [1, 2]])
      for (const portState of [PortState.ARMED, PortState.ACTIVE])
        lab.set(first, 'PortInfo', { portState }, { path, modifier: 3 })
    // The second switch returns by port 3 what came by port 1.
    chain[1]!.tables!.linear[2] = 3
    const passed = () => at(0, 2).port.counters.port_xmit_packets!
    const before = passed()
    assert.equal(lab.get(first, 'NodeDescription', { dlid: 2 }), undefined)
    assert.equal(passed() - before, 32)
    const discards = () =>
      chain.flatMap(({ ports }) => ports).reduce((sum, { counters }) => sum + (counters.port_xmit_discards ?? 0), 0)
    assert.equal(discards(), 1)
    assert.deepEqual(lab.fabric.reached(first, 2), [])
    lab.fabric.lose(first, 2, 3)
    assert.equal(discards(), 4)
  })

  test('multicast goes by the masks', () => {
    const { lab, first, last } = activeChain(2)
    assert.deepEqual(lab.fabric.reached(first, 0xc001), [])
    for (const path of [[1], [1, 2]])
      assert.equal(lab.set(first, 'MulticastForwardingTable', { masks: [0, 0b110] }, { path }), 0)
    assert.deepEqual(lab.fabric.reached(first, 0xc001), [last])
    assert.deepEqual(lab.fabric.reached(last, 0xc001), [first])
  })

  test('counters of a switch are asked and reset by LID', () => {
    const { lab, first } = activeChain(1)
    const header = { slid: 1, dlid: 10, sl: 0, sourceQp: 1, destQp: 1, pkey: 0xffff, qkey: 0x8001_0000, hops: 0 }
    const sentBy2 = (method: number) => {
      const mad = new Uint8Array(256)
      mad.set([1, MadClass.PERFORMANCE, 1, method])
      mad.set([0, 18], 16)
      mad.set([2, 0xff, 0xff], 65)
      lab.received.length = 0
      lab.fabric.send(first, { ...header, mad }, lab.now)
      lab.run()
      return new DataView(lab.received[0]!.packet.mad.buffer).getUint32(96)
    }
    assert.ok(sentBy2(MadMethod.GET) > 0)
    assert.equal(sentBy2(MadMethod.SET), 0)
  })
})

test('datagrams of every class and method, with any bytes, do no harm', () => {
  const { lab, first } = activeChain(2)
  const datagram = fc.record({
    mad: fc.uint8Array({ minLength: 256, maxLength: 256 }),
    mgmtClass: fc.constantFrom(1, 3, 4, 7, 0x81),
    method: fc.constantFrom(1, 2, 3, 5, 6, 7, 0x12, 0x81, 0x86, 0x92),
    attribute: fc.constantFrom(...Object.values(smAttributes).map(({ id }) => id), 0x77),
    hops: fc.integer({ min: 0, max: 64 }),
    qpn: fc.constantFrom(0, 1),
    dlid: fc.constantFrom(0xffff, 2, 10, 0xc001),
  })
  fc.assert(
    fc.property(datagram, ({ mad, mgmtClass, method, attribute, hops, qpn, dlid }) => {
      mad.set([1, mgmtClass, 1, method])
      mad.set([0, attribute], 16)
      if (mgmtClass === MadClass.SUBNET_DIRECTED_ROUTE) {
        mad.set([0, hops], 6)
        mad.set([0xff, 0xff, 0xff, 0xff], 32)
        for (let i = 128; i < 192; i++) mad[i]! &= 3
      }
      const header = { slid: 1, dlid, sl: 0, sourceQp: qpn, destQp: qpn, pkey: 0xffff, qkey: 0, hops: 0 }
      lab.fabric.send(first, { ...header, mad }, lab.now)
      lab.run()
    }),
    { numRuns: 500 },
  )
})
