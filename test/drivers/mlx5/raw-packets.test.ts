/*
 * Raw packets on mlx5 devices: frames from queue pair to queue pair by flow rules, checksums, work queues, and what
 * hostile programs do with all of them.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { mlx5Driver } from '../../../src/drivers/mlx5/device.ts'
import { hashFrame } from '../../../src/drivers/mlx5/raw/rss-hash.ts'
import { Flow, type FlowSpec } from '../../../src/spec/classes/flow.ts'
import { RawPacketQp } from '../../../src/spec/classes/qp/raw_packet_qp.ts'
import { RwqIndTable } from '../../../src/spec/classes/wq.ts'
import { RxHash, TOEPLITZ } from '../../../src/spec/drivers/mlx5.ts'
import { CompletionKind, EthernetSegment, FrameHeaders } from '../../../src/spec/drivers/mlx5-queues.ts'
import { FlowFlags, FlowSpecFlags, FlowSpecType, FlowType, QpState, WqState } from '../../../src/spec/enums.ts'
import type { RecordOf } from '../../../src/spec/schema/schema.ts'
import { MAX_FRAME_BYTES } from '../../../src/spec/wire/ethernet.ts'
import { arenaOver } from '../../../src/transport/wire/arena.ts'
import { createFrameKey, readKey } from '../../../src/transport/wire/flow-key.ts'
import { emitFrame } from '../../../src/transport/wire/frame.ts'
import { type Machine, machine, type Program, program, RDMA_WRITE, SEND } from './machine.ts'

const { NORMAL, ALL_DEFAULT, MC_DEFAULT, SNIFFER } = FlowType.values
const { ETH, IPV4, UDP, VXLAN_TUNNEL, ACTION_TAG, ACTION_DROP } = FlowSpecType.values
const { DONT_TRAP, EGRESS } = FlowFlags.values
const { RECEIVE, REQUEST, REQUEST_ERROR, RECEIVE_ERROR } = CompletionKind
const { L2_OK, L3_OK, L4_OK } = FrameHeaders

/** The addresses of the machine's devices, as `identify` makes them of 127.0.0.1 and so on. */
const mac = (device: number): number[] => [2, 0, 127, 0, 0, device + 1]
const GROUP = [1, 0, 0x5e, 1, 2, 3]
const STRANGER = [2, 9, 9, 9, 9, 9]

/** A UDP datagram over IPv4 of `bytes` bytes of payload. */
const datagram = (to: readonly number[], { port = 7000, bytes = 26, from = mac(0) } = {}): Uint8Array =>
  emitFrame({
    kind: 'ipv4',
    destinationMac: Uint8Array.from(to),
    sourceMac: Uint8Array.from(from),
    source: Uint8Array.of(10, 0, 0, 1),
    destination: Uint8Array.of(10, 0, 0, 2),
    sourcePort: 6000,
    destinationPort: port,
    trafficClass: 0,
    hopLimit: 64,
    identification: 1,
    dontFragment: true,
    payload: Uint8Array.from({ length: bytes }, (_, i) => i),
  })

type Spec = RecordOf<typeof FlowSpec>
const spec = (type: number, value: readonly number[] = [], mask: readonly number[] = value.map(() => 0xff)): Spec => {
  const filter = (bytes: readonly number[]): Uint8Array => Uint8Array.from({ length: 40 }, (_, i) => bytes[i] ?? 0)
  return { type, value: filter(value), mask: filter(mask), flags: 0, tag: 0 }
}
const toMac = (device: number): Spec => spec(ETH, mac(device))
const toPort = (port: number): Spec => spec(UDP, [port >> 8, port & 0xff])
const tagged = (tag: number): Spec => ({ ...spec(ACTION_TAG), tag })

type RawQp = ReturnType<Program['queuePair']>

const rule = (owner: Program, qp: { object: number }, specs: readonly Spec[], more: object = {}) => {
  const args = { rawQp: qp.object, type: NORMAL, priority: 0, port: 1, flags: 0, specs, ...more }
  const { object } = owner.call(Flow, 'create', 0, args)
  return { remove: (): void => void owner.call(Flow, 'destroy', object, {}) }
}

const settle = (m: Machine, turns = 6): void => {
  for (let i = 0; i < turns; i++) for (const device of m.devices) device.poll(m.time.now)
}

const open = (owner: Program, options = {}): RawQp => {
  const qp = owner.queuePair('raw', options)
  qp.activate()
  return qp
}

/** Two devices; a queue pair of the first one sends. */
const pair = (count = 2) => {
  const m = machine(count)
  const programs = Array.from({ length: count }, (_, i) => program(m, i))
  const [a, b] = programs as [Program, Program]
  const sender = open(a)
  const send = (frame: Uint8Array, more: object = {}): void => {
    a.bytes.set(frame)
    sender.post({ opcode: SEND, ethernet: {}, data: [a.element(0, frame.length)], ...more })
    settle(m)
  }
  /** Posts `receives` receives of 2048 bytes each. */
  const receiver = (owner: Program, receives = 8): RawQp => {
    const qp = open(owner)
    for (let i = 0; i < receives; i++) qp.receive(owner.element(i * 2048, 2048))
    return qp
  }
  const received = (owner: Program): { uidx: number; bytes: number }[] =>
    owner
      .poll()
      .filter(({ kind }) => kind === RECEIVE)
      .map(({ uidx, bytes }) => ({ uidx, bytes }))
  return { m, a, b, programs, sender, send, receiver, received }
}

describe('a frame', () => {
  it('reaches the queue pair whose rule it matches, with what the device found out about it', () => {
    const { b, send, receiver } = pair()
    const qp = receiver(b)
    rule(b, qp, [toMac(1), toPort(7000), tagged(0xabcdef)])
    const frame = datagram(mac(1))
    send(frame)
    const [completion, ...more] = b.poll()
    assert.equal(more.length, 0)
    assert.deepEqual(
      [completion!.kind, completion!.uidx, completion!.bytes, (completion!.opcode << 16) | completion!.qpn],
      [RECEIVE, qp.uidx, frame.length, 0xabcdef],
    )
    // UDP over IPv4 may have no checksum
    assert.equal(completion!.headers, L2_OK | L3_OK | L4_OK | FrameHeaders.IPV4 | FrameHeaders.UDP)
    assert.deepEqual(b.bytes.slice(0, frame.length), frame)
  })

  it('goes to the device with its address only; to a group or a stranger, to all, the own one too', () => {
    const { a, b, programs, send, receiver, received } = pair(3)
    for (const owner of programs) rule(owner, receiver(owner), [], { type: ALL_DEFAULT })
    const arrivals = (to: readonly number[]): number[] => {
      send(datagram(to))
      return programs.map(owner => received(owner).length)
    }
    assert.deepEqual(arrivals(mac(1)), [0, 1, 0])
    assert.deepEqual(arrivals(mac(0)), [1, 0, 0])
    assert.deepEqual(arrivals(GROUP), [1, 1, 1])
    assert.deepEqual(arrivals(STRANGER), [1, 1, 1])
    assert.notEqual(a, b)
  })

  it('gets the checksums that its request asks for, and is not said to be right with wrong ones', () => {
    const { b, send, receiver } = pair()
    rule(b, receiver(b), [toMac(1)])
    const frame = datagram(mac(1))
    const right = frame.slice(24, 26)
    frame.set([0xde, 0xad], 24)
    frame.set([0xbe, 0xef], 40)
    send(frame)
    assert.equal(b.poll()[0]!.headers & (L3_OK | L4_OK), 0)
    send(frame, { ethernet: { checksums: EthernetSegment.L3_CHECKSUM | EthernetSegment.L4_CHECKSUM } })
    assert.equal(b.poll()[0]!.headers & (L3_OK | L4_OK), L3_OK | L4_OK)
    assert.deepEqual(b.bytes.slice(2048 + 24, 2048 + 26), right)
    assert.notDeepEqual(b.bytes.slice(2048 + 40, 2048 + 42), Uint8Array.of(0, 0))
  })

  it('may begin in its request, or lie there whole, over the end of the queue too', () => {
    const { m, a, b, sender, receiver, received } = pair()
    rule(b, receiver(b, 64), [toMac(1)])
    const frame = datagram(mac(1))
    a.bytes.set(frame)
    for (let i = 0; i < 64; i++) {
      const header = frame.subarray(0, [0, 2, 18, 34][i % 4])
      const rest =
        i % 3 === 0
          ? { inline: frame.subarray(header.length) }
          : { data: [a.element(header.length, frame.length - header.length)] }
      sender.post({ opcode: SEND, ethernet: { header }, ...rest })
      settle(m, 2)
      const [{ bytes } = { bytes: 0 }] = received(b)
      assert.equal(bytes, frame.length)
      assert.deepEqual(b.bytes.slice(i * 2048, i * 2048 + frame.length), frame, `frame ${i}`)
    }
    assert.equal(a.poll().filter(({ kind }) => kind === REQUEST).length, 64)
  })

  it('without a receive, or with too small a one, is dropped and counted; the queue goes on', () => {
    const { m, b, send, received } = pair()
    const qp = open(b)
    rule(b, qp, [toMac(1)])
    send(datagram(mac(1)))
    assert.equal(m.devices[1]!.counters!().hardware!.out_of_buffer, 1)
    qp.receive(b.element(0, 20))
    send(datagram(mac(1)))
    assert.deepEqual(b.poll(), [])
    send(datagram(mac(1)).slice(0, 14))
    assert.deepEqual(received(b), [{ uidx: qp.uidx, bytes: 14 }])
  })

  it('of RoCE is not passed on: no program reaches the queue pairs of others', () => {
    const { m, a, b, send, receiver } = pair()
    rule(b, receiver(b), [], { type: SNIFFER })
    rule(b, receiver(b), [], { type: ALL_DEFAULT })
    send(datagram(mac(1), { port: 4791 }))
    const v1 = datagram(mac(1))
    v1.set([0x89, 0x15], 12)
    send(v1)
    assert.deepEqual(b.poll(), [])
    assert.equal(m.devices[0]!.counters!().port.roceFrames, 2)
    assert.equal(a.poll().length, 2)
  })

  it('of a length that no frame has fails its request, and says why', () => {
    for (const bytes of [0, 13, MAX_FRAME_BYTES + 1, 65_536]) {
      const { m, a, sender } = pair()
      sender.post({ opcode: SEND, ethernet: {}, data: [a.element(0, bytes)] })
      settle(m)
      const [completion] = a.poll()
      assert.deepEqual([completion!.kind, completion!.syndrome], [REQUEST_ERROR, 1], `${bytes} bytes`)
    }
    const { m, a, sender, b, receiver } = pair()
    rule(b, receiver(b), [], { type: ALL_DEFAULT })
    sender.post({ opcode: RDMA_WRITE, ethernet: {}, data: [a.element(0, 60)] })
    settle(m)
    assert.equal(a.poll()[0]!.kind, REQUEST_ERROR)
    assert.deepEqual(b.poll(), [])
  })
})

describe('flow rules', () => {
  it('apply in the order of priorities and types; equal ones all get the frame', () => {
    const { b, send, receiver, received } = pair()
    const all = receiver(b)
    const groups = receiver(b)
    const low = receiver(b)
    const high = receiver(b)
    const twin = receiver(b)
    rule(b, all, [], { type: ALL_DEFAULT })
    rule(b, groups, [], { type: MC_DEFAULT })
    rule(b, low, [toMac(1)], { priority: 3 })
    const first = rule(b, high, [toMac(1), toPort(7000)], { priority: 1 })
    const second = rule(b, twin, [toMac(1), toPort(7000)], { priority: 1 })
    const takers = (frame: Uint8Array): number[] => {
      send(frame)
      return received(b).map(({ uidx }) => uidx)
    }
    assert.deepEqual(takers(datagram(mac(1))), [high.uidx, twin.uidx])
    first.remove()
    assert.deepEqual(takers(datagram(mac(1))), [twin.uidx])
    second.remove()
    assert.deepEqual(takers(datagram(mac(1))), [low.uidx])
    assert.deepEqual(takers(datagram(GROUP)), [groups.uidx])
    assert.deepEqual(takers(datagram(STRANGER)), [all.uidx])
  })

  it('drop frames, let them pass on, and copy them to sniffers of both devices', () => {
    const { a, b, send, receiver, received } = pair()
    const qp = receiver(b)
    const other = receiver(b)
    rule(b, receiver(a), [toMac(1), toPort(1)].slice(0, 0), { type: ALL_DEFAULT, rawQp: other.object })
    rule(b, qp, [toMac(1)], { flags: DONT_TRAP })
    send(datagram(mac(1)))
    assert.deepEqual(
      received(b).map(({ uidx }) => uidx),
      [qp.uidx, other.uidx],
    )
    const drop = rule(b, qp, [toMac(1), toPort(7000), spec(ACTION_DROP)])
    const sniffers = [a, b].map(owner => rule(owner, receiver(owner), [], { type: SNIFFER }))
    send(datagram(mac(1)))
    assert.deepEqual([received(a).length, received(b).length], [1, 1])
    for (const { remove } of [drop, ...sniffers]) remove()
    send(datagram(mac(1)))
    assert.deepEqual([received(a).length, received(b).length], [0, 2])
  })

  it('name the headers behind a tunnel', () => {
    const { b, send, receiver, received } = pair()
    const qp = receiver(b)
    const inner = { ...toPort(53), flags: FlowSpecFlags.values.INNER }
    rule(b, qp, [spec(VXLAN_TUNNEL, [0, 0x12, 0x34, 0x56]), inner])
    const tunnel = (vni: number, port: number): Uint8Array => {
      const packet = datagram(STRANGER, { port })
      const outer = datagram(mac(1), { port: 4789, bytes: 8 + packet.length })
      outer.set([8, 0, 0, 0, vni >> 16, (vni >> 8) & 0xff, vni & 0xff, 0], 42)
      outer.set(packet, 50)
      return outer
    }
    for (const [vni, port, count] of [
      [0x123456, 53, 1],
      [0x123457, 53, 0],
      [0x123456, 54, 0],
    ] as const) {
      send(tunnel(vni, port))
      assert.equal(received(b).length, count, `${vni} ${port}`)
    }
  })

  it('that the device cannot have are refused with the reason', () => {
    const { b, receiver } = pair()
    const qp = receiver(b)
    const ud = b.queuePair('ud')
    for (const [specs, more, message] of [
      [[spec(0x22)], {}, /spec 0: IB/],
      [[toMac(1), toMac(1)], {}, /spec 1: the rule has a spec of ETH already/],
      [[toMac(1)], { type: SNIFFER }, /SNIFFER names no headers/],
      [[], { type: SNIFFER, flags: DONT_TRAP }, /only gets copies/],
      [[], { flags: EGRESS }, /EGRESS/],
      [[], { port: 2 }, /port: 2/],
      [[], { priority: 16 }, /priority: 16 is not in 0 to 15/],
      [[tagged(0x1000000)], {}, /0x1000000 has more than 24 bits/],
      [[spec(IPV4, [], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])], {}, /byte 11/],
      [[], { rawQp: undefined, udQp: ud.object }, /udQp/],
    ] as const)
      assert.throws(() => rule(b, qp, specs, more), message)
    const flow = rule(b, qp, [toMac(1)])
    assert.throws(() => qp.destroy(), /EBUSY|use/)
    flow.remove()
    qp.destroy()
  })

  it('of ten thousand one does not slow the others down, and different masks are limited', () => {
    const { m, b, send, receiver, received } = pair()
    const qp = receiver(b, 64)
    const rules = Array.from({ length: 10_000 }, (_, i) => rule(b, qp, [toPort(10_000 + i), tagged(i)]))
    const masks: ReturnType<typeof rule>[] = []
    const addMasks = (): void => {
      for (let i = 0; i < 100; i++)
        masks.push(rule(b, qp, [spec(ETH, [], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, i + 1])]))
    }
    assert.throws(addMasks, /64 different masks/)
    assert.equal(masks.length, 63)
    for (const { remove } of masks) remove()
    // the same rule once more is no second copy
    const again = Array.from({ length: 100 }, () => rule(b, qp, [toPort(12_345), tagged(2345)]))
    rules[2345]!.remove()
    send(datagram(mac(1), { port: 12_345 }))
    assert.equal(received(b).length, 1)
    const others = Array.from({ length: 64 }, () => open(b, { sends: 1, receives: 1 }))
    const copies = others.slice(1).map(other => rule(b, other, [toPort(12_345)]))
    assert.throws(() => rule(b, others[0]!, [toPort(12_345)]), /64 queue pairs get these frames already/)
    for (const { remove } of copies) remove()
    rules[2345] = again.pop()!
    for (const { remove } of again) remove()
    send(datagram(mac(1), { port: 12_345 }))
    const [{ qpn } = { qpn: 0 }] = b.poll()
    assert.equal(qpn, 2345)
    for (const { remove } of rules) remove()
    send(datagram(mac(1), { port: 12_345 }))
    assert.deepEqual(received(b), [])
    assert.equal(m.devices[1]!.device.counts.flow, 0)
  })
})

describe('work queues', () => {
  const key = Uint8Array.from({ length: 128 }, (_, i) => (i < 40 ? (i * 37) & 0xff : 0))
  const scaling = (owner: Program, table: number, more: object = {}) =>
    owner.call<{ qpNum: number }>(RawPacketQp, 'create', 0, {
      pd: owner.pd,
      cap: { maxSendWr: 0, maxRecvWr: 0, maxSendSge: 0, maxRecvSge: 0, maxInlineData: 0 },
      userHandle: 0n,
      rwqIndTable: table,
      hashFields: 0xc0n,
      hashFunction: TOEPLITZ,
      hashKeyBytes: 40,
      hashKey: key,
      ...more,
    })
  const table = (owner: Program, queues: readonly { object: number }[]): number =>
    owner.call(RwqIndTable, 'create', 0, { queues: queues.map(({ object }) => ({ wq: object })) }).object

  it('share the frames of a rule by their hash, and keep those of a flow together', () => {
    const { b, send, received } = pair()
    const queues = Array.from({ length: 4 }, () => b.workQueue())
    for (const [i, queue] of queues.entries()) {
      queue.modify({ state: WqState.values.RDY })
      for (let j = 0; j < 16; j++) queue.receive(b.element((i * 16 + j) * 2048, 2048))
    }
    const { object } = scaling(b, table(b, queues))
    rule(b, { object }, [toMac(1)])
    // what `userdma check` reads
    const { queuesOf, receives } = mlx5Driver.requests
    assert.deepEqual(
      [...queuesOf!(b.context)].map(queue => receives!(queue, 0).length),
      [16, 16, 16, 16],
    )
    assert.deepEqual(receives!(b.context.handles.slots[object]!, 0), [])
    const takers = new Set<number>()
    for (let port = 7000; port < 7016; port++) {
      const uidx = [0, 1].map(() => {
        send(datagram(mac(1), { port }))
        const [taken, ...more] = received(b)
        assert.equal(more.length, 0)
        return taken!.uidx
      })
      assert.equal(uidx[0], uidx[1])
      takers.add(uidx[0]!)
    }
    assert.ok(takers.size > 1, 'all flows went to one queue')
    for (const uidx of takers) assert.ok(queues.some(queue => queue.uidx === uidx))
  })

  it("hash as Microsoft's table of test vectors says", () => {
    const fromTable = '6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa'
    const frame = datagram(mac(1))
    frame.set([66, 9, 149, 187, 161, 142, 100, 80, 2794 >> 8, 2794 & 255, 1766 >> 8, 1766 & 255], 26)
    const frameKey = createFrameKey()
    readKey(frameKey, arenaOver(frame), 0, frame.length)
    const hash = (fields: number): number => hashFrame({ fields, key: Buffer.from(fromTable, 'hex') }, frameKey) >>> 0
    const addresses = RxHash.SRC_IPV4 | RxHash.DST_IPV4
    assert.equal(hash(addresses), 0x323e8fc2)
    assert.equal(hash(addresses | RxHash.SRC_PORT_UDP | RxHash.DST_PORT_UDP), 0x51ccc178)
    assert.equal(hash(RxHash.SRC_IPV6), 0)
  })

  it('flush in ERR, are empty in RESET, and stay while a table uses them', () => {
    const { m, b } = pair()
    const queue = b.workQueue()
    assert.throws(() => queue.modify({ state: WqState.values.ERR }), /RESET to ERR/)
    queue.modify({ state: WqState.values.RDY })
    queue.receive(b.element(0, 64))
    queue.modify({ state: WqState.values.ERR })
    settle(m)
    assert.deepEqual(
      b.poll().map(({ kind, uidx }) => [kind, uidx]),
      [[RECEIVE_ERROR, queue.uidx]],
    )
    assert.throws(
      () => queue.modify({ state: WqState.values.RDY, curState: WqState.values.RDY }),
      /is in ERR, not in RDY/,
    )
    queue.modify({ state: WqState.values.RESET })
    const indirection = table(b, [queue])
    assert.throws(() => queue.destroy(), /EBUSY|use/)
    assert.throws(() => table(b, [queue, queue, queue]), /3 is no power of two/)
    assert.throws(() => table(b, [{ object: b.pd }]), /no handle of a work queue/)
    for (const [more, message] of [
      [{ hashFields: 0x100n }, /ESP and tunnels/],
      [{ hashFields: 0x50n }, /TCP and UDP, exclude/],
      [{ hashFunction: 2 }, /hash function 2/],
      [{ hashKeyBytes: 41 }, /41 bytes/],
      [{ sendCq: b.cq.object }, /no send queue/],
    ] as const)
      assert.throws(() => scaling(b, indirection, more), message)
    b.call(RwqIndTable, 'destroy', indirection, {})
    queue.destroy()
  })
})

describe('a hostile program', () => {
  it('writes random requests of raw packets: nothing crashes, and others go on', () => {
    const { m, a, b, send, receiver, received } = pair()
    rule(b, receiver(b, 4), [toMac(1)])
    let seed = 7
    const random = (limit: number): number => {
      seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0
      return (seed >>> 8) % limit
    }
    for (let round = 0; round < 300; round++) {
      const qp = open(a)
      const raw = Uint8Array.from({ length: 16 * (1 + random(12)) }, () => random(256))
      if (random(2) === 0) raw.fill(0, 0, 14)
      qp.post({ opcode: SEND, raw })
      settle(m, 2)
      qp.modify({ state: QpState.values.ERR })
      qp.destroy()
      a.poll()
    }
    b.poll()
    send(datagram(mac(1)))
    assert.ok(received(b).length <= 1)
    assert.equal(a.poll().length, 1)
  })

  it('destroys its receivers and rules while frames arrive', () => {
    const { m, a, b, sender, receiver } = pair()
    for (let round = 0; round < 50; round++) {
      const qp = receiver(b, 1)
      const flow = rule(b, qp, [toMac(1)])
      a.bytes.set(datagram(mac(1)))
      for (let i = 0; i < 8; i++) sender.post({ opcode: SEND, ethernet: {}, data: [a.element(0, 60)] })
      m.devices[0]!.poll(m.time.now)
      flow.remove()
      qp.destroy()
      settle(m, 2)
      a.poll()
      b.poll()
    }
    // the receiver's queues remain shared only as long as they exist
    const before = b.pages.shared()
    receiver(b, 1).destroy()
    assert.equal(b.pages.shared(), before)
  })
})
