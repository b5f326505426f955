/*
 * Datagrams, address handles, multicast groups and QP 1 of the soft device.
 */

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { closeContext, invokeNow } from '../../../src/core/index.ts'
import { setLink } from '../../../src/drivers/soft/interface.ts'
import { createTorment } from '../../../src/drivers/soft/torment/torment.ts'
import { Ah } from '../../../src/spec/classes/ah.ts'
import { GsiQp } from '../../../src/spec/classes/qp/gsi_qp.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { UcQp } from '../../../src/spec/classes/qp/uc_qp.ts'
import { UdQp } from '../../../src/spec/classes/qp/ud_qp.ts'
import { AddressVector } from '../../../src/spec/drivers/mapped-rings.ts'
import { MULTICAST_QPN } from '../../../src/spec/wire/headers.ts'
import { GSI_QKEY, GSI_QPN } from '../../../src/spec/wire/mad.ts'
import { WcFlags, WcStatus } from '../../../src/spec/work.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { parseFrame } from '../../../src/transport/wire/frame.ts'
import { errnoOf } from '../../core/fixture.ts'
import {
  assertNothingLeft,
  cap,
  ipv4,
  ipv6,
  type Machine,
  machine,
  makeCq,
  type Program,
  path,
  program,
  Qps,
  type Region,
  register,
  type TestCq,
} from '../rxe/machine.ts'
import { pattern, sgeOf } from '../rxe/pair.ts'
import { type MappedRing, mapRing, pollAll, postReceive, postSend, Wr } from '../rxe/provider.ts'

const { SUCCESS, LOC_QP_OP_ERR, WR_FLUSH_ERR } = WcStatus.values
const QKEY = 0x1234
const GROUP = ipv4(239, 77, 0, 9)
const RECEIVE_BYTES = 1024
/** Offset of the bytes to send in a peer's region. */
const SOURCE = 4096
type DatagramClass = typeof UdQp | typeof GsiQp

interface Peer {
  readonly p: Program
  readonly cq: TestCq
  readonly mr: Region
  readonly qpn: number
  readonly handle: number
  readonly send: MappedRing
  readonly receive: MappedRing
}

/** A peer whose queue pair is in RESET. */
const makePeer = (p: Program, cls: DatagramClass = UdQp, maxSendWr = 15): Peer => {
  const cq = makeCq(p, Math.max(63, maxSendWr))
  const args = { pd: p.pd, sendCq: cq.handle, recvCq: cq.handle, cap: cap({ maxSendWr }), userHandle: 0n }
  const { object, out } = invokeNow(p.context, cls, 'create', 0, args, p.caller)
  const queues = out as unknown as Record<'sendQueue' | 'recvQueue', { offset: bigint }>
  return {
    p,
    cq,
    mr: register(p, 12 * RECEIVE_BYTES),
    qpn: out.qpNum,
    handle: object!,
    send: mapRing(p.rings.at(queues.sendQueue.offset)),
    receive: mapRing(p.rings.at(queues.recvQueue.offset)),
  }
}
const toRts = ({ p, handle }: Peer, cls: DatagramClass = UdQp): void => {
  const port = cls === UdQp ? { port: 1 } : {}
  const init = { state: Qps.INIT, pkeyIndex: 0, qkey: QKEY, ...port }
  invokeNow(p.context, cls as typeof UdQp, 'modify', handle, init, p.caller)
  invokeNow(p.context, cls, 'modify', handle, { state: Qps.RTR }, p.caller)
  invokeNow(p.context, cls, 'modify', handle, { state: Qps.RTS, sqPsn: 7 }, p.caller)
}
/** A program with a UD queue pair in RTS. */
const udPeer = (m: Machine, device: number): Peer => {
  const peer = makePeer(program(m, device))
  toRts(peer)
  return peer
}
/** An address handle; WQEs name it by `number`. */
const createAh = (
  { context, pd, caller }: Program,
  dgid: Uint8Array,
  fields = {},
): { handle: number; number: number } => {
  const args = { pd, address: path(dgid, fields), userHandle: 0n }
  const { object, out } = invokeNow(context, Ah, 'create', 0, args, caller)
  return { handle: object!, number: (out as unknown as { number: number }).number }
}
/** An address vector for a WQE, with port 1 and the sender's GID 1. */
const vectorTo = (gid: Uint8Array): Uint8Array => {
  const vector = new Uint8Array(AddressVector.BYTES)
  vector[AddressVector.PORT] = 1
  vector.set(gid, AddressVector.DGID)
  vector[AddressVector.SGID_INDEX] = 1
  return vector
}
/** The GID of the IPv4 address. */
const gidOf = ({ p }: Peer): Uint8Array => p.rxe.device.state.identity.gids[1]
/** Posts at most 12 receives of RECEIVE_BYTES, with IDs from 100. */
const postReceives = ({ receive, mr }: Peer, count = 3): void => {
  for (let i = 0; i < count; i++)
    assert.ok(postReceive(receive, BigInt(100 + i), [sgeOf(mr, i * RECEIVE_BYTES, RECEIVE_BYTES)]))
}
/** Sends `length` bytes from SOURCE, with the ID 1. */
const sendTo = (from: Peer, qpn: number, ahNumber: number, { length = 64, qkey = QKEY } = {}): void => {
  pattern(from.mr.bytes.subarray(SOURCE), 5)
  const request = { opcode: Wr.SEND, id: 1n, sges: [sgeOf(from.mr, SOURCE, length)] }
  assert.ok(postSend(from.send, { ...request, to: { qpn, qkey, ah: ahNumber } }))
}
const GRH_BYTES = 40
/** RoCEv2 adapters report the IP version in the SL of a completion: bit 3 for UDP, with 1 for IPv6 or 2 for IPv4. */
const SL_IPV4 = 0xa
const SL_IPV6 = 0x9
/** ID, status, bytes and source queue pair of each completion. */
const polled = ({ cq }: Peer) =>
  pollAll(cq.ring).map(({ id, status, bytes, srcQp }) => [Number(id), status, bytes, srcQp])
const pair = () => {
  const m = machine()
  return { m, a: udPeer(m, 0), b: udPeer(m, 1) }
}

describe('a datagram', () => {
  it('reaches the destination queue pair, with the sender’s IPv4 header', () => {
    const { m, a, b } = pair()
    postReceives(b)
    sendTo(a, b.qpn, createAh(a.p, gidOf(b), { trafficClass: 0x20 }).number, { length: 77 })
    m.settle()
    assert.deepEqual(polled(a), [[1, 0, 77, 0]])
    const [wc] = pollAll(b.cq.ring)
    assert.deepEqual(
      [wc.bytes, wc.srcQp, wc.sl, wc.flags, wc.port],
      [GRH_BYTES + 77, a.qpn, SL_IPV4, WcFlags.values.GRH, 1],
    )
    const { bytes } = b.mr
    assert.deepEqual(bytes.slice(GRH_BYTES, GRH_BYTES + 77), a.mr.bytes.slice(SOURCE, SOURCE + 77))
    const [ETHERNET_BYTES, IPV4_BYTES] = [14, 20]
    const ipv4Header = bytes.subarray(GRH_BYTES - IPV4_BYTES, GRH_BYTES)
    assert.ok(bytes.subarray(0, GRH_BYTES - IPV4_BYTES).every(byte => byte === 0))
    // in a frame with an Ethernet header and a UDP length, parseFrame verifies the checksum of the IPv4 header
    const ipv4Length = (ipv4Header[2] << 8) | ipv4Header[3]
    const frame = new Uint8Array(ETHERNET_BYTES + ipv4Length)
    const view = new DataView(frame.buffer)
    view.setUint16(12, 0x0800) // EtherType of IPv4
    frame.set(ipv4Header, ETHERNET_BYTES)
    view.setUint16(ETHERNET_BYTES + IPV4_BYTES + 4, ipv4Length - IPV4_BYTES) // length in the UDP header
    const parsed = parseFrame(frame)
    assert.ok(parsed.kind === 'ipv4', JSON.stringify(parsed))
    assert.deepEqual([...parsed.source, ...parsed.destination], [127, 0, 0, 1, 127, 0, 0, 2])
    assert.equal(parsed.trafficClass, 0x20)
    assert.equal(parsed.payload.length, 12 + 8 + 77 + 3 + 4, 'BTH, DETH, data, padding, ICRC')
  })
  it('over IPv6 arrives with the IPv6 header', () => {
    const { m, a, b } = pair()
    postReceives(b)
    sendTo(a, b.qpn, createAh(a.p, ipv6(2), { sgidIndex: 2, flowLabel: 0x12345 }).number, { length: 8 })
    m.settle()
    const [wc] = pollAll(b.cq.ring)
    assert.equal(wc.sl, SL_IPV6)
    const { bytes } = b.mr
    // version, traffic class and flow label, which rxe sets to 0; the length: UDP header, BTH, DETH, data, ICRC; next
    // header, hop limit
    const UDP = 8
    assert.deepEqual([...bytes.slice(0, 8)], [0x60, 0, 0, 0, 0, UDP + 12 + 8 + 8 + 4, 17, 64])
    assert.deepEqual(bytes.slice(8, 40), Uint8Array.from([...ipv6(1), ...ipv6(2)]))
  })
  it('may go to the sending queue pair', () => {
    const m = machine(1)
    const a = udPeer(m, 0)
    const { number } = createAh(a.p, gidOf(a))
    postReceives(a)
    sendTo(a, a.qpn, number)
    m.settle()
    assert.deepEqual(polled(a), [
      [1, 0, 64, 0],
      [100, 0, GRH_BYTES + 64, a.qpn],
    ])
  })
  it('with a wrong Q_Key is dropped and counted', () => {
    const { m, a, b } = pair()
    postReceives(b)
    sendTo(a, b.qpn, createAh(a.p, gidOf(b)).number, { qkey: QKEY + 1 })
    m.settle()
    assert.deepEqual(polled(b), [])
    assert.equal(b.p.rxe.device.state.engine().counters.qkeyViolations, 1)
  })
  it('is at most as long as the port’s MTU', () => {
    const { m, a, b } = pair()
    for (let i = 0; i < 2; i++) postReceive(b.receive, BigInt(100 + i), [sgeOf(b.mr, 0, GRH_BYTES + 4096)])
    const { number } = createAh(a.p, gidOf(b))
    sendTo(a, b.qpn, number, { length: 4096 })
    postSend(a.send, { opcode: Wr.SEND, sges: [sgeOf(a.mr, 0, 4097)], to: { qpn: b.qpn, qkey: QKEY, ah: number } })
    m.settle()
    assert.deepEqual(polled(b), [[100, 0, GRH_BYTES + 4096, a.qpn]])
    assert.equal(polled(a).length, 2)
  })
  it('is at most as long as the MTU of the interface, which may change', () => {
    const m = machine()
    const setMtu = (pathMtu: number) => setLink(m.devices[0].device, { isUp: true, hasCarrier: true, pathMtu })
    setMtu(512)
    const [a, b] = [udPeer(m, 0), udPeer(m, 1)]
    postReceives(b)
    const { number } = createAh(a.p, gidOf(b))
    for (const [mtu, lengths] of [
      [512, [512, 513]],
      [256, [256, 512]],
      [512, [512, 513]],
    ] as const) {
      setMtu(mtu)
      for (const length of lengths) sendTo(a, b.qpn, number, { length })
      m.settle()
      assert.deepEqual(
        polled(b).map(([, , length]) => length),
        [GRH_BYTES + mtu],
      )
      assert.equal(polled(a).length, 2)
    }
  })
})

describe('datagrams under torment', () => {
  it('to a queue pair or group overtake each other, but none is lost or duplicated', () => {
    let roundsOutOfOrder = 0
    for (let seed = 0; seed < 12; seed++)
      for (const isGroup of [false, true]) {
        const torment = createTorment({ seed, maxDecisions: Number.POSITIVE_INFINITY }, plainArena(4096))
        const m = machine(2, { torment })
        const [a, b] = [udPeer(m, 0), udPeer(m, 1)]
        if (isGroup) invokeNow(b.p.context, UdQp, 'attachMcast', b.handle, { gid: GROUP, mlid: 0 }, b.p.caller)
        const { number } = createAh(a.p, isGroup ? GROUP : gidOf(b))
        const count = 12
        for (let i = 0; i < count; i++) assert.ok(postReceive(b.receive, BigInt(i), [sgeOf(b.mr, i * 128, 128)]))
        for (let i = 0; i < count; i++) {
          a.mr.bytes[SOURCE + i] = i
          const request = { opcode: Wr.SEND, id: BigInt(i), sges: [sgeOf(a.mr, SOURCE + i, 1)] }
          assert.ok(
            postSend(a.send, { ...request, to: { qpn: isGroup ? MULTICAST_QPN : b.qpn, qkey: QKEY, ah: number } }),
          )
        }
        m.settle()
        // all delayed datagrams arrive
        while (m.tick());
        const sent = pollAll(a.cq.ring).map(({ id, status }) => [Number(id), status])
        assert.deepEqual(
          sent,
          Array.from({ length: count }, (_, i) => [i, 0]),
        )
        const received = pollAll(b.cq.ring).map(({ id }) => b.mr.bytes[Number(id) * 128 + GRH_BYTES])
        const inOrder = Array.from({ length: count }, (_, i) => i)
        assert.deepEqual(
          received.toSorted((x, y) => x - y),
          inOrder,
          `seed ${seed}`,
        )
        if (String(received) !== String(inOrder)) roundsOutOfOrder++
      }
    assert.ok(roundsOutOfOrder > 0)
  })
})

describe('address handles', () => {
  it('have numbers, which requests name until destroy', () => {
    const { m, a, b } = pair()
    const first = createAh(a.p, gidOf(b))
    const second = createAh(a.p, gidOf(b))
    assert.notEqual(first.number, 0)
    assert.notEqual(first.number, second.number)
    invokeNow(a.p.context, Ah, 'destroy', first.handle, {}, a.p.caller)
    sendTo(a, b.qpn, first.number)
    m.settle()
    assert.deepEqual(polled(a), [[1, LOC_QP_OP_ERR, 0, 0]])
    assert.equal(invokeNow(a.p.context, UdQp, 'query', a.handle, {}, a.p.caller).out.state, Qps.SQE)
  })
  it('of another protection domain are refused', () => {
    const { m, a, b } = pair()
    const other = program(m, 0)
    sendTo(a, b.qpn, createAh(other, gidOf(b)).number)
    m.settle()
    assert.deepEqual(polled(a), [[1, LOC_QP_OP_ERR, 0, 0]])
  })
  it('are refused where Linux refuses them', () => {
    const { a } = pair()
    assert.equal(
      errnoOf(() => createAh(a.p, ipv4(10, 0, 0, 1), { port: 2 })),
      'EINVAL',
    )
    assert.equal(
      errnoOf(() => createAh(a.p, ipv4(10, 0, 0, 1), { isGlobal: 0 })),
      'EINVAL',
    )
    assert.equal(
      errnoOf(() => createAh(a.p, ipv4(10, 0, 0, 1), { sgidIndex: 9 })),
      'ENODATA',
    )
    assert.equal(
      errnoOf(() => createAh(a.p, ipv6(1))),
      'EINVAL',
    )
  })
  it('can be queried and changed', () => {
    const { m, a, b } = pair()
    const { handle, number } = createAh(a.p, ipv4(10, 9, 9, 9), { trafficClass: 3 })
    const { address } = invokeNow(a.p.context, Ah, 'query', handle, {}, a.p.caller).out
    assert.deepEqual([...address.dgid.slice(12), address.trafficClass, address.hopLimit], [10, 9, 9, 9, 3, 64])
    invokeNow(a.p.context, Ah, 'modify', handle, { address: path(gidOf(b)) }, a.p.caller)
    postReceives(b)
    sendTo(a, b.qpn, number)
    m.settle()
    assert.deepEqual(polled(b), [[100, 0, GRH_BYTES + 64, a.qpn]])
  })
  it('are those of requests that were posted before a destroy or modify, although no poll has seen them', () => {
    for (const method of ['destroy', 'modify'] as const) {
      const { m, a, b } = pair()
      postReceives(b)
      const { handle, number } = createAh(a.p, gidOf(b))
      for (let i = 0; i < 3; i++) sendTo(a, b.qpn, number)
      if (method === 'destroy') invokeNow(a.p.context, Ah, 'destroy', handle, {}, a.p.caller)
      else invokeNow(a.p.context, Ah, 'modify', handle, { address: path(ipv4(10, 9, 9, 9)) }, a.p.caller)
      m.settle()
      for (const peer of [a, b])
        assert.deepEqual(
          polled(peer).map(([, status]) => status),
          [SUCCESS, SUCCESS, SUCCESS],
          method,
        )
      for (const { p } of [a, b]) closeContext(p.context)
      assertNothingLeft(m, [a.p, b.p])
      assert.equal(a.p.rxe.device.state.datagramRows.size, 0)
    }
  })
  it('may be replaced by address vectors in requests, as by older providers', () => {
    const { m, a, b } = pair()
    postReceives(b)
    const to = { qpn: b.qpn, qkey: QKEY, ah: 0, vector: vectorTo(gidOf(b)) }
    for (let i = 0; i < 2; i++) postSend(a.send, { opcode: Wr.SEND, sges: [sgeOf(a.mr, 0, 4)], to })
    m.settle()
    assert.equal(polled(b).length, 2)
    postSend(a.send, { opcode: Wr.SEND, to: { ...to, vector: new Uint8Array(AddressVector.BYTES) } })
    m.settle()
    assert.deepEqual(
      polled(a).map(([, status]) => status),
      [SUCCESS, SUCCESS, LOC_QP_OP_ERR],
    )
  })
  it('and their queue pairs leave nothing behind', () => {
    const { m, a, b } = pair()
    createAh(a.p, gidOf(b))
    for (let i = 0; i < 100; i++) {
      const to = { qpn: GSI_QPN, qkey: QKEY, ah: 0, vector: vectorTo(ipv4(10, 0, i >> 8, i & 255)) }
      postSend(a.send, { opcode: Wr.SEND, to })
      m.settle()
    }
    invokeNow(b.p.context, UdQp, 'attachMcast', b.handle, { gid: GROUP, mlid: 0 }, b.p.caller)
    for (const { p } of [a, b]) closeContext(p.context)
    assertNothingLeft(m, [a.p, b.p])
    assert.equal(b.p.rxe.device.state.groups.rowsOf(GROUP).length, 0)
  })
})

describe('the path of a datagram that waits in the send queue', () => {
  const WINDOW = 4500
  /** `a` has posted more datagrams to `b` than `a` sends in one pacing interval, with the address handle `handle`. */
  const waiting = (fault = '') => {
    const m = machine(3, { fault, windowBytes: WINDOW })
    const [a, b, c] = [0, 1, 2].map(device => udPeer(m, device))
    postReceives(b, 12)
    postReceives(c, 12)
    const { handle, number } = createAh(a.p, gidOf(b))
    for (let i = 0; i < 12; i++) sendTo(a, b.qpn, number, { length: 1000 - GRH_BYTES })
    m.settle()
    return { m, a, b, c, handle }
  }
  const statuses = (peer: Peer): unknown[] => polled(peer).map(([, status]) => status)
  const tickAll = (m: Machine): void => {
    for (let i = 0; i < 50 && m.tick(); i++);
  }

  for (const fault of ['', 'delay=1ms,seed=3'])
    it(`stays open when its address handle is destroyed${fault && ', also behind a fault layer'}`, () => {
      const { m, a, b, c, handle } = waiting(fault)
      invokeNow(a.p.context, Ah, 'destroy', handle, {}, a.p.caller)
      // if the path to `b` were closed, the path to `c` would reuse the number
      createAh(a.p, gidOf(c))
      tickAll(m)
      const sent = statuses(a)
      const fetched = sent.lastIndexOf(SUCCESS) + 1
      assert.ok(fetched > 1 && fetched < 12, `${fetched} WQEs were fetched before the handle was destroyed`)
      assert.deepEqual(sent.slice(fetched), [LOC_QP_OP_ERR, ...new Array(11 - fetched).fill(WR_FLUSH_ERR)])
      assert.deepEqual(statuses(b), new Array(fetched).fill(SUCCESS))
      assert.deepEqual(statuses(c), [])
      for (const { p } of [a, b, c]) closeContext(p.context)
      tickAll(m)
      assertNothingLeft(m, [a.p, b.p, c.p])
    })
  it('does not change when its address handle is modified; WQEs fetched later use the new path', () => {
    const { m, a, b, c, handle } = waiting()
    invokeNow(a.p.context, Ah, 'modify', handle, { address: path(gidOf(c)) }, a.p.caller)
    tickAll(m)
    assert.deepEqual(statuses(a), new Array(12).fill(SUCCESS))
    const receivedByB = statuses(b)
    assert.ok(receivedByB.length > 1 && receivedByB.length < 12)
    assert.equal(c.qpn, b.qpn, 'QP numbers are per device')
    assert.deepEqual([...receivedByB, ...statuses(c)], new Array(12).fill(SUCCESS))
  })
  it('is closed when the queue pair is destroyed or reset', () => {
    for (const action of ['destroy', 'reset'] as const) {
      const { m, a, handle } = waiting()
      invokeNow(a.p.context, Ah, 'destroy', handle, {}, a.p.caller)
      if (action === 'destroy') invokeNow(a.p.context, UdQp, 'destroy', a.handle, {}, a.p.caller)
      else invokeNow(a.p.context, UdQp, 'modify', a.handle, { state: Qps.RESET }, a.p.caller)
      tickAll(m)
      assert.equal(m.link.stat().flows, 0)
    }
  })
  it('stays open for a run that is not sent yet, although many paths are opened later', () => {
    const m = machine(2)
    const p = program(m)
    const a = makePeer(p, UdQp, 127)
    toRts(a)
    const b = udPeer(m, 1)
    postReceives(b)
    const to = { qpn: b.qpn, qkey: QKEY, ah: 0 }
    postSend(a.send, { opcode: Wr.SEND, sges: [sgeOf(a.mr, 0, 4)], to: { ...to, vector: vectorTo(gidOf(b)) } })
    // more paths than a queue pair caches; these datagrams are too long to be sent
    for (let i = 0; i < 270; i++)
      postSend(a.send, {
        opcode: Wr.SEND,
        sges: [sgeOf(a.mr, 0, 4097)],
        to: { ...to, vector: vectorTo(ipv4(10, 0, i >> 8, i & 255)) },
      })
    m.settle()
    assert.equal(polled(b).length, 1)
    for (const { context } of [a.p, b.p]) closeContext(context)
    assertNothingLeft(m, [a.p, b.p])
  })
})

describe('a multicast group', () => {
  const attach = ({ p, handle }: Peer, gid = GROUP, mlid = 0): string =>
    errnoOf(() => invokeNow(p.context, UdQp, 'attachMcast', handle, { gid, mlid }, p.caller))
  const detach = ({ p, handle }: Peer, gid = GROUP, mlid = 0): string =>
    errnoOf(() => invokeNow(p.context, UdQp, 'detachMcast', handle, { gid, mlid }, p.caller))

  it('is reached by one request on all devices, also on the sender’s', () => {
    const { m, a, b } = pair()
    const c = udPeer(m, 1)
    const outside = udPeer(m, 1)
    for (const peer of [a, b, c, outside]) postReceives(peer)
    for (const peer of [a, b, c]) assert.equal(attach(peer), 'ok')
    sendTo(a, MULTICAST_QPN, createAh(a.p, GROUP).number)
    m.settle()
    assert.deepEqual(polled(a), [
      [1, 0, 64, 0],
      [100, 0, GRH_BYTES + 64, a.qpn],
    ])
    for (const peer of [b, c]) assert.deepEqual(polled(peer), [[100, 0, GRH_BYTES + 64, a.qpn]])
    assert.deepEqual(polled(outside), [])
    const destination = b.mr.bytes.slice(GRH_BYTES - 4, GRH_BYTES)
    assert.deepEqual([...destination], [239, 77, 0, 9], 'the IPv4 header has the group as its destination')
    assert.equal(detach(b), 'ok')
    sendTo(a, MULTICAST_QPN, createAh(a.p, GROUP).number)
    m.settle()
    assert.deepEqual(polled(b), [])
    assert.deepEqual(polled(c), [[101, 0, GRH_BYTES + 64, a.qpn]])
    const counts = [a, c].map(({ p }) => p.rxe.device.state.engine().counters)
    assert.deepEqual(
      counts.map(({ multicastSent, multicastReceived }) => [multicastSent, multicastReceived]),
      [
        [2, 2],
        [0, 2],
      ],
    )
  })
  it('works over IPv6', () => {
    const { m, a, b } = pair()
    const gid = Uint8Array.of(0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77, 9)
    postReceives(b)
    assert.equal(attach(b, gid), 'ok')
    sendTo(a, MULTICAST_QPN, createAh(a.p, gid, { sgidIndex: 2 }).number)
    m.settle()
    assert.deepEqual(polled(b), [[100, 0, GRH_BYTES + 64, a.qpn]])
  })
  it('checks Q_Keys', () => {
    const { m, a, b } = pair()
    postReceives(b)
    attach(b)
    sendTo(a, MULTICAST_QPN, createAh(a.p, GROUP).number, { qkey: QKEY + 1 })
    m.settle()
    assert.deepEqual(polled(b), [])
  })
  it('has one membership per queue pair and LID, as in Linux; a member cannot be destroyed', () => {
    const { a } = pair()
    assert.equal(attach(a, ipv4(10, 0, 0, 1)), 'EINVAL')
    assert.equal(attach(a), 'ok')
    assert.equal(attach(a), 'ok')
    assert.equal(attach(a, GROUP, 7), 'ok')
    assert.equal(detach(a, GROUP, 8), 'EINVAL')
    const destroy = () => errnoOf(() => invokeNow(a.p.context, UdQp, 'destroy', a.handle, {}, a.p.caller))
    assert.equal(destroy(), 'EBUSY')
    assert.equal(detach(a), 'ok')
    assert.equal(destroy(), 'EBUSY')
    assert.equal(detach(a, GROUP, 7), 'ok')
    assert.equal(detach(a), 'EINVAL')
    assert.equal(destroy(), 'ok')
  })
  it('has at most 56 queue pairs (max_mcast_qp_attach)', () => {
    const m = machine(1)
    const p = program(m)
    const members = Array.from({ length: 56 }, () => makePeer(p))
    for (const peer of members) assert.equal(attach(peer), 'ok')
    const another = makePeer(p)
    assert.equal(attach(another), 'ENOMEM')
    detach(members[3])
    assert.equal(attach(another), 'ok')
  })
  it('accepts no queue pair of another type', () => {
    const { a } = pair()
    for (const cls of [RcQp, UcQp]) {
      const cq = makeCq(a.p)
      const args = { pd: a.p.pd, sendCq: cq.handle, recvCq: cq.handle, cap: cap(), userHandle: 0n }
      const { object } = invokeNow(a.p.context, cls, 'create', 0, args, a.p.caller)
      const membership = { gid: GROUP, mlid: 0 }
      assert.equal(
        errnoOf(() => invokeNow(a.p.context, UdQp, 'attachMcast', object!, membership, a.p.caller)),
        'EINVAL',
      )
    }
  })
})

describe('the queue pair of the general services', () => {
  const gsi = (m: Machine, device: number): Peer => {
    const p = program(m, device)
    // only callers in this process may create the queue pair
    Object.assign(p.context.state as object, { isInProcess: true })
    const peer = makePeer(p, GsiQp)
    toRts(peer, GsiQp)
    return peer
  }
  it('is number 1 and has the well-known Q_Key', () => {
    const m = machine()
    const [a, b] = [gsi(m, 0), gsi(m, 1)]
    assert.equal(a.qpn, GSI_QPN)
    postReceives(b)
    sendTo(a, GSI_QPN, createAh(a.p, gidOf(b)).number, { length: 256, qkey: GSI_QKEY })
    m.settle()
    assert.deepEqual(polled(b), [[100, SUCCESS, GRH_BYTES + 256, GSI_QPN]])
    assert.equal(invokeNow(a.p.context, GsiQp, 'query', a.handle, {}, a.p.caller).out.qkey, GSI_QKEY)
  })
  it('exists once per port, and programs cannot create it', () => {
    const m = machine(1)
    assert.equal(
      errnoOf(() => makePeer(program(m), GsiQp)),
      'EINVAL',
    )
    const first = gsi(m, 0)
    assert.equal(
      errnoOf(() => gsi(m, 0)),
      'EINVAL',
    )
    invokeNow(first.p.context, GsiQp, 'destroy', first.handle, {}, first.p.caller)
    assert.equal(gsi(m, 0).qpn, GSI_QPN)
  })
  it('is not moved to ERR by a lost completion of an earlier queue pair with its number', () => {
    const m = machine(1)
    const first = gsi(m, 0)
    const { context, caller } = first.p
    const modifyFirst = (state: number) => invokeNow(context, GsiQp, 'modify', first.handle, { state }, caller)
    // Flushes receives until the CQ overflows and a completion is lost.
    const receives = 12
    for (let flushed = 0; flushed <= first.cq.cqe; flushed += receives) {
      modifyFirst(Qps.RESET)
      toRts(first, GsiQp)
      postReceives(first, receives)
      modifyFirst(Qps.ERR)
    }
    invokeNow(context, GsiQp, 'destroy', first.handle, {}, caller)
    const second = gsi(m, 0)
    m.settle()
    assert.equal(invokeNow(second.p.context, GsiQp, 'query', second.handle, {}, second.p.caller).out.state, Qps.RTS)
  })
})
