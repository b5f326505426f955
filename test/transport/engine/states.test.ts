/*
 * Queue pair states in the engine, hostile work queues, and garbage packets. test/spec/qp-states.test.ts tests the
 * legal transitions.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { QpState } from '../../../src/spec/enums.ts'
import { Service } from '../../../src/spec/wire/services.ts'
import { WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { createEngine } from '../../../src/transport/engine/engine.ts'
import { RES } from '../../../src/transport/engine/fields.ts'
import { PollResult } from '../../../src/transport/engine/scheduling.ts'
import { Completion, Send, type WorkSource } from '../../../src/transport/engine/types.ts'
import { createRandom, linkNodes } from './link.ts'
import { ALL_ACCESS, createNode, REMOTE_ACCESS, REMOTE_KEY, type TestNode } from './node.ts'
import { READ, SEND, sge, T14 } from './requests.ts'
import { RQ_PSN, SQ_PSN, startScript } from './script.ts'

const { RESET, INIT, RTR, RTS, SQD, ERR } = QpState.values

/** `windowBytes` that let two packets without payload be in flight: a packet's header counts as 64 bytes. */
const TWO_EMPTY_PACKETS = 100

describe('SQD', () => {
  it('finishes requests in flight, fetches no more, and raises SQ_DRAINED', () => {
    // Two packets fill the window; the third is the last one of request 1.
    const t = startScript({}, { windowBytes: 2000 })
    t.post({ id: 1, opcode: SEND, ...sge(0, 3000) }, { id: 2, opcode: SEND })
    assert.equal(t.sent().length, 2)
    t.node.engine.modify(t.row, SQD, {})
    assert.equal(t.node.engine.query(t.row).isDraining, true)
    t.response('ACKNOWLEDGE', 1)
    assert.deepEqual(t.sent(), ['SEND_LAST@2 ackreq [952]'])
    assert.deepEqual(t.node.events, [])
    t.response('ACKNOWLEDGE', 2)
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.deepEqual(t.node.events, ['SQ_DRAINED'])
    assert.equal(t.node.engine.query(t.row).isDraining, false)
    t.post({ id: 3, opcode: SEND })
    assert.deepEqual(t.sent(), [])
    t.node.engine.modify(t.row, RTS, {})
    assert.deepEqual(t.sent(), ['SEND_ONLY@3 ackreq', 'SEND_ONLY@4 ackreq'])
  })
  it('with nothing in flight drains immediately', () => {
    const t = startScript()
    t.node.engine.modify(t.row, SQD, {})
    assert.deepEqual(t.node.events, ['SQ_DRAINED'])
  })
  it('retransmits and continues to receive', () => {
    const t = startScript()
    t.postReceives(1, 10)
    t.post({ id: 1, opcode: SEND })
    t.sent()
    t.node.engine.modify(t.row, SQD, {})
    t.sleep(T14)
    assert.deepEqual(t.sent(), ['SEND_ONLY@0 ackreq'])
    t.request('SEND_ONLY', 0, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
  })
})

describe('attributes', () => {
  it('change in RTS: rights and RNR timer', () => {
    const t = startScript()
    t.node.engine.modify(t.row, undefined, { minRnrTimer: 3 })
    t.request('SEND_ONLY', 0, { payload: 1 })
    assert.deepEqual(t.sent(), ['RNR(3)@0 msn 0'])
    t.node.engine.modify(t.row, undefined, { access: 0 })
    t.request('READ_REQUEST', 0, { dmaLen: 1 })
    assert.deepEqual(t.sent(), ['NAK(INVALID_REQUEST)@0 msn 0'])
  })
  it('change in SQD: another max_dest_rd_atomic keeps the youngest responder resources', () => {
    for (const [count, expected] of [
      [5, ['ATOMIC_ACK@0 msn 1 = 0', 'ATOMIC_ACK@1 msn 2 = 1', 'READ_RESP_ONLY@2 msn 3 [1]']],
      [3, ['ATOMIC_ACK@0 msn 1 = 0', 'ATOMIC_ACK@1 msn 2 = 1', 'READ_RESP_ONLY@2 msn 3 [1]']],
      [2, ['ATOMIC_ACK@1 msn 2 = 1', 'READ_RESP_ONLY@2 msn 3 [1]']],
    ] as const) {
      const t = startScript({ maxDestRdAtomic: 3 })
      // `swap` is the operand of FETCH_ADD. The duplicates below are answered only from responder resources.
      for (const psn of [0, 1]) t.request('FETCH_ADD', psn, { remote: 8, swap: 1n })
      t.sent()
      t.request('READ_REQUEST', 2, { dmaLen: 1 })
      t.node.engine.modify(t.row, SQD, {})
      t.node.engine.modify(t.row, undefined, { maxDestRdAtomic: count })
      assert.deepEqual(t.sent(), ['READ_RESP_ONLY@2 msn 3 [1]'])
      for (const psn of [0, 1]) t.request('FETCH_ADD', psn, { remote: 8, swap: 1n })
      t.request('READ_REQUEST', 2, { dmaLen: 1 })
      assert.deepEqual(t.sent().sort(), [...expected].sort())
      assert.equal(t.node.words.getBigUint64(8, true), 2n)
      t.request('FETCH_ADD', 3, { remote: 8, swap: 1n })
      assert.deepEqual(t.sent(), ['ATOMIC_ACK@3 msn 4 = 2'])
    }
  })
})

describe('an error', () => {
  it('flushes the current receive, all sends, the other receives, and later posts', () => {
    const t = startScript({}, { windowBytes: TWO_EMPTY_PACKETS })
    t.postReceives(2, 2000)
    t.post(...[1, 2, 3].map(id => ({ id, opcode: SEND, flags: 0 })))
    assert.equal(t.sent().length, 2)
    t.request('SEND_FIRST', 0, { payload: 1024 })
    t.node.engine.modify(t.row, ERR, {})
    assert.deepEqual(t.completions(), ['100 FLUSH', '1 FLUSH', '2 FLUSH', '3 FLUSH', '101 FLUSH'])
    assert.equal(t.node.engine.nextTimeout(), Number.POSITIVE_INFINITY)
    t.post(...[4, 5].map(id => ({ id, opcode: SEND, flags: 0 })))
    t.post({ id: 6, opcode: SEND, flags: 0 })
    assert.deepEqual(t.completions(), ['4 FLUSH', '5 FLUSH', '6 FLUSH'])
    assert.equal(t.node.queues[t.row].retired, 6)
    assert.deepEqual(t.sent(), [])
    assert.ok(
      t.node.cqes.every(c => c.solicited),
      'failed completions count as solicited',
    )
  })
  it('found by the responder flushes the other receives', () => {
    const t = startScript()
    t.postReceives(2, 10)
    t.request('SEND_FIRST', 0, { payload: 1024 })
    t.node.endBurst()
    assert.deepEqual(t.completions(), ['100 LOC_LEN', '101 FLUSH'])
  })
  it('of queue pairs in INIT and RTR flushes too', () => {
    for (const state of [INIT, RTR]) {
      const t = startScript()
      t.node.engine.modify(t.row, RESET, {})
      t.node.queues[t.row].retired = 0
      t.node.engine.modify(t.row, INIT, { access: 0 })
      if (state === RTR) t.node.engine.modify(t.row, RTR, { rqPsn: 0, maxDestRdAtomic: 0, destQpn: 1 })
      t.post({ id: 1, opcode: SEND })
      t.postReceives(1, 10)
      assert.deepEqual(t.sent(), [])
      t.node.engine.modify(t.row, ERR, {})
      assert.deepEqual(t.completions(), ['1 FLUSH', '100 FLUSH'])
    }
  })
})

describe('RESET', () => {
  it('discards all requests without completions', () => {
    const t = startScript()
    t.postReceives(2, 2000)
    t.post({ id: 1, opcode: SEND }, { id: 2, opcode: READ, ...sge(0, 100) })
    t.request('READ_REQUEST', 0, { dmaLen: 1 })
    t.request('SEND_FIRST', 1, { payload: 1024 })
    assert.equal(t.sent().length, 3, 'two requests and a READ response')
    t.node.engine.modify(t.row, RESET, {})
    assert.equal(t.node.engine.nextTimeout(), Number.POSITIVE_INFINITY)
    assert.deepEqual(t.sent(), [])
    t.node.queues[t.row] = { sends: [], receives: [], retired: 0 }
    assert.deepEqual(t.completions(), [])
    t.node.connect(t.row, { destQpn: 0x22, sqPsn: SQ_PSN, rqPsn: RQ_PSN })
    t.post({ id: 3, opcode: SEND })
    assert.deepEqual(t.sent(), ['SEND_ONLY@0 ackreq'])
    t.postReceives(1, 100)
    t.request('SEND_ONLY', 0, { payload: 1, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
    t.response('ACKNOWLEDGE', 0)
    assert.deepEqual(t.completions(), ['100 ok recv 1', '3 ok'])
  })
})

for (const end of ['RESET', 'destroy'])
  it(`${end} reports nothing about received data that cannot be written any more`, () => {
    const t = startScript()
    t.postReceives(2, 2000)
    t.post({ id: 1, opcode: SEND })
    t.request('WRITE_FIRST', 0, { payload: 1024, dmaLen: 2000 })
    t.node.regions.length = 0
    if (end === 'destroy') t.node.engine.destroy(t.row)
    else t.node.engine.modify(t.row, RESET, {})
    assert.deepEqual(t.completions(), [])
    assert.deepEqual(t.node.events, [])
    assert.equal(t.node.naks.size, 0)
  })

it('completed requests leave no block in the pool', () => {
  const t = startScript()
  const before = t.node.engine.stat().poolWords
  t.postReceives(2, 2000)
  t.request('SEND_ONLY', 0, { payload: 1 })
  t.request('WRITE_ONLY_IMM', 1)
  t.post({ id: 1, opcode: SEND })
  t.sent()
  t.response('ACKNOWLEDGE', 0)
  assert.equal(t.completions().length, 3)
  assert.equal(t.node.engine.counters.receives, 1, 'a WRITE with immediate is not counted')
  assert.equal(t.node.engine.stat().poolWords, before)
})

it('in ERR nothing is drained, and flushed receives have nothing of an earlier receive', () => {
  const t = startScript()
  t.postReceives(2, 8)
  t.request('SEND_ONLY_IMM', 0, { payload: 1, imm: 7 })
  t.post({ id: 1, opcode: SEND })
  t.sent()
  t.node.engine.modify(t.row, SQD, {})
  assert.equal(t.node.engine.query(t.row).isDraining, true)
  t.node.engine.modify(t.row, ERR, {})
  assert.equal(t.node.engine.query(t.row).isDraining, false)
  const { bytes, imm, flags, srcQpn } = t.node.cqes[2]
  assert.deepEqual([t.node.cqes[2].id, bytes, imm, flags, srcQpn], [101, 0, 0, 0, 0])
})

it('more than 1024 requests of a queue are flushed in several polls', () => {
  const t = startScript()
  t.node.engine.modify(t.row, SQD, {})
  t.postReceives(3000, 8)
  t.post(...Array.from({ length: 3000 }, (_, id) => ({ id, opcode: SEND })))
  t.node.engine.modify(t.row, ERR, {})
  assert.equal(t.completions().length, 2 * 1024)
  t.sent()
  assert.equal(t.completions().length, 2 * (3000 - 1024))
})

it('flushed requests leave no block in the pool', () => {
  const t = startScript({}, { windowBytes: TWO_EMPTY_PACKETS })
  const before = t.node.engine.stat().poolWords
  t.postReceives(3, 2000)
  t.request('SEND_FIRST', 0, { payload: 1024 })
  t.post(...[1, 2, 3, 4].map(id => ({ id, opcode: SEND })))
  t.sent()
  t.node.engine.modify(t.row, ERR, {})
  assert.equal(t.completions().length, 7)
  assert.equal(t.node.engine.stat().poolWords, before)
})

it('a destroyed queue pair leaves no block in the pool', () => {
  const t = startScript({ maxDestRdAtomic: 2 }, { windowBytes: TWO_EMPTY_PACKETS })
  t.request('SEND_ONLY', 0, { payload: 1 })
  t.request('READ_REQUEST', 0, { dmaLen: 1 })
  t.sent()
  t.node.engine.modify(t.row, SQD, {})
  t.node.engine.modify(t.row, undefined, { maxDestRdAtomic: 16 })
  t.node.engine.modify(t.row, RTS, {})
  t.postReceives(1, 2000)
  t.request('SEND_FIRST', 1, { payload: 1024 })
  t.post({ id: 1, opcode: SEND, ...sge(0, 3000) }, { id: 2, opcode: SEND })
  t.sent()
  assert.ok(t.node.engine.stat().poolWords > 16 * RES.WORDS)
  t.node.engine.destroy(t.row)
  assert.deepEqual(t.node.engine.stat(), { queuePairs: 0, poolWords: 0 })
})

describe('requests posted before RTS', () => {
  it('are sent in RTS without another doorbell', () => {
    const t = startScript()
    t.node.engine.modify(t.row, RESET, {})
    t.post({ id: 1, opcode: SEND })
    t.node.connect(t.row, { destQpn: 0x22, sqPsn: SQ_PSN })
    assert.deepEqual(t.sent(), ['SEND_ONLY@0 ackreq'])
  })
})

describe('rows', () => {
  it('are reused, and a destroyed queue pair sends nothing', () => {
    const t = startScript()
    const rows = Array.from({ length: 100 }, (_, i) => t.node.createQp(100 + i))
    assert.equal(new Set([t.row, ...rows]).size, 101)
    const row = rows[50]
    t.node.connect(row, { destQpn: 0x22, sqPsn: SQ_PSN })
    t.node.post(row, { id: 1, opcode: SEND })
    assert.equal(t.sent().length, 1)
    t.node.post(row, { id: 2, opcode: SEND })
    t.node.engine.destroy(row)
    assert.deepEqual(t.sent(), [])
    assert.equal(t.node.engine.nextTimeout(), Number.POSITIVE_INFINITY)
    assert.throws(() => t.node.engine.query(row), /no queue pair in row/)
    assert.throws(() => t.node.engine.destroy(row), /no queue pair in row/)
    assert.equal(t.node.createQp(7), row)
    assert.equal(t.node.engine.query(row).state, RESET)
    assert.deepEqual(t.completions(), [])
  })
  it('of hundreds of queue pairs do not mix their traffic', () => {
    const random = createRandom(5)
    const nodes: [TestNode, TestNode] = [createNode(), createNode()]
    const wire = linkNodes(nodes, { drop: 0.02, duplicate: 0.02, reorder: 0.05 }, random)
    const count = 300
    for (let i = 0; i < count; i++)
      nodes.forEach((node, side) => {
        const row = node.createQp(1000 + i)
        assert.equal(row, i)
        node.connect(row, { destQpn: 1000 + i, sqPsn: i, rqPsn: i, timeout: 8, pathMtu: 256 })
        wire.bind(side, 1000 + i, row)
        for (let k = 0; k < 3; k++) node.postReceive(row, { id: i, ...sge(0x1_0000 + i * 64, 64) })
      })
    for (let i = 0; i < count; i++)
      for (let k = 0; k < 3; k++) nodes[0].post(i, { id: i, opcode: SEND, inline: new Uint8Array(40).fill(i & 255) })
    while (wire.step()) {}
    assert.equal(nodes[0].cqes.length, 3 * count)
    assert.equal(nodes[1].cqes.length, 3 * count)
    for (const node of nodes)
      for (const { cq, qpn, id, status } of node.cqes) {
        assert.equal(cq, node === nodes[0] ? 1 : 2, 'the send CQ, the receive CQ')
        assert.deepEqual([qpn, status], [1000 + id, 0])
      }
    for (let i = 0; i < count; i++) assert.equal(nodes[1].memory[0x1_0000 + i * 64 + 39], i & 255)
  })
})

describe('a hostile program', () => {
  /** Never called, because `resolve` finds no key. */
  const succeed = (): number => 0
  const memory = {
    resolve: () => -1,
    grants: () => false,
    read: succeed,
    write: succeed,
    compareSwap: succeed,
    hasProcessEnded: () => false,
    fetchAdd: succeed,
    bindWindow: () => false,
    invalidate: () => WcStatus.values.LOC_QP_OP_ERR,
  }
  const attributes = { destQpn: 1, rqPsn: 0, pathMtu: 256, maxDestRdAtomic: 1, minRnrTimer: 1, flow: 0, peer: 0 }
  const start = (work: WorkSource) => {
    const statuses: number[] = []
    const engine = createEngine({
      work,
      memory,
      completions: { push: (_cq, words) => statuses.push(words[Completion.STATUS]) },
      events: { raise: () => {} },
    })
    const sizes = { maxSendSge: 4, maxRecvSge: 4 }
    const row = engine.create({ service: Service.RC, qpn: 1, pd: 1, sendCq: 1, recvCq: 1, ...sizes, sqSigAll: true })
    engine.modify(row, INIT, { access: REMOTE_ACCESS })
    engine.modify(row, RTR, attributes)
    engine.modify(row, RTS, { sqPsn: 0, timeout: 1, retryCnt: 1, rnrRetry: 1, maxRdAtomic: 1 })
    return { engine, row, statuses }
  }
  const { sink, sent } = createNode()

  it('whose requests are garbage gets only completions with errors', () => {
    const random = createRandom(9)
    for (let round = 0; round < 3000; round++) {
      let requests = 3
      const { engine, row, statuses } = start({
        loadSend(_row, _index, into, at) {
          if (requests-- <= 0) return false
          for (let i = 0; i < Send.SGE + 16; i++)
            into[at + i] = random() < 0.5 ? random() * WrOpcode.values.DRIVER1 : random() * 0x1_0000_0000
          into[at + Send.SGES] = random() < 0.7 ? random() * 5 : 0xffff_ffff
          return true
        },
        retireSend() {},
        copyInline() {},
        takeReceive: () => false,
      })
      engine.onDoorbell(row)
      for (let i = 0; i < 5 && engine.pollTransmit(sink, i) !== PollResult.DONE; i++) {}
      sent.length = 0
      engine.modify(row, ERR, {})
      assert.equal(statuses.length, 3)
      assert.ok(statuses.every(status => status > 0))
    }
  })
  it('that posts faster than the engine flushes has a limited number of requests flushed per call', () => {
    let loads = 0
    const { engine, row } = start({
      loadSend(_row, _index, into, at) {
        loads++
        into.fill(0, at, at + Send.SGE)
        return true
      },
      retireSend() {},
      copyInline() {},
      takeReceive(_row, into, at) {
        into.fill(0, at, at + 4)
        return true
      },
    })
    for (const flush of [() => engine.modify(row, ERR, {}), () => engine.pollTransmit(sink, 0)]) {
      loads = 0
      flush()
      assert.ok(loads > 0 && loads < 5000, `${loads} requests in one call`)
    }
    assert.equal(engine.pollTransmit(sink, 0), PollResult.MORE)
    engine.destroy(row)
    assert.equal(engine.pollTransmit(sink, 0), PollResult.DONE)
  })
  it('that posts endlessly is served within the window', () => {
    let loads = 0
    const { engine, row } = start({
      loadSend(_row, _index, into, at) {
        loads++
        into.fill(0, at, at + Send.SGE)
        into[at + Send.OPCODE] = SEND
        return true
      },
      retireSend() {},
      copyInline() {},
      takeReceive: () => false,
    })
    engine.onDoorbell(row)
    for (let i = 0; i < 100 && engine.pollTransmit(sink, 0) !== PollResult.DONE; i++) {}
    assert.ok(loads < 5000, `${loads} requests were fetched`)
    sent.length = 0
  })
})

describe('packets of garbage', () => {
  it('make no call throw, and change no memory outside of the region and the buffers', () => {
    const random = createRandom(11)
    for (let round = 0; round < 300; round++) {
      const t = startScript({ maxDestRdAtomic: 2 })
      t.postReceives(3, 3000)
      t.node.regions[0] = { key: REMOTE_KEY, pd: 1, offset: 0x4000, length: 0x100, access: ALL_ACCESS }
      t.post({ id: 1, opcode: SEND, ...sge(0, 3000) }, { id: 2, opcode: READ, ...sge(0x6000, 3000) })
      t.sent()
      for (let i = 0; i < 40; i++) {
        const bytes = Uint8Array.from({ length: 4 * Math.floor(random() * 30) }, () => random() * 256)
        if (bytes.length > 12) {
          bytes[0] = random() * 0x20 // opcode, of RC
          bytes[1] = random() < 0.8 ? 0 : random() * 256 // flags, PadCnt, TVer
          bytes.fill(255, 2, 4) // P_Key 0xffff
          const firstPsn = random() < 0.5 ? RQ_PSN : SQ_PSN
          new DataView(bytes.buffer).setUint32(8, firstPsn + Math.floor(random() * 4)) // AckReq 0, and the PSN
        }
        t.injectRaw(bytes)
        if (random() < 0.3) t.sleep(random() * 100_000)
        if (random() < 0.3) t.sent()
      }
      t.sent()
      // The receive buffers, the region, and the buffer of the READ.
      for (const [at, length] of [
        [0, 9000],
        [0x4000, 0x100],
        [0x6000, 3000],
      ])
        t.node.memory.fill(0, at, at + length)
      assert.ok(t.node.memory.every(byte => byte === 0))
    }
  })
})
