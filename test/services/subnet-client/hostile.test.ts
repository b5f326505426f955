/*
 * Programs that send what no manager sends: fuzzed datagrams, forged answers, routes that lead nowhere, queries without
 * end. Random numbers have a seed.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { PortState } from '../../../src/spec/enums.ts'
import type { ManagementPath } from '../../../src/spec/subnet-port.ts'
import { GSI_QKEY, MAD_BYTES } from '../../../src/spec/wire/mad.ts'
import { MAD_STATUS_BUSY, MadClass, MadMethod } from '../../../src/spec/wire/management.ts'
import { PERMISSIVE_LID, saRecords, smAttributes } from '../../../src/spec/wire/subnet.ts'
import { saCodec, saCodecs, smCodecs, smpCodec } from '../../../src/transport/wire/mad/subnet.ts'
import { ports, SECOND, subnetOf, type TestPort } from './ports.ts'

const { ACTIVE } = PortState.values
const ROUNDS = 4000

const randomOf = (seed: number) => {
  let state = seed
  return (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}
type Random = ReturnType<typeof randomOf>

const CLASSES = [MadClass.SUBNET_LID_ROUTED, MadClass.SUBNET_DIRECTED_ROUTE, MadClass.SUBNET_ADMINISTRATION, 4, 6, 7, 9]
const METHODS = [1, 2, 3, 5, 6, 7, 0x12, 0x13, 0x14, 0x15, 0x81, 0x86, 0x92, 0x95]
const ATTRIBUTES = [...Object.values(smAttributes), ...Object.values(saRecords)].map(({ id }) => id)

/** Mostly a known class, method and attribute; the rest is random, or few bits of it are. */
const fuzzed = (random: Random): Uint8Array => {
  const one = <T>(list: readonly T[]): T => list[random(list.length)]!
  const mad = new Uint8Array(MAD_BYTES)
  if (random(2) === 0) for (let i = 0; i < MAD_BYTES; i++) mad[i] = random(256)
  else for (let i = 0; i < 20; i++) mad[random(MAD_BYTES)] = random(256)
  if (random(8) > 0) {
    const view = new DataView(mad.buffer)
    mad[0] = 1
    mad[1] = one(CLASSES)
    mad[2] = mad[1] === MadClass.SUBNET_ADMINISTRATION ? 2 : 1
    mad[3] = one(METHODS)
    view.setUint16(16, one(ATTRIBUTES))
    if (random(2) === 0) view.setUint32(20, random(40))
    // Hop pointer and count of a directed route, mostly within the path.
    if (random(4) > 0) {
      mad[6] = random(3)
      mad[7] = random(4)
    }
  }
  return mad
}

const pathOf = (random: Random, port: TestPort, qpn: 0 | 1): ManagementPath => {
  const lids = [0, 1, 2, 3, port.settings.smLid, port.settings.lid, 0xc000, 0xc001, 0xbfff, PERMISSIVE_LID]
  return {
    slid: random(0x1_0000),
    dlid: lids[random(lids.length)]!,
    sl: random(16),
    sourceQpn: qpn,
    destQpn: random(16) === 0 ? random(3) : qpn,
    qkey: qpn === 0 ? 0 : GSI_QKEY,
    pkey: 0xffff,
  }
}

const setUp = (count = 4, fabric = 'ring,switches=3') => {
  const all = ports(count)
  const { subnet, run } = subnetOf(all, fabric)
  run(SECOND)
  return { all, subnet, run }
}

/** What a manager has set. */
const state = (all: readonly TestPort[]) => all.map(({ settings: { lid, state: now, smLid } }) => ({ lid, now, smLid }))

describe('fuzzed datagrams', () => {
  for (const seed of [1, 2, 3])
    test(`of queue pair 0 end (seed ${seed})`, () => {
      const random = randomOf(seed)
      const { all, run } = setUp()
      for (let round = 0; round < ROUNDS; round++) {
        const port = all[random(all.length)]!
        port.subnet!.send(fuzzed(random), pathOf(random, port, 0))
        if (round % 8 === 0) run(random(100))
      }
      run(60 * SECOND)
    })

  for (const seed of [4, 5])
    test(`of queue pair 1 change no port (seed ${seed})`, () => {
      const random = randomOf(seed)
      const { all, run } = setUp()
      const before = state(all)
      for (let round = 0; round < ROUNDS; round++) {
        const port = all[random(all.length)]!
        const mad = fuzzed(random)
        port.subnet!.send(mad, pathOf(random, port, 1))
        if (round % 8 === 0) run(random(100))
      }
      run(60 * SECOND)
      assert.deepEqual(state(all), before)
      assert.ok(all.every(({ settings }) => settings.state === ACTIVE))
    })
})

describe('a program at queue pair 0', () => {
  const header = { baseVersion: 1, classVersion: 1, method: MadMethod.GET, attribute: smAttributes.NodeInfo.id }
  const toSelf: ManagementPath = {
    ...{ slid: PERMISSIVE_LID, dlid: PERMISSIVE_LID, sl: 0, sourceQpn: 0, destQpn: 0, qkey: 0, pkey: 0 },
  }

  test('may take routes of 63 hops in a ring, and longer ones are lost', () => {
    const { all, run } = setUp(1)
    const [port] = all as [TestPort]
    // Switches of three: each next one is at the port that is not the one before's.
    for (const hopCount of [2, 62, 63, 64, 255]) {
      const initialPath = new Uint8Array(64).fill(36)
      initialPath.set([0, 1])
      const mad = smpCodec.emit({
        ...smpCodec.parse(new Uint8Array(MAD_BYTES)),
        ...{ ...header, mgmtClass: MadClass.SUBNET_DIRECTED_ROUTE, tid: BigInt(hopCount) },
        ...{ hopCount, drSlid: PERMISSIVE_LID, drDlid: PERMISSIVE_LID, initialPath },
      })
      port.subnet!.send(mad, toSelf)
      run(SECOND)
      const answers = port.delivered.splice(0)
      assert.equal(answers.length, hopCount < 64 ? 1 : 0, `${hopCount} hops`)
    }
  })

  test('that makes loops of groups does not keep the process', () => {
    const { all, run, subnet } = setUp(4, 'fat-tree,leaves=4,spines=4')
    const [port] = all as [TestPort]
    const send = (mad: Uint8Array, dlid: number) => port.subnet!.send(mad, { ...toSelf, slid: port.settings.lid, dlid })
    const empty = smpCodec.parse(new Uint8Array(MAD_BYTES))
    // All switches send the group's datagrams to all ports of the last 16, which has the links between them.
    const data = new Uint8Array(64).fill(0xff)
    for (let lid = 1; lid < 20; lid++)
      send(
        smpCodec.emit({
          ...{ ...empty, ...header, mgmtClass: MadClass.SUBNET_LID_ROUTED, method: MadMethod.SET, tid: BigInt(lid) },
          ...{ attribute: smAttributes.MulticastForwardingTable.id, modifier: 0x2000_0000, data },
        }),
        lid,
      )
    run(0)
    send(smpCodec.emit({ ...empty, ...header, mgmtClass: MadClass.SUBNET_LID_ROUTED, tid: 1n }), 0xc000)
    for (let calls = 0; calls < 3; calls++) {
      assert.ok(subnet.nextTimeout() <= SECOND)
      subnet.onTimeout(SECOND)
    }
  })

  test('does not become an answer to the manager by guessing', () => {
    const { all, run } = setUp(2)
    const before = state(all)
    const data = new Uint8Array(64)
    smCodecs.PortInfo.emit({ ...smCodecs.PortInfo.parse(data), lid: 9, portState: 1 }, data)
    for (let tid = 0n; tid < 20_000n; tid++) {
      const mad = smpCodec.emit({
        ...smpCodec.parse(new Uint8Array(MAD_BYTES)),
        ...{ ...header, mgmtClass: MadClass.SUBNET_LID_ROUTED, method: MadMethod.GET | MadMethod.RESPONSE, tid },
        ...{ attribute: smAttributes.PortInfo.id, data },
      })
      all[0]!.subnet!.send(mad, { ...toSelf, slid: all[0]!.settings.lid, dlid: all[0]!.settings.smLid })
      if (tid % 500n === 0n) run(0)
    }
    run(20 * SECOND)
    assert.deepEqual(state(all), before)
  })
})

describe('a program at queue pair 1', () => {
  const ask = (port: TestPort, tid: number, method: number, attribute: number, mask: bigint, data?: Uint8Array) =>
    port.subnet!.send(
      saCodec.emit({
        ...saCodec.parse(new Uint8Array(MAD_BYTES)),
        ...{ baseVersion: 1, classVersion: 2, mgmtClass: MadClass.SUBNET_ADMINISTRATION, method },
        ...{ tid: BigInt(tid), attribute, componentMask: mask, ...(data && { data }) },
      }),
      {
        ...{ slid: port.settings.lid, dlid: port.settings.smLid, sl: 0, sourceQpn: 1, destQpn: 1 },
        ...{ qkey: GSI_QKEY, pkey: 0xffff },
      },
    )

  test('that acknowledges no table gets no more of them, and others do', () => {
    const { all, run } = setUp(3)
    const [greedy, other] = all as [TestPort, TestPort]
    for (let tid = 1; tid <= 1000; tid++) ask(greedy, tid, MadMethod.GET_TABLE, saRecords.PathRecord.id, 0n)
    run(1000)
    const statuses = greedy.delivered.map(({ mad }) => saCodec.parse(mad).status)
    assert.equal(statuses.filter(status => status === MAD_STATUS_BUSY).length, 1000 - 32)
    ask(other, 1, MadMethod.GET_TABLE, saRecords.NodeRecord.id, 0n)
    run(1000)
    assert.equal(saCodec.parse(other.delivered[0]!.mad).status, 0)
    // They end without acknowledgements.
    run(60 * SECOND)
    greedy.delivered.length = 0
    ask(greedy, 2000, MadMethod.GET_TABLE, saRecords.NodeRecord.id, 0n)
    run(1000)
    assert.equal(saCodec.parse(greedy.delivered[0]!.mad).status, 0)
  })

  test('has so many subscriptions, and no more', () => {
    const { all, run } = setUp(2)
    const [port] = all as [TestPort]
    for (let tid = 1; tid <= 100; tid++) {
      const data = new Uint8Array(saCodecs.InformInfo.bytes)
      const info = { ...saCodecs.InformInfo.parse(data), lidBegin: 0xffff, isGeneric: 1 }
      saCodecs.InformInfo.emit({ ...info, subscribe: 1, type: 0xffff, trapNumber: 1000 + tid }, data, 0)
      ask(port, tid, MadMethod.SET, saRecords.InformInfo.id, 0n, data)
    }
    run(1000)
    const statuses = port.delivered.map(({ mad }) => saCodec.parse(mad).status)
    assert.deepEqual([statuses.length, statuses.filter(status => status === 0).length], [100, 64])
  })

  test('does not reach agents of subnet management', () => {
    const { all, run } = setUp(2)
    const [port] = all as [TestPort]
    const mad = smpCodec.emit({
      ...smpCodec.parse(new Uint8Array(MAD_BYTES)),
      ...{ baseVersion: 1, mgmtClass: MadClass.SUBNET_LID_ROUTED, classVersion: 1, method: MadMethod.GET },
      ...{ tid: 1n, attribute: smAttributes.NodeInfo.id },
    })
    const { lid: slid, smLid: dlid } = port.settings
    port.subnet!.send(mad, { slid, dlid, sl: 0, sourceQpn: 1, destQpn: 0, qkey: 0, pkey: 0xffff })
    run(SECOND)
    assert.equal(port.delivered.length, 0)
  })
})
