/*
 * mlx5 devices with InfiniBand ports: what a subnet sets at the port (spec/subnet-port.ts), and messages by LID.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { addFailureHandler } from '../../../src/core/failures.ts'
import { unregister } from '../../../src/core/index.ts'
import { mlx5Driver } from '../../../src/drivers/mlx5/device.ts'
import { causeText } from '../../../src/spec/check/causes.ts'
import { failureText } from '../../../src/spec/check/failures.ts'
import { Commands } from '../../../src/spec/drivers/mlx5-firmware/commands.ts'
import { cmdHcaCap } from '../../../src/spec/drivers/mlx5-firmware/device.ts'
import { CompletionKind } from '../../../src/spec/drivers/mlx5-queues.ts'
import { AsyncEventType, GidType, LinkLayer, PhysState, PortState } from '../../../src/spec/enums.ts'
import type { PortSubnet } from '../../../src/spec/subnet-port.ts'
import type { Port } from '../../../src/transport/phy/port.ts'
import { addTap } from '../../../src/transport/phy/tap.ts'
import { addressText, lidAddress } from '../../../src/transport/wire/address.ts'
import { decodeFields } from '../../../src/uapi/firmware/fields.ts'
import { completionsOf, driverMachine } from '../machine.ts'
import { assertRefused, withCommands } from './firmware.ts'
import { fabric, ipv4, program, RDMA_READ, RDMA_WRITE, SEND } from './machine.ts'

const { REQUEST, RECEIVE, REQUEST_ERROR } = CompletionKind
const { INIT, ACTIVE, DOWN } = PortState.values
const KEY = 0x0123_4567_89ab_cdefn
const TRANSPORT_RETRY_EXCEEDED = 0x15
const noSubnet = {
  send: () => {},
  receive: () => {},
  news: () => {},
  removed: () => {},
  reached: () => [],
  lost: () => {},
  disturb: () => undefined,
  routesVersion: 0,
}
/** A fault that never acts: messages are packets. */
const PACKETS = 'drop=0.0000001'

describe('an InfiniBand port', () => {
  it('is INIT without LID until a subnet has set it, with the GUID and partition keys of its options', () => {
    const guid = Uint8Array.of(0, 2, 0xc9, 3, 0, 1, 2, 3)
    const m = driverMachine(mlx5Driver, ['mlx5_0'], '', { fabric: { guid, pkeys: [0xffff, 0x8001] } })
    const { device, subnetPort, link } = m.devices[0]!
    const [{ attributes, gids, pkeys }] = device.ports as [(typeof device.ports)[0]]
    const shown = () => [attributes.state, attributes.lid, attributes.smLid]
    assert.deepEqual(shown(), [INIT, 0, 0])
    assert.deepEqual([attributes.linkLayer, attributes.flags], [LinkLayer.values.INFINIBAND, 0])
    assert.deepEqual([...pkeys.subarray(0, 3)], [0xffff, 0x8001, 0])
    assert.deepEqual(device.attributes.nodeGuid, guid)
    const gidOf = (prefix: number[]) => ({
      gid: Uint8Array.of(...prefix, ...guid),
      type: GidType.values.IB,
      ifindex: 0,
    })
    assert.deepEqual(gids.entries.filter(Boolean), [gidOf([0xfe, 0x80, 0, 0, 0, 0, 0, 0])])
    let changes = 0
    subnetPort!.changed = () => void changes++
    subnetPort!.set({ lid: 7, smLid: 2, gidPrefix: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8) })
    subnetPort!.set({ state: ACTIVE, pkeys: Uint16Array.of(0x7fff) })
    assert.deepEqual([...shown(), changes], [ACTIVE, 7, 2, 2])
    assert.deepEqual(gids.entries.filter(Boolean), [gidOf([1, 2, 3, 4, 5, 6, 7, 8])])
    assert.deepEqual([...pkeys.subarray(0, 2)], [0x7fff, 0])
    link!.setCarrier(false)
    assert.deepEqual([attributes.state, attributes.physState], [DOWN, PhysState.values.POLLING])
    subnetPort!.set({ state: ACTIVE })
    assert.equal(attributes.state, DOWN, 'without a cable')
    link!.setCarrier(true)
    assert.deepEqual([attributes.state, attributes.physState], [INIT, PhysState.values.LINK_UP])
  })

  it('is told by firmware commands', () => {
    const m = fabric(1)
    const firmware = withCommands(program(m, 0))
    m.devices[0]!.subnetPort!.set({ lid: 9, smLid: 3 })
    const { hca_vport_context: told } = firmware.general(Commands.QUERY_HCA_VPORT_CONTEXT, { port_num: 1 })
    const { portGuid } = m.devices[0]!.subnetPort!.identity
    assert.deepEqual(
      [told.lid, told.sm_lid, told.port_state, told.port_guid],
      [9, 3, ACTIVE, new DataView(portGuid.buffer, portGuid.byteOffset).getBigUint64(0)],
    )
    const { capability } = firmware.general(Commands.QUERY_HCA_CAP, {}, { opMod: 1 })
    const { port_type, roce } = decodeFields(cmdHcaCap, capability)
    assert.deepEqual([port_type, roce], [0, 0])
    assertRefused(() => firmware.general(Commands.QUERY_ROCE_ADDRESS, {}), 'unsupportedCommand')
  })

  it('tells programs of what changes', () => {
    const m = fabric(1)
    const p = program(m, 0, { events: true })
    const { subnetPort } = m.devices[0]!
    const texts: string[] = []
    addFailureHandler(m.core, failure => void texts.push(failureText(failure)))
    const { LID_CHANGE, SM_CHANGE, PKEY_CHANGE, GID_CHANGE, PORT_ERR, PORT_ACTIVE, CLIENT_REREGISTER } =
      AsyncEventType.values
    subnetPort!.set({ lid: 9 })
    subnetPort!.set({ smLid: 9 })
    subnetPort!.set({ pkeys: Uint16Array.of(0x8001) })
    subnetPort!.set({ gidPrefix: Uint8Array.of(9, 9, 9, 9, 9, 9, 9, 9) })
    subnetPort!.set({ state: INIT })
    subnetPort!.set({ state: ACTIVE })
    subnetPort!.set({ state: ACTIVE, lid: 9, smLid: 9 })
    subnetPort!.reregister()
    assert.deepEqual(p.asyncEvents(), [
      LID_CHANGE,
      SM_CHANGE,
      PKEY_CHANGE,
      GID_CHANGE,
      PORT_ERR,
      PORT_ACTIVE,
      CLIENT_REREGISTER,
    ])
    assert.deepEqual(texts, [
      'event LID_CHANGE: InfiniBand port 1: its LID is 9; it was 1',
      'event SM_CHANGE: InfiniBand port 1: the LID of its subnet manager is 9; it was 1',
      'event PKEY_CHANGE: InfiniBand port 1: its P_Keys are 0x8001; they were 0xffff',
      'event GID_CHANGE: InfiniBand port 1: the subnet manager has set its prefix or GUIDs',
      'event PORT_ERR: InfiniBand port 1: it was ACTIVE, and is INIT',
      'event PORT_ACTIVE: InfiniBand port 1: the subnet manager has made it ACTIVE, with LID 9',
      'event CLIENT_REREGISTER: InfiniBand port 1: the subnet manager asks to join groups and to register services again',
    ])
  })
})

for (const [name, fault] of [
  ['directly', ''],
  ['as packets', PACKETS],
] as const)
  describe(`by LID, ${name},`, () => {
    it('RC sends, writes and reads; also to itself', () => {
      for (const peer of [1, 0]) {
        const m = fabric(2, { fault })
        const a = program(m, 0)
        const b = peer === 0 ? a : program(m, 1)
        const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
        qa.connect(qb, peer)
        qb.connect(qa, 0)
        a.bytes.fill(7, 0, 9000)
        qb.receive(b.element(20_000, 9000))
        qa.post({ opcode: SEND, data: [a.element(0, 9000)] })
        const remote = { address: b.address + 40_000n, rkey: b.region.rkey }
        qa.post({ opcode: RDMA_WRITE, data: [a.element(0, 9000)], remote })
        qa.post({ opcode: RDMA_READ, data: [a.element(60_000, 100)], remote })
        const kinds = completionsOf(m, a, peer === 0 ? 4 : 3).map(({ kind }) => kind)
        assert.deepEqual(
          kinds.filter(kind => kind !== RECEIVE),
          [REQUEST, REQUEST, REQUEST],
        )
        assert.deepEqual(b.bytes.subarray(20_000, 29_000), a.bytes.subarray(0, 9000))
        assert.deepEqual(a.bytes.subarray(60_000, 60_100), a.bytes.subarray(0, 100))
      }
    })

    it('UD has 40 bytes of room, a GRH only in a global path, and the LID and service level of the sender', () => {
      const m = fabric(2, { fault })
      const [a, b] = [program(m, 0), program(m, 1)]
      const [qa, qb] = [a.queuePair('ud'), b.queuePair('ud')]
      qa.activate()
      qb.activate()
      a.bytes.fill(5, 0, 100)
      b.bytes.fill(0xee)
      qb.receive(b.element(0, 2048))
      qb.receive(b.element(4096, 2048))
      const gids = m.devices.map(({ device }) => device.ports[0]!.gids.entries[0]!.gid)
      const destination = { gid: gids[1]!, qpn: qb.qpn, lid: 2, sl: 3 }
      qa.post({ opcode: SEND, data: [a.element(0, 100)], destination })
      qa.post({ opcode: SEND, data: [a.element(0, 100)], destination: { ...destination, isGlobal: true } })
      const seen = completionsOf(m, b, 2)
      assert.deepEqual(
        seen.map(({ bytes, hasGrh, slid, sl, sourceQpn }) => [bytes, hasGrh, slid, sl, sourceQpn]),
        [
          [140, false, 1, 3, qa.qpn],
          [140, true, 1, 3, qa.qpn],
        ],
      )
      assert.deepEqual(b.bytes.subarray(40, 140), a.bytes.subarray(0, 100))
      // version 6, 124 bytes from BTH to ICRC, a transport header next, hop limit 9; source and destination
      assert.deepEqual([...b.bytes.subarray(4096, 4104)], [0x60, 0, 0, 0, 0, 124, 0x1b, 9])
      assert.deepEqual(b.bytes.subarray(4104, 4136), Uint8Array.of(...gids[0]!, ...gids[1]!))
    })

    it('initiators of DC reach targets', () => {
      const m = fabric(2, { fault })
      const [a, b] = [program(m, 0), program(m, 1)]
      const { destination } = b.target(b.sharedReceives().object, KEY)
      const dci = a.queuePair('dci')
      dci.start()
      a.bytes.fill(3, 0, 64)
      const remote = { address: b.address, rkey: b.region.rkey }
      dci.post({ opcode: RDMA_WRITE, data: [a.element(0, 64)], remote, destination })
      assert.deepEqual(
        completionsOf(m, a, 1).map(({ kind }) => kind),
        [REQUEST],
      )
      assert.deepEqual(b.bytes.subarray(0, 64), a.bytes.subarray(0, 64))
    })

    it('a LID that no port has, and a port that is not ACTIVE, lose packets', () => {
      for (const breaks of ['lid', 'receiver', 'sender'] as const) {
        const m = fabric(2, { fault })
        const [a, b] = [program(m, 0), program(m, 1)]
        const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
        qa.connect(qb, 1)
        qb.connect(qa, 0)
        if (breaks === 'lid') m.devices[1]!.subnetPort!.set({ lid: 5 })
        else m.devices[breaks === 'receiver' ? 1 : 0]!.subnetPort!.set({ state: INIT })
        qb.receive(b.element(0, 100))
        qa.post({ opcode: SEND, data: [a.element(0, 100)] })
        const [completion] = completionsOf(m, a, 1)
        assert.deepEqual([completion!.kind, completion!.syndrome], [REQUEST_ERROR, TRANSPORT_RETRY_EXCEEDED], breaks)
        assert.deepEqual(b.poll(), [])
      }
    })

    it('the failure says whose LID it is, that it is nobody’s, or which port is not ACTIVE', () => {
      const textFor = (breaks: (m: ReturnType<typeof fabric>) => void, at = 1): string => {
        const m = fabric(3, { fault })
        for (const { subnetPort } of m.devices) subnetPort!.attach({ ...noSubnet })
        const [a, b] = [program(m, 0), program(m, 1)]
        const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
        const texts: string[] = []
        addFailureHandler(m.core, failure => void texts.push(failureText(failure)))
        qa.connect(qb, at)
        qb.connect(qa, 0)
        breaks(m)
        qa.post({ opcode: SEND, data: [a.element(0, 100)] })
        completionsOf(m, a, 1)
        return texts.find(text => text.includes('RETRY_EXC_ERR')) ?? ''
      }
      assert.match(
        textFor(() => {}, 2),
        /LID 3 is not that of the peer: QP 0x\w+ is on mlx5_1, whose LID is 2/,
      )
      assert.match(
        textFor(m => m.devices[1]!.subnetPort!.set({ lid: 5 })),
        /LID 2 is not that of the peer: QP 0x\w+ is on mlx5_1, whose LID is 5/,
      )
      assert.match(
        textFor(m => unregister(m.devices[1]!.device)),
        /no port of the subnet has LID 2/,
      )
      for (const i of [0, 1])
        assert.match(
          textFor(m => m.devices[i]!.subnetPort!.set({ state: INIT })),
          new RegExp(`the port of mlx5_${i} is INIT, not ACTIVE`),
        )
    })
  })

it('a group gets the datagrams to its multicast LID, and only those of its GID', () => {
  const m = fabric(2)
  const [a, b] = [program(m, 0), program(m, 1)]
  const [qa, qb] = [a.queuePair('ud'), b.queuePair('ud')]
  qa.activate()
  qb.activate()
  const gid = Uint8Array.of(0xff, 0x12, 0x40, 0x1b, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
  for (const lid of [0, 3, 0xffff])
    assert.throws(() => qb.attach(gid, lid), {
      code: 'EINVAL',
      message: /mlid: \d+ is no multicast LID, from 49152 to 65534/,
    })
  qb.attach(gid, 0xc001)
  for (const at of [0, 4096]) qb.receive(b.element(at, 2048))
  const to = { qpn: 0xff_ffff, gid, lid: 0xc001, isGlobal: true }
  for (const destination of [to, { ...to, gid: gid.with(15, 2) }, { ...to, lid: 0xc002 }])
    qa.post({ opcode: SEND, data: [a.element(0, 10)], destination })
  completionsOf(m, a, 3)
  while (m.devices[1]!.poll(0));
  assert.deepEqual(
    b.poll().map(({ kind, hasGrh, slid }) => [kind, hasGrh, slid]),
    [[RECEIVE, true, 1]],
  )
})

it('queue pair 0 takes no datagrams of programs, whatever their Q_Key', () => {
  const m = fabric(2)
  const [{ device }, { device: other }] = m.devices as [(typeof m.devices)[0], (typeof m.devices)[0]]
  const received: Uint8Array[] = []
  other.driver.openSubnetManagement!(other, mad => void received.push(mad))
  const a = program(m, 0)
  const qa = a.queuePair('ud')
  qa.activate()
  const gid = device.ports[0]!.gids.entries[0]!.gid
  qa.post({ opcode: SEND, data: [a.element(0, 256)], destination: { gid, qpn: 0, lid: 2, qkey: 0 } })
  completionsOf(m, a, 1)
  while (m.devices[1]!.poll(0));
  assert.deepEqual(received, [])
})

it('taps see the LIDs, the service level, and a GRH if there is one', () => {
  const flows = new Set<string>()
  const onPort = (port: Port): void =>
    void addTap(port, ({ flow: { source, destination, sl, grh } }) => {
      flows.add(`${addressText(source)} > ${addressText(destination)} sl ${sl}${grh ? ' grh' : ''}`)
    })
  const m = fabric(2, { onPort })
  const [a, b] = [program(m, 0), program(m, 1)]
  const [qa, qb] = [a.queuePair('ud'), b.queuePair('ud')]
  qa.activate()
  qb.activate()
  for (const isGlobal of [false, true])
    qa.post({
      opcode: SEND,
      data: [a.element(0, 10)],
      destination: { gid: ipv4(2), qpn: qb.qpn, lid: 2, sl: 1, isGlobal },
    })
  completionsOf(m, a, 2)
  while (m.devices[1]!.poll(0));
  assert.deepEqual([...flows], ['LID 1 > LID 2 sl 1', 'LID 1 > LID 2 sl 1 grh'])
})

it('limited members of a partition exchange nothing, which is counted, and told to the subnet', () => {
  const news: Parameters<PortSubnet['news']>[0][] = []
  const m = fabric(2, { pkeys: [0x8001], news })
  m.devices.forEach(({ subnetPort }) => {
    subnetPort!.set({ pkeys: Uint16Array.of(0x0001) })
  })
  const [a, b] = [program(m, 0), program(m, 1)]
  const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
  qa.connect(qb, 1)
  qb.connect(qa, 0)
  qb.receive(b.element(0, 100))
  qa.post({ opcode: SEND, data: [a.element(0, 100)] })
  assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST_ERROR)
  assert.ok(m.devices[1]!.device.ports[0]!.attributes.badPkeyCntr > 0)
  assert.deepEqual(news[0], {
    kind: 'bad-pkey',
    key: 1,
    path: { slid: 1, dlid: 2, sl: 3, sourceQpn: 0, destQpn: qb.qpn },
  })
})

it('the failure of a connection says that both ends are limited members, or which one is in no partition', () => {
  const textOf = (pkeys: readonly [number, number]): string | undefined => {
    const m = fabric(2)
    m.devices.forEach(({ subnetPort }, i) => void subnetPort!.set({ pkeys: Uint16Array.of(pkeys[i]!) }))
    const [a, b] = [program(m, 0), program(m, 1)]
    const [qa, qb] = [a.queuePair('rc'), b.queuePair('rc')]
    const texts: string[] = []
    addFailureHandler(m.core, failure => void texts.push(failureText(failure)))
    qa.connect(qb, 1)
    qb.connect(qa, 0)
    qa.post({ opcode: SEND, data: [a.element(0, 100)] })
    completionsOf(m, a, 1)
    return texts.find(text => text.includes('RETRY_EXC_ERR'))
  }
  assert.match(
    textOf([1, 1])!,
    /QP 0x11 and QP 0x11 are both limited members of their partition: P_Key 0x1, without 0x8000/,
  )
  assert.match(textOf([0x8001, 0x8002])!, /sends with P_Key 0x8001, and QP 0x11 has 0x8002/)
  assert.match(textOf([0x8001, 0])!, /QP 0x\w+ has P_Key 0: its pkey_index is an empty entry/)
})

describe('why a datagram gets nowhere', () => {
  const GROUP = Uint8Array.of(0xff, 0x12, 0x40, 0x1b, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
  interface Sent {
    readonly lid: number
    readonly qpn?: number
    readonly gid?: Uint8Array
  }
  /** What the device of the first queue pair says of a datagram to the second. */
  const whyLost = (to: Sent, prepare: (m: ReturnType<typeof fabric>, attach: () => void) => void = () => {}) => {
    const m = fabric(3)
    const [a, b] = [program(m, 0), program(m, 1)]
    const [qa, qb] = [a.queuePair('ud'), b.queuePair('ud')]
    qa.activate()
    qb.activate()
    prepare(m, () => qb.attach(GROUP, 0xc001))
    const { device } = m.devices[0]!
    const { lid, gid = lidAddress(lid), qpn = qb.qpn } = to
    qa.post({ opcode: SEND, data: [a.element(0, 10)], destination: { gid, lid, qpn, isGlobal: to.gid !== undefined } })
    while (m.devices[0]!.poll(0));
    const cause = device.driver.requests!.whyLost!(device, qa.qpn, gid, qpn)
    return cause && causeText(cause)
  }
  const ownGid = (m: ReturnType<typeof fabric>, i: number) => m.devices[i]!.device.ports[0]!.gids.entries[0]!.gid

  it('is unknown, if it gets somewhere', () => {
    assert.equal(whyLost({ lid: 2 }), undefined)
    assert.equal(whyLost({ lid: 2, gid: ownGid(fabric(3), 1) }), undefined)
    assert.equal(
      whyLost({ lid: 0xc001, qpn: 0xff_ffff, gid: GROUP }, (_, attach) => attach()),
      undefined,
    )
  })
  it('is the LID, the port, the partition or the GRH', () => {
    assert.match(whyLost({ lid: 3 })!, /^LID 3 is not that of the peer: QP \w+ is on mlx5_1, whose LID is 2$/)
    assert.match(whyLost({ lid: 0, qpn: 0x77_7777 })!, /^no port of the subnet has LID 0$/)
    assert.match(
      whyLost({ lid: 2 }, m => m.devices[1]!.subnetPort!.set({ state: INIT }))!,
      /^the port of mlx5_1 is INIT/,
    )
    assert.match(
      whyLost({ lid: 2 }, m => m.devices[1]!.subnetPort!.set({ pkeys: Uint16Array.of(0x8009) }))!,
      /sends with P_Key 0xffff, and QP 0x11 has 0x8009$/,
    )
    assert.match(
      whyLost({ lid: 2, gid: ownGid(fabric(3), 2) })!,
      /^dgid fe80:\S+ is no GID of mlx5_1, to which LID 2 leads$/,
    )
  })
  it('is a port with members that has not joined the group', () => {
    const why = whyLost({ lid: 0xc001, qpn: 0xff_ffff, gid: GROUP }, (m, attach) => {
      for (const { subnetPort } of m.devices) subnetPort!.attach(noSubnet)
      attach()
    })
    assert.match(why!, /^queue pairs of mlx5_1 are attached to the group.* multicast LID 0xc001 to it$/)
  })
})

it('a datagram with a wrong Q_Key is told to the subnet', () => {
  const news: Parameters<PortSubnet['news']>[0][] = []
  const m = fabric(2, { news })
  const [a, b] = [program(m, 0), program(m, 1)]
  const [qa, qb] = [a.queuePair('ud'), b.queuePair('ud')]
  qa.activate()
  qb.activate()
  qb.receive(b.element(0, 2048))
  const gid = m.devices[1]!.device.ports[0]!.gids.entries[0]!.gid
  const destination = { gid, qpn: qb.qpn, lid: 2, sl: 3, qkey: 0x55 }
  qa.post({ opcode: SEND, data: [a.element(0, 10)], destination })
  completionsOf(m, a, 1)
  while (m.devices[1]!.poll(0));
  assert.deepEqual(news, [
    { kind: 'bad-qkey', key: 0x55, path: { slid: 1, dlid: 2, sl: 3, sourceQpn: qa.qpn, destQpn: qb.qpn } },
  ])
})

describe('what an InfiniBand port has not', () => {
  it('raw packets, addresses of RoCE, and more than one LID', () => {
    const m = fabric(1)
    const p = program(m, 0)
    assert.throws(() => p.queuePair('raw'), /raw_packet_qp/)
    const qp = p.queuePair('rc')
    qp.modify({ state: 1, pkeyIndex: 0, port: 1, accessFlags: 0 })
    const rtr = { state: 2, pathMtu: 3, destQpn: 1, rqPsn: 0, maxDestRdAtomic: 1, minRnrTimer: 1 }
    const path = { dgid: ipv4(1), flowLabel: 0, sgidIndex: 0, hopLimit: 0, trafficClass: 0, sl: 0, staticRate: 0 }
    assert.throws(() => qp.modify({ ...rtr, address: { ...path, isGlobal: 1, port: 1 } }), /use ibAddress/)
    assert.throws(
      () => qp.modify({ ...rtr, ibAddress: { ...path, isGlobal: 0, port: 1, srcPathBits: 1, dlid: 1 } }),
      /the port has one LID/,
    )
  })
})
