/*
 * Packet scripts for unreliable connections (IBA 9.8).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { QpState } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { Service } from '../../../src/spec/wire/services.ts'
import { SendFlags, WrOpcode } from '../../../src/spec/work.ts'
import { PACKET_WEIGHT } from '../../../src/transport/engine/state.ts'
import { Access } from '../../../src/transport/engine/types.ts'
import { parsePacket } from '../../../src/transport/wire/packet.ts'
import { createNode, type NodeOptions } from './node.ts'
import { sge } from './requests.ts'
import { flushed, MTU, memoryAt, patternOf } from './responding.ts'
import { type PacketSpec, packet, RQ_PSN, startScript } from './script.ts'

const { SEND, SEND_WITH_IMM, RDMA_WRITE, RDMA_WRITE_WITH_IMM, RDMA_READ, SEND_WITH_INV } = WrOpcode.values
const { SIGNALED, SOLICITED } = SendFlags.values
const { ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, BIND_MW } = WrOpcode.values
const { INIT, RTR, RTS, SQD, SQE, ERR } = QpState.values

const startUc = (options: NodeOptions = {}) => startScript({}, { service: Service.UC, ...options })
type Script = ReturnType<typeof startUc>
/** The peer sends a UC packet. */
const request = (t: Script, name: string, psn: number, spec: PacketSpec = {}): void =>
  t.request(`UC_${name}`, psn, spec)
/** A script with `count` receive WQEs of 4096 bytes. */
const startReceiving = (count = 4) => {
  const t = startUc()
  t.postReceives(count, 4096)
  return t
}
/** Sends 2 of the 4 packets of a SEND: the port accepts one run of two packets, then it is full. */
const startHalfSent = () => {
  const t = startUc({ maxBytes: 2200 })
  t.node.port.freeRuns = 1
  t.post({ id: 1, opcode: SEND, ...sge(0, 4 * MTU) })
  assert.equal(t.sent().length, 2)
  return t
}

describe('a requester of UC', () => {
  it('sends UC packets without AckReq; a request completes when its packets have left', () => {
    const t = startUc()
    t.post(
      { id: 1, opcode: SEND, ...sge(0, 2 * MTU + 5) },
      { id: 2, opcode: SEND_WITH_IMM, imm: 7, flags: SIGNALED | SOLICITED, ...sge(0, 3) },
      { id: 3, opcode: RDMA_WRITE, remote: 0x100, ...sge(0, 2 * MTU) },
      { id: 4, opcode: RDMA_WRITE_WITH_IMM, imm: 8, ...sge(0, MTU + 1) },
      { id: 5, opcode: SEND },
    )
    assert.deepEqual(t.sent(), [
      'SEND_FIRST@0 [1024]',
      'SEND_MIDDLE@1 [1024]',
      'SEND_LAST@2 [5]',
      'SEND_ONLY_IMM@3 se imm 7 [3]',
      'WRITE_FIRST@4 reth +256:2048 [1024]',
      'WRITE_LAST@5 [1024]',
      'WRITE_FIRST@6 reth +0:1025 [1024]',
      'WRITE_LAST_IMM@7 imm 8 [1]',
      'SEND_ONLY@8',
    ])
    assert.deepEqual(t.completions(), ['1 ok', '2 ok', '3 ok', '4 ok', '5 ok'])
    for (const { bytes } of t.node.sent) assert.equal(parsePacket(bytes).kind, 'packet')
    assert.ok(
      t.node.sent.every(({ bytes }) => (bytes[0] & 0xe0) === 0x20),
      'the three high bits of the opcode are those of UC',
    )
    assert.equal(t.node.engine.nextTimeout(), Number.POSITIVE_INFINITY, 'no response is awaited')
  })
  it('sends more than a window without a response', () => {
    const t = startUc({ windowBytes: 4096 })
    t.post({ id: 1, opcode: SEND, ...sge(0, 64 * MTU) })
    assert.equal(t.sent().length, 64)
    assert.deepEqual(t.completions(), ['1 ok'])
  })
  it('lets other queue pairs send after 64 KiB', () => {
    const node = createNode({ memoryBytes: 0x10_0000 })
    const rows = [0x11, 0x12].map(qpn => node.createQp(qpn, { service: Service.UC }))
    for (const row of rows) node.connect(row, { destQpn: row + 0x40, sqPsn: 0, rqPsn: 0 })
    for (const row of rows) node.post(row, { id: row, opcode: SEND, ...sge(0, 0x4_0000) })
    node.transmit(0)
    const destinations = node.sent.map(({ bytes }) => bytes[7]) // the low byte of BTH.DestQP
    assert.ok(destinations.indexOf(rows[1] + 0x40) < 80, 'the second queue pair waits for one turn of 64 packets')
    assert.ok(destinations.lastIndexOf(rows[0] + 0x40) > 256, 'the 256 packets of the first queue pair are interrupted')
  })
  it('completes a READ, atomic, invalidate or unknown opcode with LOC_QP_OP, and goes to SQE', () => {
    for (const opcode of [RDMA_READ, SEND_WITH_INV, ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, 77]) {
      const t = startReceiving()
      t.post({ id: 1, opcode: SEND }, { id: 2, opcode, ...sge(0, 8) }, { id: 3, opcode: SEND })
      assert.deepEqual(t.sent(), ['SEND_ONLY@0'])
      assert.deepEqual(t.completions(), ['1 ok', '2 LOC_QP_OP', '3 FLUSH'])
      assert.equal(t.state, SQE)
    }
  })
  it('receives in SQE, flushes posted requests, and can return to RTS', () => {
    const t = startReceiving()
    t.post({ id: 1, opcode: SEND, sges: [{ at: 0, length: 3, key: 99 }] })
    assert.deepEqual(t.sent(), [])
    assert.deepEqual(t.completions(), ['1 LOC_PROT'])
    t.post({ id: 2, opcode: SEND })
    assert.deepEqual(t.completions(), ['2 FLUSH'])
    request(t, 'SEND_ONLY', 0, { payload: 5 })
    assert.deepEqual(t.completions(), ['100 ok recv 5'])
    t.node.engine.modify(t.row, RTS, {})
    t.post({ id: 3, opcode: SEND })
    assert.deepEqual(t.sent(), ['SEND_ONLY@0'])
    assert.deepEqual(t.completions(), ['3 ok'])
    assert.deepEqual(t.node.events, [])
  })
  it('flushes all requests posted before the return from SQE to RTS, even 10,000, but none posted afterwards', () => {
    const t = startUc()
    const count = 10_000
    t.post({ id: 1, opcode: RDMA_READ }, ...Array.from({ length: count }, () => ({ id: 2, opcode: SEND })))
    // One poll: the QP is in SQE, and most requests are not flushed yet.
    t.node.engine.pollTransmit(t.node.sink, 0)
    assert.equal(t.state, SQE)
    t.node.engine.modify(t.row, RTS, {})
    t.post({ id: 3, opcode: SEND })
    assert.deepEqual(t.sent(), ['SEND_ONLY@0'])
    assert.deepEqual(t.completions(), ['1 LOC_QP_OP', ...new Array(count).fill('2 FLUSH'), '3 ok'])
  })
  it('stops a message whose memory is deregistered meanwhile, and goes to SQE', () => {
    const t = startHalfSent()
    t.node.port.freeRuns = Number.POSITIVE_INFINITY
    t.node.regions.length = 0
    assert.deepEqual(t.sent(), [])
    assert.deepEqual(t.completions(), ['1 LOC_PROT'])
    assert.equal(t.state, SQE)
  })
  it('in SQD drains immediately, because nothing is outstanding', () => {
    const t = startUc()
    t.post({ id: 1, opcode: SEND })
    t.sent()
    t.node.engine.modify(t.row, SQD, {})
    assert.deepEqual(t.node.events, ['SQ_DRAINED'])
    t.post({ id: 2, opcode: SEND })
    assert.deepEqual(t.sent(), [])
    t.node.engine.modify(t.row, RTS, {})
    assert.deepEqual(t.sent(), ['SEND_ONLY@1'])
  })
  it('in SQD finishes the current message', () => {
    const t = startHalfSent()
    t.post({ id: 2, opcode: SEND })
    t.node.engine.modify(t.row, SQD, {})
    assert.deepEqual(t.node.events, [])
    t.node.port.freeRuns = Number.POSITIVE_INFINITY
    assert.equal(t.sent().length, 2)
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.deepEqual(t.node.events, ['SQ_DRAINED'])
  })
  it('does not drain any more if the current message fails in SQD', () => {
    const t = startHalfSent()
    t.node.engine.modify(t.row, SQD, {})
    assert.equal(t.node.engine.query(t.row).isDraining, true)
    t.node.port.freeRuns = Number.POSITIVE_INFINITY
    t.node.regions.length = 0
    assert.deepEqual(t.sent(), [])
    assert.deepEqual([t.state, t.node.engine.query(t.row).isDraining], [SQE, false])
    assert.deepEqual(t.node.events, [])
  })
})

it('local operations of UC do not fill the window', () => {
  const t = startUc({ windowBytes: 2 * (MTU + PACKET_WEIGHT) })
  for (let i = 0; i < 50; i++) t.post({ id: i, opcode: BIND_MW, rkey: 1, flags: 0 })
  t.post({ id: 50, opcode: SEND })
  assert.equal(t.sent().length, 1)
})

describe('the pacing of UC', () => {
  /** Sends a message of `count` packets; the limit is 8 packets per 100 µs. */
  const startPaced = (count: number) => {
    const t = startUc({ windowBytes: 8 * (MTU + PACKET_WEIGHT), pacingInterval: 100 })
    t.post({ id: 1, opcode: SEND, ...sge(0, count * MTU) })
    return t
  }
  it('sends one window per interval', () => {
    const t = startPaced(20)
    t.sleep(1000)
    assert.equal(t.sent().length, 8)
    assert.equal(t.node.engine.nextTimeout(), 1100)
    t.sleep(99)
    assert.equal(t.sent().length, 0)
    t.sleep(1)
    assert.equal(t.sent().length, 8)
    assert.deepEqual(t.completions(), [])
    t.sleep(100)
    assert.equal(t.sent().length, 4)
    assert.deepEqual(t.completions(), ['1 ok'])
  })
  it('is shared by all queue pairs, which take turns', () => {
    const node = createNode({ windowBytes: 8 * (MTU + PACKET_WEIGHT), pacingInterval: 100 })
    const rows = Array.from({ length: 5 }, (_, i) => node.createQp(0x20 + i, { service: Service.UC }))
    for (const row of rows) {
      node.connect(row, { destQpn: 0x40 + row })
      node.post(row, ...Array.from({ length: 3 }, (_, id) => ({ id, opcode: SEND, ...sge(0, 4 * MTU) })))
    }
    /** The low byte of BTH.DestQP of each packet. */
    const sentTo: number[] = []
    for (let now = 1000; node.cqes.length < 15; now = node.engine.nextTimeout()) {
      assert.ok(now < 3000, 'no queue pair starves')
      node.engine.onTimeout(now)
      node.transmit(now)
      assert.ok(node.sent.length <= 8, `${node.sent.length} packets in one interval`)
      sentTo.push(...node.sent.map(({ bytes }) => bytes[7]))
      node.sent.length = 0
    }
    assert.equal(sentTo.length, 60)
    const counts = rows.map(row => sentTo.slice(0, 40).filter(qpn => qpn === 0x40 + row).length)
    assert.ok(Math.min(...counts) > 0, `of the first 40 packets: ${counts.join(' ')}`)
  })
  it('resumes at the time of `nextTimeout`, also with fractions of µs', () => {
    const node = createNode({ windowBytes: 8 * (MTU + PACKET_WEIGHT), pacingInterval: 524.288, memoryBytes: 0x10_0000 })
    const row = node.createQp(0x20, { service: Service.UC })
    node.connect(row, { destQpn: 0x40 })
    node.post(row, { id: 1, opcode: SEND, ...sge(0, 800 * MTU) })
    let now = 0.1
    for (let interval = 0; interval < 100; interval++) {
      node.transmit(now)
      assert.equal(node.sent.length, 8, `interval ${interval}, at ${now} µs`)
      node.sent.length = 0
      now = node.engine.nextTimeout()
      if (now !== Number.POSITIVE_INFINITY) node.engine.onTimeout(now)
    }
    assert.equal(node.cqes.length, 1)
  })
  it('counts the bytes before a local operation', () => {
    const t = startUc({ windowBytes: 8 * (MTU + PACKET_WEIGHT), pacingInterval: 100 })
    const bind = { opcode: BIND_MW, rkey: 1 }
    for (let i = 0; i < 5; i++) t.post({ id: 1, opcode: SEND, ...sge(0, 4 * MTU) }, { id: 2, ...bind })
    t.sleep(1000)
    const count = t.sent().length
    assert.ok(count <= 8, `${count} packets in one interval`)
  })
  it('sets no timer below the limit', () => {
    const t = startPaced(7)
    assert.equal(t.sent().length, 7)
    assert.equal(t.node.engine.nextTimeout(), Number.POSITIVE_INFINITY)
    t.sleep(150)
    t.post({ id: 2, opcode: SEND, ...sge(0, 7 * MTU) })
    assert.equal(t.sent().length, 7)
  })
})

describe('a responder of UC', () => {
  it('delivers, and never responds', () => {
    const t = startReceiving()
    request(t, 'SEND_FIRST', 0, { payload: MTU, ackReq: true })
    request(t, 'SEND_MIDDLE', 1, { payload: MTU })
    request(t, 'SEND_LAST_IMM', 2, { payload: 5, imm: 9, solicited: true })
    request(t, 'WRITE_FIRST', 3, { payload: MTU, remote: 0x8000, dmaLen: 3 * MTU })
    t.requestRun(['UC_WRITE_MIDDLE', 4, { payload: MTU, ackReq: true }], ['UC_WRITE_LAST', 5, { payload: MTU }])
    request(t, 'WRITE_ONLY_IMM', 6, { payload: 4, remote: 0x9000, imm: 3 })
    assert.deepEqual(t.sent(), [])
    assert.deepEqual(t.completions(), ['100 ok recv 2053 imm 9', '101 ok recv-imm 4 imm 3'])
    assert.equal(t.node.cqes[0].solicited, true)
    assert.deepEqual(memoryAt(t, MTU, MTU), patternOf(MTU))
    assert.deepEqual(memoryAt(t, 0x8000 + 2 * MTU, MTU), patternOf(MTU))
    assert.equal(t.node.engine.query(t.row).rqPsn, RQ_PSN + 7)
  })
  it('drops a message with a gap, and uses its buffer for the next message', () => {
    const t = startReceiving()
    request(t, 'SEND_FIRST', 0, { payload: MTU })
    request(t, 'SEND_LAST', 2, { payload: 1 })
    request(t, 'SEND_MIDDLE', 3, { payload: MTU })
    assert.deepEqual(t.completions(), [])
    request(t, 'SEND_ONLY', 7, { payload: 6 })
    request(t, 'SEND_ONLY', 8, { payload: 7 })
    assert.deepEqual(t.completions(), ['100 ok recv 6', '101 ok recv 7'])
    assert.deepEqual(t.sent(), [])
    // Gaps are not counted while a message is dropped.
    assert.equal(t.node.engine.counters.outOfSequence, 1)
  })
  it('starts a new message at a FIRST in the middle of a SEND or WRITE', () => {
    const t = startReceiving()
    request(t, 'SEND_FIRST', 0, { payload: MTU })
    request(t, 'WRITE_FIRST', 1, { payload: MTU, remote: 0x8000, dmaLen: MTU + 1 })
    request(t, 'WRITE_LAST', 2, { payload: 1 })
    request(t, 'SEND_FIRST', 3, { payload: MTU })
    request(t, 'SEND_FIRST', 4, { payload: MTU })
    request(t, 'SEND_LAST', 5, { payload: 2 })
    assert.deepEqual(t.completions(), [`100 ok recv ${MTU + 2}`])
    assert.deepEqual(memoryAt(t, 0x8000, MTU), patternOf(MTU))
  })
  it('drops a LAST that does not continue a message', () => {
    const t = startReceiving()
    // A dropped packet does not advance the expected PSN.
    request(t, 'SEND_LAST', 0, { payload: 1 })
    request(t, 'WRITE_FIRST', 0, { payload: MTU, remote: 0x8000, dmaLen: MTU + 1 })
    request(t, 'SEND_LAST', 1, { payload: 1 })
    request(t, 'WRITE_LAST', 1, { payload: 1 })
    assert.equal(t.node.memory[0x8000 + MTU], 0)
    assert.equal(t.node.engine.query(t.row).rqPsn, RQ_PSN + 1)
    assert.deepEqual(t.completions(), [])
    request(t, 'SEND_ONLY', 1, { payload: 1 })
    assert.deepEqual(t.completions(), ['100 ok recv 1'])
  })
  it('without a receive WQE drops the message silently', () => {
    const t = startReceiving(1)
    request(t, 'SEND_ONLY', 0, { payload: 1 })
    request(t, 'SEND_FIRST', 1, { payload: MTU })
    t.postReceives(1, 4096) // IDs begin at 100 again
    request(t, 'SEND_LAST', 2, { payload: 1 })
    request(t, 'WRITE_ONLY', 3, { payload: 4, remote: 0x8000 })
    assert.deepEqual(t.completions(), ['100 ok recv 1'])
    assert.deepEqual(memoryAt(t, 0x8000, 4), patternOf(4))
    request(t, 'SEND_ONLY', 4, { payload: 2 })
    assert.deepEqual(t.completions(), ['100 ok recv 2'])
    request(t, 'WRITE_ONLY_IMM', 5, { payload: 4, remote: 0x9000, imm: 1 })
    assert.deepEqual(t.completions(), [])
    assert.deepEqual(t.sent(), [])
    assert.equal(t.node.engine.counters.outOfSequence, 0)
  })
  const dropped: readonly (readonly [title: string, name: string, spec: PacketSpec, bufferBytes?: number])[] = [
    ['a key that does not exist', 'WRITE_ONLY', { payload: 4, remote: 0x8000, rkey: 0x99 }],
    ['a range that is not registered', 'WRITE_FIRST', { payload: MTU, remote: 0x1_fff0, dmaLen: 2 * MTU }],
    ['a length that is not the payload’s', 'WRITE_ONLY', { payload: 4, remote: 0x8000, dmaLen: 8 }],
    ['a packet longer than the path MTU', 'SEND_ONLY', { payload: MTU + 4 }],
    ['a FIRST that is not full', 'SEND_FIRST', { payload: MTU - 4 }],
    ['more bytes than the buffer', 'SEND_ONLY', { payload: 700 }, 600],
  ]
  for (const [title, name, spec, bufferBytes = 2 * MTU] of dropped)
    it(`drops a message with ${title} silently, without an error`, () => {
      const t = startUc()
      t.postReceives(2, bufferBytes)
      request(t, name, 0, spec)
      request(t, 'SEND_ONLY', 1, { payload: 3 })
      assert.deepEqual(t.sent(), [])
      assert.deepEqual(t.completions(), ['100 ok recv 3'])
      assert.deepEqual(t.node.events, [])
      assert.equal(t.state, RTS)
      assert.deepEqual(memoryAt(t, 0, 3), patternOf(3))
      assert.ok(memoryAt(t, 3, 0x2_0000 - 3).every(byte => byte === 0))
    })
  it('drops the rest of a WRITE whose region is deregistered', () => {
    const t = startReceiving()
    request(t, 'WRITE_FIRST', 0, { payload: MTU, remote: 0x8000, dmaLen: 2 * MTU })
    const [region] = t.node.regions.splice(0, 1)
    t.node.endBurst()
    t.node.regions.unshift(region)
    request(t, 'WRITE_LAST', 1, { payload: MTU })
    request(t, 'SEND_ONLY', 2, { payload: 3 })
    assert.deepEqual(t.completions(), ['100 ok recv 3'])
    assert.deepEqual(memoryAt(t, 0x8000, 2 * MTU), new Uint8Array(2 * MTU))
    assert.deepEqual(
      t.node.reported.map(({ id }) => id),
      ['RKEY_REFUSED'],
    )
    assert.deepEqual([t.state, t.node.engine.counters.dropped], [RTS, 2])
  })
  it('drops the MIDDLEs of a message with a gap, although they come in order after it', () => {
    const t = startReceiving()
    const middle = (psn: number) => ['UC_WRITE_MIDDLE', psn, { payload: MTU }] as const
    request(t, 'WRITE_FIRST', 0, { payload: MTU, remote: 0x8000, dmaLen: 6 * MTU })
    t.requestRun(middle(2), middle(3))
    t.requestRun(middle(1), middle(2))
    t.node.endBurst()
    assert.deepEqual(memoryAt(t, 0x8000 + MTU, MTU), new Uint8Array(MTU))
    assert.equal(t.node.engine.counters.dropped, 4)
  })
  it('drops a WRITE with immediate whose last packet cannot be written', () => {
    const t = startReceiving()
    request(t, 'WRITE_FIRST', 0, { payload: MTU, remote: 0x8000, dmaLen: 2 * MTU })
    t.node.endBurst()
    t.node.faults.write = Errno.EFAULT
    request(t, 'WRITE_LAST_IMM', 1, { payload: MTU, imm: 1 })
    assert.deepEqual(t.completions(), [])
    t.node.faults.write = 0
    request(t, 'SEND_ONLY', 2, { payload: 3 })
    assert.deepEqual(t.completions(), ['100 ok recv 3'])
  })
  it('goes to ERR if its receive buffer is deregistered in the middle of a message', () => {
    const t = startReceiving(2)
    request(t, 'SEND_FIRST', 0, { payload: MTU })
    t.node.regions.splice(0)
    t.node.endBurst()
    assert.deepEqual(t.completions(), ['100 LOC_PROT', '101 FLUSH'])
    assert.equal(t.state, ERR)
  })
  it('goes to ERR if its receive buffer is not writable or its lkey does not exist', () => {
    for (const isReadOnly of [true, false]) {
      const t = startUc()
      if (isReadOnly) t.node.regions.push({ key: 99, pd: 1, offset: 0, length: 100, access: Access.REMOTE_READ })
      t.node.postReceive(t.row, { id: 100, sges: [{ at: 0, length: 100, key: 99 }] }, { id: 101, ...sge(0, 100) })
      request(t, 'SEND_ONLY', 0, { payload: 3 })
      assert.deepEqual(t.completions(), ['100 LOC_PROT', ...flushed(101, 101)])
      assert.equal(t.state, ERR)
      assert.deepEqual(t.sent(), [])
    }
  })
  it('drops packets of RC, as RC drops packets of UC', () => {
    const t = startReceiving()
    t.request('SEND_ONLY', 0, { payload: 3 })
    assert.deepEqual(t.completions(), [])
    const rc = startScript()
    rc.postReceives(1, 100)
    rc.request('UC_SEND_ONLY', 0, { payload: 3 })
    assert.deepEqual(rc.completions(), [])
  })
  it('raises COMM_EST for the first packet in RTR', () => {
    const node = createNode()
    const row = node.createQp(0x11, { service: Service.UC })
    node.engine.modify(row, INIT, { access: Access.REMOTE_WRITE })
    node.engine.modify(row, RTR, { destQpn: 0x22, rqPsn: RQ_PSN, flow: 0, peer: 0, pathMtu: 1024 })
    node.postReceive(row, { id: 1, ...sge(0, 10) })
    node.inject(row, packet('UC_SEND_ONLY', RQ_PSN, { payload: 4 }), 0)
    assert.deepEqual(node.events, ['COMM_EST'])
    assert.equal(node.cqes.length, 1)
  })
})
