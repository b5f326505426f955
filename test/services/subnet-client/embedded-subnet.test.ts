/*
 * Ports of devices, by their seam, on the subnet of their process.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { PortCapFlags, PortState } from '../../../src/spec/enums.ts'
import type { ManagementPath } from '../../../src/spec/subnet-port.ts'
import { MadClass, MadMethod } from '../../../src/spec/wire/management.ts'
import { saRecords, smAttributes, Trap } from '../../../src/spec/wire/subnet.ts'
import { saCodec, saCodecs, smCodecs, smpCodec } from '../../../src/transport/wire/mad/subnet.ts'
import { type Delivered, ports, SECOND, subnetOf, TestPort } from './ports.ts'

const { ACTIVE, INIT, DOWN } = PortState.values

const toManager = (port: TestPort, destQpn: 0 | 1): ManagementPath => ({
  slid: port.settings.lid,
  dlid: port.settings.smLid,
  sl: 0,
  sourceQpn: destQpn,
  destQpn,
  qkey: destQpn === 0 ? 0 : 0x8001_0000,
  pkey: 0xffff,
})

/** A program at the port answers what it is asked as a manager in this state. */
const answerSmInfo = (port: TestPort, state: number): void => {
  for (const { mad, path } of port.delivered.splice(0)) {
    const smp = smpCodec.parse(mad)
    if (smp.attribute !== smAttributes.SMInfo.id || (smp.method & MadMethod.RESPONSE) !== 0) continue
    const data = new Uint8Array(64)
    smCodecs.SMInfo.emit({ guid: 1n, state }, data)
    const method = MadMethod.GET | MadMethod.RESPONSE
    port.subnet!.send(smpCodec.emit({ ...smp, method, isReturning: true, data }), {
      ...path,
      slid: path.dlid,
      dlid: path.slid,
    })
  }
}

describe('ports of one process', () => {
  test('become ACTIVE with LIDs, and reach each other', () => {
    const [a, b] = ports(2) as [TestPort, TestPort]
    const { run } = subnetOf([a, b])
    run(SECOND)
    for (const { settings, registrations } of [a, b]) {
      assert.deepEqual([settings.state, settings.activeMtu, settings.pkeys[0], registrations], [ACTIVE, 5, 0xffff, 1])
      assert.deepEqual([...settings.gidPrefix], [0xfe, 0x80, 0, 0, 0, 0, 0, 0])
    }
    assert.notEqual(a.settings.lid, b.settings.lid)
    assert.deepEqual(a.subnet?.reached(b.settings.lid), [b])
    assert.deepEqual(a.subnet?.reached(a.settings.lid), [a])
    assert.deepEqual(a.subnet?.reached(77), [])
  })

  test('one comes later, one is removed, a cable is pulled and plugged', () => {
    const [a, b, c] = ports(3) as [TestPort, TestPort, TestPort]
    const { subnet, run } = subnetOf([a, b])
    run(SECOND)
    subnet.attach(c)
    run(SECOND)
    assert.deepEqual(c.subnet?.reached(a.settings.lid), [a])
    const { reroutes } = a
    b.subnet!.removed()
    run(SECOND)
    assert.deepEqual(a.subnet?.reached(b.settings.lid), [])
    assert.ok(a.reroutes > reroutes)
    c.subnet!.news({ kind: 'link', hasCarrier: false })
    run(SECOND)
    assert.equal(c.settings.state, DOWN)
    c.subnet!.news({ kind: 'link', hasCarrier: true })
    run(SECOND)
    assert.equal(c.settings.state, ACTIVE)
  })

  test('one gets another LID, by which others reach it', () => {
    const [a, b] = ports(2) as [TestPort, TestPort]
    const { run } = subnetOf([a, b])
    run(SECOND)
    const { lid } = a.settings
    a.subnet?.disturb({ kind: 'lid' })
    run(SECOND)
    assert.notEqual(a.settings.lid, lid)
    assert.deepEqual([a.settings.state, b.subnet?.reached(lid)], [ACTIVE, []])
    assert.deepEqual(b.subnet?.reached(a.settings.lid), [a])
  })

  test('100 of them have several switches', () => {
    const many = ports(100)
    const { run } = subnetOf(many)
    run(SECOND)
    assert.ok(many.every(({ settings }) => settings.state === ACTIVE))
    assert.deepEqual(many[0]!.subnet!.reached(many[99]!.settings.lid), [many[99]])
  })

  test('are spread over the leaves of a fabric, or have a switch of their own', () => {
    for (const [fabric, count] of [
      ['fat-tree,leaves=8,spines=4', 64],
      ['ring,switches=5', 7],
      ['links=a:b+b:c,at=mlx5_1:c', 2],
    ] as const) {
      const many = ports(count)
      const { run } = subnetOf(many, fabric)
      run(SECOND)
      assert.ok(
        many.every(({ settings }) => settings.state === ACTIVE),
        fabric,
      )
      const [first, last] = [many[0]!, many.at(-1)!]
      assert.deepEqual(first.subnet!.reached(last.settings.lid), [last])
    }
  })

  test('whose way loses a link get another one, and by a single way none until the link is there again', () => {
    for (const [fabric, hasOtherWay] of [
      ['fat-tree,leaves=2,spines=2', true],
      ['links=a:b', false],
    ] as const) {
      const [a, b] = ports(2) as [TestPort, TestPort]
      const { run } = subnetOf([a, b], fabric)
      run(SECOND)
      const isReached = (): boolean => a.subnet!.reached(b.settings.lid).includes(b)
      // Two rules hold the same link: it is back when both have ended.
      const ends = [0, 1].map(() => a.subnet!.disturb({ kind: 'cable' })!)
      if (!hasOtherWay) {
        for (const end of ends) {
          run(SECOND)
          assert.equal(isReached(), false)
          end()
        }
      }
      run(SECOND)
      assert.equal(isReached(), true, fabric)
      assert.equal(a.subnet!.disturb({ kind: 'cable', between: ['a', 'nowhere'] }), undefined)
    }
  })

  test('stay as they are when the manager dies, and register again with the next one', () => {
    const [a, b] = ports(2) as [TestPort, TestPort]
    const { subnet, run } = subnetOf([a])
    run(SECOND)
    const [{ lid }, { registrations }] = [a.settings, a]
    const start = a.subnet!.disturb({ kind: 'manager' })!
    run(SECOND)
    assert.equal(a.subnet!.disturb({ kind: 'manager' }), undefined)
    subnet.attach(b)
    run(60 * SECOND)
    assert.deepEqual([a.settings.state, a.settings.lid, b.settings.state], [ACTIVE, lid, INIT])
    start()
    run(SECOND)
    assert.deepEqual([a.settings.lid, b.settings.state], [lid, ACTIVE])
    assert.equal(a.registrations, registrations + 1)
  })

  test('stay INIT without a subnet manager', () => {
    const [a] = ports(1) as [TestPort]
    const { run } = subnetOf([a], 'manager=none')
    run(100 * SECOND)
    assert.deepEqual([a.settings.state, a.settings.lid], [INIT, 0])
  })

  test('keep their partition keys', () => {
    const port = new TestPort(1, [0x8001])
    const { run } = subnetOf([port])
    run(SECOND)
    assert.deepEqual([...port.settings.pkeys.slice(0, 3)], [0xffff, 0x8001, 0])
  })
})

describe('datagrams', () => {
  test('partition keys that a program sets are seen when the next port comes', () => {
    const [a, b, c] = ports(3) as [TestPort, TestPort, TestPort]
    const { subnet, run } = subnetOf([a, b])
    run(SECOND)
    const data = new Uint8Array(64)
    smCodecs.P_KeyTable.emit({ pkeys: [0x8123, ...Array<number>(31).fill(0)] }, data)
    const smp = smpCodec.emit({
      baseVersion: 1,
      mgmtClass: MadClass.SUBNET_LID_ROUTED,
      classVersion: 1,
      method: MadMethod.SET,
      attribute: smAttributes.P_KeyTable.id,
      data,
    })
    a.subnet!.send(smp, { ...toManager(a, 0), dlid: b.settings.lid })
    run(SECOND)
    assert.deepEqual([...b.settings.pkeys.slice(0, 2)], [0x8123, 0])
    subnet.attach(c)
    run(SECOND)
    // The manager has read them, and adds the default partition, in which all ports are.
    assert.deepEqual([...b.settings.pkeys.slice(0, 3)], [0xffff, 0x8123, 0])
    assert.deepEqual(c.subnet?.reached(b.settings.lid), [b])
  })

  test('a program asks its port’s agent, a switch, and the administration', () => {
    const [a, b] = ports(2) as [TestPort, TestPort]
    const { run } = subnetOf([a, b])
    run(SECOND)
    const smp = smpCodec.emit({
      ...{ baseVersion: 1, mgmtClass: MadClass.SUBNET_LID_ROUTED, classVersion: 1, method: MadMethod.GET, tid: 1n },
      attribute: smAttributes.NodeDescription.id,
    })
    const nameAt = (dlid: number) => {
      a.delivered.length = 0
      a.subnet!.send(smp, { ...toManager(a, 0), dlid })
      run(0)
      const [answer] = a.delivered
      const { text } = smCodecs.NodeDescription.parse(smpCodec.parse(answer!.mad).data)
      return Buffer.from(text).toString().replace(/\0+$/, '')
    }
    assert.deepEqual([a.settings.lid, b.settings.lid, a.settings.smLid].map(nameAt), [
      'mlx5_1',
      'mlx5_2',
      'userdma switch 1',
    ])
    const record = saCodecs.PathRecord.emit({ slid: a.settings.lid, dlid: b.settings.lid })
    const query = saCodec.emit({
      ...{ baseVersion: 1, mgmtClass: MadClass.SUBNET_ADMINISTRATION, classVersion: 2, method: MadMethod.GET, tid: 1n },
      attribute: saRecords.PathRecord.id,
      componentMask: saCodecs.PathRecord.mask('slid', 'dlid'),
      data: record,
    })
    a.delivered.length = 0
    a.subnet!.send(query, toManager(a, 1))
    run(0)
    const [{ mad, path }] = a.delivered as [Delivered]
    assert.deepEqual([path.slid, path.dlid, path.destQpn], [a.settings.smLid, a.settings.lid, 1])
    assert.equal(saCodecs.PathRecord.parse(saCodec.parse(mad).data).dlid, b.settings.lid)
  })

  test('a manager in a program takes the subnet, and is told of what ports see', () => {
    const [a, b] = ports(2) as [TestPort, TestPort]
    const { run } = subnetOf([a, b])
    run(SECOND)
    const managerLid = b.settings.smLid
    // A program opens the port as a manager: it answers as a standby, and is given the subnet.
    const answerAs = (state: number): void => answerSmInfo(a, state)
    a.delivered.length = 0
    a.capabilityMask |= PortCapFlags.values.SM
    a.subnet!.news({ kind: 'capabilities' })
    const asked: number[] = []
    for (let turn = 0; turn < 50; turn++) {
      run(SECOND / 100)
      asked.push(
        ...a.delivered
          .map(({ mad }) => smpCodec.parse(mad))
          .filter(({ method }) => method === MadMethod.SET)
          .map(({ modifier }) => modifier),
      )
      answerAs(2)
    }
    assert.deepEqual(asked, [1])
    // It sets itself as the manager of b, and b's port tells it of a bad key.
    const data = new Uint8Array(64)
    smCodecs.PortInfo.emit({ lid: b.settings.lid, smLid: a.settings.lid }, data)
    const smp = {
      baseVersion: 1,
      mgmtClass: MadClass.SUBNET_LID_ROUTED,
      classVersion: 1,
      method: MadMethod.SET,
      tid: 9n,
    }
    const set = smpCodec.emit({ ...smp, attribute: smAttributes.PortInfo.id, data })
    a.subnet!.send(set, { ...toManager(a, 0), dlid: b.settings.lid })
    run(0)
    assert.equal(b.settings.smLid, a.settings.lid)
    a.delivered.length = 0
    const { qkey, pkey, ...path } = toManager(a, 1)
    for (let times = 0; times < 100; times++) b.subnet!.news({ kind: 'bad-pkey', key: 0x8123, path })
    run(0)
    const notices = a.delivered.map(({ mad }) => smCodecs.Notice.parse(smpCodec.parse(mad).data).trapNumber)
    assert.deepEqual(notices, [Trap.BAD_P_KEY])
    void [qkey, pkey]
    // It ends: the embedded manager does not wait for answers that no longer come.
    const own = a.settings.lid
    for (let turn = 0; turn < 300; turn++) {
      run(SECOND / 100)
      answerAs(3)
    }
    assert.equal(b.settings.smLid, own, 'while it answers, it keeps the subnet')
    a.capabilityMask &= ~PortCapFlags.values.SM
    a.subnet!.news({ kind: 'capabilities' })
    run(0)
    assert.deepEqual([a.settings.smLid, b.settings.smLid], [managerLid, managerLid])
  })

  test('the embedded manager takes the subnet at once when the port of the manager is removed', () => {
    const [a, b] = ports(2) as [TestPort, TestPort]
    const { run } = subnetOf([a, b])
    run(SECOND)
    const { registrations } = b
    a.capabilityMask |= PortCapFlags.values.SM
    a.subnet!.news({ kind: 'capabilities' })
    for (let turn = 0; turn < 50; turn++) {
      run(SECOND / 100)
      answerSmInfo(a, 2)
    }
    a.subnet!.removed()
    run(0)
    assert.equal(b.registrations, registrations + 1)
  })
})
