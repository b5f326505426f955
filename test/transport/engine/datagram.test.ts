/*
 * Packet scripts for datagrams (IBA 9.8.3, 10.2.5).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { causeText } from '../../../src/spec/check/causes.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { Service } from '../../../src/spec/wire/services.ts'
import { SendFlags, WcFlags, WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { createEngine } from '../../../src/transport/engine/engine.ts'
import { PollResult } from '../../../src/transport/engine/scheduling.ts'
import { PACKET_WEIGHT } from '../../../src/transport/engine/state.ts'
import { Access } from '../../../src/transport/engine/types.ts'
import { parsePacket } from '../../../src/transport/wire/packet.ts'
import { createNode, type NodeOptions, type SendSpec } from './node.ts'
import { sge } from './requests.ts'
import { patternOf } from './responding.ts'
import { CONSTANT_BTH, type PacketSpec, packet } from './script.ts'

const { SEND, SEND_WITH_IMM, RDMA_WRITE, RDMA_READ } = WrOpcode.values
const { RESET, INIT, RTR, RTS, SQE, ERR } = QpState.values
const { SIGNALED, SOLICITED } = SendFlags.values
const { LOC_QP_OP_ERR, LOC_PROT_ERR, WR_FLUSH_ERR } = WcStatus.values
const QPN = 0x11
const QKEY = 0x1234_5678
const MTU = 1024
const FIRST_PSN = 0xff_fffe

/** An engine with one UD queue pair in RTS. */
const start = (options: NodeOptions & { maxSge?: number } = {}) => {
  const node = createNode(options)
  const row = node.createQp(QPN, { service: Service.UD, ...options })
  node.engine.modify(row, INIT, { pkeyIndex: 0, qkey: QKEY })
  node.engine.modify(row, RTR, { pathMtu: MTU })
  node.engine.modify(row, RTS, { sqPsn: FIRST_PSN })
  let returnedPackets = 0
  return {
    node,
    row,
    post: (...specs: SendSpec[]): void => node.post(row, ...specs),
    /**
     * Packets sent since the last call: `name to QPN key Q_KEY from QPN @psn flow FLOW se imm IMM [length]`; the PSN is
     * relative to FIRST_PSN.
     */
    sent(now = 0): string[] {
      node.transmit(now)
      const fresh = node.sent.slice(returnedPackets)
      returnedPackets = node.sent.length
      return fresh.map(({ bytes, flow }) => {
        const p = parsePacket(bytes)
        assert.ok(p.kind === 'packet' && 'DETH' in p)
        const { BTH, DETH } = p as unknown as Record<string, Record<string, number>>
        const { se: _se, destQp: _destQp, psn: _psn, ...constant } = p.BTH
        assert.deepEqual(constant, { ...CONSTANT_BTH, ackReq: false })
        const imm = 'ImmDt' in p ? ` imm ${(p.ImmDt as unknown as { immDt: number }).immDt}` : ''
        const se = BTH.se ? ' se' : ''
        const route = `to ${BTH.destQp} key ${DETH.qkey.toString(16)} from ${DETH.srcQp} @${(BTH.psn - FIRST_PSN) & 0xffffff}`
        return `${p.name} ${route} flow ${flow}${se}${imm} [${p.payload.length}]`
      })
    },
    postReceives(count: number, length: number): void {
      for (let i = 0; i < count; i++) node.postReceive(row, { id: 100 + i, sges: [{ at: i * length, length }] })
    },
    /** A datagram from queue pair 0x77 with the right Q_Key. */
    receiveDatagram(name: string, spec: PacketSpec = {}): void {
      node.inject(row, packet(`UD_${name}`, 5, { qkey: QKEY, srcQpn: 0x77, ...spec }), 0, -1)
    },
    /** All completions: `id status bytes`. */
    completions: () => node.cqes.map(({ id, status, bytes }) => `${id} ${status} ${bytes}`),
  }
}
const to = (qpn: number, flow = 3, qkey = 0x55) => ({ to: { qpn, qkey, flow } })

describe('a sender of datagrams', () => {
  it('sends each to its own destination; a send completes when its packet has left', () => {
    const t = start()
    t.post(
      { id: 1, opcode: SEND, ...to(0x22, 3), ...sge(0, 30) },
      { id: 2, opcode: SEND_WITH_IMM, imm: 9, flags: SIGNALED | SOLICITED, ...to(0x23, 4, 0x66), ...sge(0, 1000) },
      { id: 3, opcode: SEND, ...to(0xff_ffff, 5, 7), ...sge(0, MTU) },
      { id: 4, opcode: SEND, ...to(0x22, 3) },
    )
    assert.deepEqual(t.sent(), [
      'UD_SEND_ONLY to 34 key 55 from 17 @0 flow 3 [30]',
      'UD_SEND_ONLY_IMM to 35 key 66 from 17 @1 flow 4 se imm 9 [1000]',
      `UD_SEND_ONLY to ${0xff_ffff} key 7 from 17 @2 flow 5 [1024]`,
      'UD_SEND_ONLY to 34 key 55 from 17 @3 flow 3 [0]',
    ])
    assert.deepEqual(t.completions(), ['1 0 30', '2 0 1000', '3 0 1024', '4 0 0'])
    assert.equal(t.node.engine.counters.multicastSent, 1)
    assert.equal(t.node.engine.nextTimeout(), Number.POSITIVE_INFINITY)
  })
  it('uses the lower 24 bits of a QPN', () => {
    const t = start()
    t.post({ id: 1, opcode: SEND, ...to(0xff00_0022) }, { id: 2, opcode: SEND, ...to(0x01ff_ffff) })
    assert.deepEqual(
      t.sent().map(text => text.slice(0, 'UD_SEND_ONLY to 16777215'.length)),
      ['UD_SEND_ONLY to 34 key 5', 'UD_SEND_ONLY to 16777215'],
    )
    assert.equal(t.node.engine.counters.multicastSent, 1)
  })
  it('sends its own Q_Key if the top bit of the request’s Q_Key is set', () => {
    const t = start()
    t.post({ id: 1, opcode: SEND, ...to(0x22, 3, 0x8000_0000) })
    assert.deepEqual(t.sent(), ['UD_SEND_ONLY to 34 key 12345678 from 17 @0 flow 3 [0]'])
  })
  it('puts datagrams of the same flow and length into one run', () => {
    const t = start()
    t.post(...[1, 2, 3, 4].map(id => ({ id, opcode: SEND, ...to(0x22), ...sge(id, 64) })))
    t.sent()
    assert.equal(new Set(t.node.sent.map(({ run }) => run)).size, 1)
  })
  it('completes a datagram longer than the path MTU with success, without sending it', () => {
    const t = start()
    t.post({ id: 1, opcode: SEND, ...to(0x22), ...sge(0, MTU + 1) }, { id: 2, opcode: SEND, ...to(0x22) })
    assert.deepEqual(t.sent(), ['UD_SEND_ONLY to 34 key 55 from 17 @0 flow 3 [0]'])
    assert.deepEqual(t.completions(), [`1 0 ${MTU + 1}`, '2 0 0'])
    assert.deepEqual(t.node.reported.map(causeText), [
      `a datagram of ${MTU + 1} bytes is longer than the path MTU, ${MTU}, and is not sent`,
    ])
  })
  it('ends a poll although its program posts datagrams longer than the path MTU faster than they complete', () => {
    const t = start()
    const tooLong = { id: 1, opcode: SEND, flags: 0, ...to(0x22), ...sge(0, MTU + 1) }
    let fetched = 0
    const get = () => {
      if (++fetched > 500_000) throw new Error('the poll does not end')
      return tooLong
    }
    t.node.queues[t.row].sends = new Proxy([], { get, set: () => true })
    t.node.engine.onDoorbell(t.row)
    assert.equal(t.node.engine.pollTransmit(t.node.sink, 0), PollResult.MORE)
  })
  it('completes a WRITE, a READ or a refused request with LOC_QP_OP_ERR, and goes to SQE', () => {
    for (const wrong of [{ opcode: RDMA_WRITE }, { opcode: RDMA_READ }, { opcode: SEND, refused: LOC_QP_OP_ERR }]) {
      const t = start()
      t.post({ id: 1, ...to(0x22), ...wrong }, { id: 2, opcode: SEND, ...to(0x22) })
      assert.deepEqual(t.sent(), [])
      assert.deepEqual(t.completions(), [`1 ${LOC_QP_OP_ERR} 0`, `2 ${WR_FLUSH_ERR} 0`])
      assert.equal(t.node.engine.query(t.row).state, SQE)
    }
  })
  it('sends one window per interval', () => {
    const t = start({ windowBytes: 4 * (MTU + PACKET_WEIGHT), pacingInterval: 100 })
    t.post(...Array.from({ length: 6 }, (_, id) => ({ id, opcode: SEND, ...to(0x22), ...sge(0, MTU) })))
    assert.equal(t.sent().length, 4)
    assert.equal(t.node.engine.nextTimeout(), 100)
    t.node.engine.onTimeout(100)
    assert.equal(t.sent(100).length, 2)
    assert.equal(t.node.cqes.length, 6)
  })
})

describe('a receiver of datagrams', () => {
  it('writes the GRH and the payload, and reports the source', () => {
    const t = start()
    const { poolWords } = t.node.engine.stat()
    t.postReceives(2, 500)
    t.node.memory[141] = 9
    t.receiveDatagram('SEND_ONLY', { payload: 101 })
    t.receiveDatagram('SEND_ONLY_IMM', { payload: 4, imm: 8, solicited: true })
    assert.deepEqual(t.completions(), ['100 0 141', '101 0 44'])
    const [first, second] = t.node.cqes
    assert.equal(first.srcQpn, 0x77)
    assert.equal(t.node.engine.query(t.row).destQpn, 0, 'a queue pair of datagrams has no peer')
    assert.equal(first.sl, 0xa, 'the SL field has the packet type: RoCEv2 over IPv4')
    assert.deepEqual([first.flags, first.imm], [WcFlags.values.GRH, 0])
    assert.equal(second.flags, WcFlags.values.GRH | WcFlags.values.WITH_IMM)
    assert.equal(second.imm, 8)
    assert.ok(second.solicited && !first.solicited)
    const { memory } = t.node
    assert.ok(memory.subarray(0, 20).every(byte => byte === 0))
    assert.equal(memory[20], 0x45)
    assert.equal((memory[22] << 8) | memory[23], 20 + 8 + 12 + 8 + 101 + 3 + 4, 'IPv4, UDP, BTH, DETH, data, pad, ICRC')
    assert.deepEqual(memory.slice(40, 141), patternOf(101))
    assert.equal(memory[141], 9, 'the pad is not written')
    assert.equal(t.node.dmaCalls.writes, 2, 'one DMA write per datagram')
    assert.deepEqual(t.sent(), [])
    assert.equal(t.node.engine.stat().poolWords, poolWords)
  })
  it('drops payloads above 4096 bytes, the largest path MTU', () => {
    const t = start()
    t.postReceives(2, 8192)
    for (const payload of [4100, 4096]) t.receiveDatagram('SEND_ONLY', { payload })
    assert.deepEqual(t.completions(), ['100 0 4136'])
    assert.equal(t.node.engine.counters.dropped, 1)
  })
  it('reports in the service level that a datagram is IPv6', () => {
    const t = start()
    t.node.receivedIp.version = 6
    t.postReceives(1, 100)
    t.receiveDatagram('SEND_ONLY')
    assert.equal(t.node.cqes[0].sl, 0x9)
    assert.equal(t.node.memory[0] >> 4, 6)
  })
  it('scatters GRH and payload over SGEs', () => {
    const t = start()
    const sges = [
      { at: 0, length: 30 },
      { at: 1000, length: 20 },
      { at: 2000, length: 50 },
    ]
    t.node.postReceive(t.row, { id: 1, sges })
    t.receiveDatagram('SEND_ONLY', { payload: 60 })
    assert.deepEqual(t.completions(), ['1 0 100'])
    const { memory } = t.node
    assert.equal(memory[20], 0x45)
    assert.deepEqual([...memory.slice(1010, 1020), ...memory.slice(2000, 2050)], [...patternOf(60)])
  })
  const dropped: readonly (readonly [title: string, name: string, spec: PacketSpec, cause?: string])[] = [
    [
      'another Q_Key',
      'SEND_ONLY',
      { qkey: QKEY + 1 },
      `QP 0x77 sends with Q_Key 0x${(QKEY + 1).toString(16)}, and the queue pair has 0x${QKEY.toString(16)}`,
    ],
    ['another P_Key', 'SEND_ONLY', { pkey: 0x8001 }, 'QP 0x77 sends with P_Key 0x8001, and QP 0x11 has 0xffff'],
    [
      'more bytes than the buffer',
      'SEND_ONLY',
      { payload: 61 },
      'the receive buffer of 100 bytes is too short for a message of 101 bytes or more',
    ],
    ['another transport version', 'SEND_ONLY', { tver: 1 }],
  ]
  for (const [title, name, spec, cause] of dropped)
    it(`drops a datagram with ${title}, and does not consume a receive WQE`, () => {
      const t = start()
      t.postReceives(1, 100)
      t.receiveDatagram(name, spec)
      assert.deepEqual(t.completions(), [])
      assert.deepEqual(t.node.reported.map(causeText), cause === undefined ? [] : [cause])
      t.receiveDatagram('SEND_ONLY', { payload: 60 })
      assert.deepEqual(t.completions(), ['100 0 100'])
      assert.deepEqual(t.node.events, [])
    })
  it('counts Q_Key and P_Key violations', () => {
    const t = start()
    t.receiveDatagram('SEND_ONLY', { qkey: 1 })
    t.receiveDatagram('SEND_ONLY', { pkey: 1 })
    assert.equal(t.node.engine.counters.qkeyViolations, 1)
    assert.equal(t.node.engine.counters.pkeyViolations, 1)
  })
  it('drops a datagram without a receive WQE', () => {
    const t = start()
    t.receiveDatagram('SEND_ONLY', { payload: 8 })
    assert.deepEqual(t.node.reported.map(causeText), ['no receive request is posted'])
    t.postReceives(1, 100)
    assert.deepEqual(t.completions(), [])
    t.receiveDatagram('SEND_ONLY', { payload: 9 })
    assert.deepEqual(t.completions(), ['100 0 49'])
  })
  it('accepts datagrams in any PSN order and from any source, but no packets of other services', () => {
    const t = start()
    t.postReceives(4, 100)
    t.node.inject(t.row, packet('UD_SEND_ONLY', 900, { qkey: QKEY, srcQpn: 1 }), 0, 7)
    t.node.inject(t.row, packet('UD_SEND_ONLY', 3, { qkey: QKEY, srcQpn: 2 }), 0, -1)
    t.node.inject(t.row, packet('UC_SEND_ONLY', 4), 0, 7)
    t.node.inject(t.row, packet('RC_SEND_ONLY', 4), 0, 7)
    assert.deepEqual(
      t.node.cqes.map(c => c.srcQpn),
      [1, 2],
    )
  })
  it('receives in RTR and in SQE, not in INIT, and raises no COMM_EST', () => {
    const t = start()
    t.postReceives(3, 100)
    t.post({ id: 1, opcode: RDMA_READ, ...to(1) })
    t.sent()
    t.receiveDatagram('SEND_ONLY')
    assert.deepEqual(t.completions(), [`1 ${LOC_QP_OP_ERR} 0`, '100 0 40'])
    t.node.engine.modify(t.row, RESET, {})
    t.node.engine.modify(t.row, INIT, { qkey: 9 })
    t.receiveDatagram('SEND_ONLY', { qkey: 9 })
    assert.equal(t.node.cqes.length, 2)
    t.node.engine.modify(t.row, RTR, { pathMtu: MTU })
    t.receiveDatagram('SEND_ONLY', { qkey: 9 })
    assert.equal(t.node.cqes.length, 3)
    assert.deepEqual(t.node.events, [], 'no COMM_EST')
  })
  it('goes to ERR if its receive buffer is not writable or its lkey does not exist', () => {
    for (const isReadOnly of [true, false]) {
      const t = start()
      if (isReadOnly) t.node.regions.push({ key: 99, pd: 1, offset: 0, length: 100, access: Access.REMOTE_READ })
      t.node.postReceive(t.row, { id: 100, sges: [{ at: 0, length: 100, key: 99 }] }, { id: 101, ...sge(0, 100) })
      t.receiveDatagram('SEND_ONLY', { payload: 3 })
      assert.deepEqual(
        t.node.cqes.map(({ id, status }) => [id, status]),
        [
          [100, LOC_PROT_ERR],
          [101, WR_FLUSH_ERR],
        ],
      )
      assert.equal(t.node.engine.query(t.row).state, ERR)
    }
  })
})

it('an engine without `grh` creates no UD queue pairs', () => {
  const engine = createEngine({ work: {}, memory: {}, completions: {}, events: {} } as never)
  assert.throws(
    () => engine.create({ service: Service.UD } as never),
    /this engine has no datagrams: its environment has no `grh`/,
  )
})
