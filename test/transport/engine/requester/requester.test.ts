/*
 * Packet scripts for the requester.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Errno } from '../../../../src/spec/errno.ts'
import { WcStatus } from '../../../../src/spec/work.ts'
import { PACKET_WEIGHT } from '../../../../src/transport/engine/state.ts'
import { ALL_ACCESS, MEMORY_BYTES, type SendSpec } from '../node.ts'
import {
  CAS,
  ERR,
  FAA,
  FENCE,
  fillMemory,
  MTU,
  NAK,
  READ,
  RTS,
  SEND,
  SEND_IMM,
  SEND_INV,
  SIGNALED,
  SOLICITED,
  sentPayload,
  sge,
  T14,
  WRITE,
  WRITE_IMM,
} from '../requests.ts'
import { PEER_QPN, SQ_PSN, startScript } from '../script.ts'

/** The option for a window of `packets` full packets. */
const windowOf = (packets: number) => ({ windowBytes: packets * (MTU + PACKET_WEIGHT) })

describe('packets of a message', () => {
  const messages: [SendSpec, string[]][] = [
    [{ id: 1, opcode: SEND }, ['SEND_ONLY@0 ackreq']],
    [{ id: 1, opcode: SEND, ...sge(0, 5) }, ['SEND_ONLY@0 ackreq [5]']],
    [{ id: 1, opcode: SEND, ...sge(0, MTU), flags: SIGNALED | SOLICITED }, ['SEND_ONLY@0 ackreq se [1024]']],
    [{ id: 1, opcode: SEND, ...sge(0, MTU + 1) }, ['SEND_FIRST@0 [1024]', 'SEND_LAST@1 ackreq [1]']],
    [
      { id: 1, opcode: SEND, ...sge(0, 3 * MTU), flags: SIGNALED | SOLICITED },
      ['SEND_FIRST@0 [1024]', 'SEND_MIDDLE@1 [1024]', 'SEND_LAST@2 ackreq se [1024]'],
    ],
    [{ id: 1, opcode: SEND_IMM, imm: 0xdeadbeef }, [`SEND_ONLY_IMM@0 ackreq imm ${0xdeadbeef}`]],
    [
      { id: 1, opcode: SEND_IMM, imm: 7, ...sge(0, 2 * MTU) },
      ['SEND_FIRST@0 [1024]', 'SEND_LAST_IMM@1 ackreq imm 7 [1024]'],
    ],
    [{ id: 1, opcode: SEND_INV, imm: 9, ...sge(0, 3) }, ['SEND_ONLY_INV@0 ackreq inv 9 [3]']],
    [{ id: 1, opcode: WRITE, remote: 77 }, ['WRITE_ONLY@0 ackreq reth +77:0']],
    [
      { id: 1, opcode: WRITE, remote: 5, ...sge(0, 2 * MTU + 3), flags: SIGNALED | SOLICITED },
      ['WRITE_FIRST@0 reth +5:2051 [1024]', 'WRITE_MIDDLE@1 [1024]', 'WRITE_LAST@2 ackreq [3]'],
    ],
    [{ id: 1, opcode: WRITE, ...sge(0, 4), flags: SIGNALED | SOLICITED }, ['WRITE_ONLY@0 ackreq reth +0:4 [4]']],
    [
      { id: 1, opcode: WRITE_IMM, imm: 1, ...sge(0, MTU + 8), flags: SIGNALED | SOLICITED },
      ['WRITE_FIRST@0 reth +0:1032 [1024]', 'WRITE_LAST_IMM@1 ackreq se imm 1 [8]'],
    ],
    [{ id: 1, opcode: WRITE_IMM, imm: 1 }, ['WRITE_ONLY_IMM@0 ackreq reth +0:0 imm 1']],
    [{ id: 1, opcode: READ, remote: 9, ...sge(0, 5000) }, ['READ_REQUEST@0 ackreq reth +9:5000']],
    [{ id: 1, opcode: CAS, remote: 8, ...sge(0, 8), compare: 3n, swap: 4n }, ['COMPARE_SWAP@0 ackreq +8 swap 4 cmp 3']],
    [{ id: 1, opcode: FAA, remote: 8, ...sge(0, 8), compare: 3n }, ['FETCH_ADD@0 ackreq +8 swap 3 cmp 0']],
    [
      { id: 1, opcode: CAS, ...sge(0, 8), compare: 0x3_0000_0004n, swap: 0x5_0000_0006n },
      [`COMPARE_SWAP@0 ackreq +0 swap ${0x5_0000_0006n} cmp ${0x3_0000_0004n}`],
    ],
    [
      { id: 1, opcode: FAA, ...sge(0, 8), compare: 0x3_0000_0004n, swap: 1n },
      [`FETCH_ADD@0 ackreq +0 swap ${0x3_0000_0004n} cmp 0`],
    ],
  ]
  for (const [spec, expected] of messages)
    it(expected.join(', '), () => {
      const t = startScript()
      t.post(spec)
      assert.deepEqual(t.sent(), expected)
      assert.deepEqual(t.sent(), [])
    })

  it('carry the data, and pads are zero', () => {
    const t = startScript()
    const bytes = fillMemory(t, 100, 3001)
    t.post({ id: 1, opcode: SEND, ...sge(100, 3001) })
    t.sent()
    assert.deepEqual(sentPayload(t), bytes)
    const last = t.node.sent[2].bytes
    assert.deepEqual([...last.slice(-7, -4)], [0, 0, 0], 'three pad bytes before the ICRC')
  })
  it('without data need no valid key', () => {
    const t = startScript()
    t.post({ id: 1, opcode: SEND, sges: [{ at: 0, length: 0, key: 0xbad }] })
    assert.deepEqual(t.sent(), ['SEND_ONLY@0 ackreq'])
  })
  it('carry data gathered from several SGEs at any boundary', () => {
    for (const lengths of [
      [0, 3000],
      [1, 1023, 0, 1976],
      [1024, 1024, 952],
      [700, 700, 1600],
    ]) {
      const t = startScript()
      const bytes = fillMemory(t, 50, 3000)
      let at = 50
      t.post({
        id: 1,
        opcode: WRITE,
        sges: lengths.map(length => {
          const element = { at, length, ...(length === 0 ? { key: 0xbad } : {}) }
          at += length
          return element
        }),
      })
      t.sent()
      assert.deepEqual(sentPayload(t), bytes)
    }
  })
  it('are sent to the flow of the queue pair; so are responses', () => {
    const t = startScript({ flow: 5 })
    const remote = { remote: 8, compare: 2n }
    t.post({ id: 1, opcode: WRITE, ...sge(0, 3 * MTU), ...remote }, { id: 2, opcode: SEND, ...sge(0, 1), ...remote })
    t.post({ id: 3, opcode: READ, ...sge(0, 1), ...remote }, { id: 4, opcode: FAA, ...sge(0, 8), ...remote })
    t.request('READ_REQUEST', 0, { dmaLen: 3 * MTU })
    t.request('FETCH_ADD', 3, { remote: 8 })
    t.request('WRITE_ONLY', 4, { payload: 1, ackReq: true })
    t.sent()
    const [requests, responses] = [6, 5]
    assert.deepEqual(
      t.node.sent.map(({ flow }) => flow),
      new Array(requests + responses).fill(5),
    )
  })
  it('carry inline data, which is not read from client memory', () => {
    const t = startScript()
    const inline = Uint8Array.from({ length: 2500 }, (_, i) => i)
    t.post({ id: 1, opcode: SEND, inline })
    assert.equal(t.sent().length, 3)
    assert.deepEqual(sentPayload(t), inline)
    assert.equal(t.node.dmaCalls.reads, 0)
  })
  it('are read in one DMA and form one run; a WRITE FIRST has a run of its own', () => {
    for (const [opcode, runs] of [
      [SEND, 1],
      [WRITE, 2],
    ] as const) {
      const t = startScript()
      t.post({ id: 1, opcode, ...sge(0, 20 * MTU + 1) })
      assert.equal(t.sent().length, 21)
      assert.equal(t.node.port.runs, runs)
      assert.equal(t.node.dmaCalls.reads, 1)
    }
  })
  it('of several small messages share a run', () => {
    const t = startScript()
    t.post(...Array.from({ length: 10 }, (_, id) => ({ id, opcode: SEND, ...sge(0, 64) })))
    assert.equal(t.sent().length, 10)
    assert.equal(t.node.port.runs, 1)
  })
  it('have consecutive PSNs; a READ takes one PSN per response', () => {
    const t = startScript()
    t.post(
      { id: 1, opcode: SEND, ...sge(0, MTU + 1) },
      { id: 2, opcode: READ, ...sge(0, 3000) },
      { id: 3, opcode: SEND, ...sge(0, 1) },
    )
    assert.deepEqual(t.sent().slice(2), ['READ_REQUEST@2 ackreq reth +0:3000', 'SEND_ONLY@5 ackreq [1]'])
  })
  it('request an acknowledgement in each packet, also the first of a WRITE, if the window has four packets', () => {
    const t = startScript({}, windowOf(4))
    t.post({ id: 1, opcode: WRITE, ...sge(0, 40 * MTU) })
    assert.deepEqual(
      t.sent().map(text => text.includes('ackreq')),
      [true, true, true, true],
    )
  })
  it('request an acknowledgement within a long message before the window is full', () => {
    const t = startScript({}, windowOf(16))
    t.post({ id: 1, opcode: SEND, ...sge(0, 40 * MTU) })
    const sent = t.sent()
    assert.equal(sent.length, 16)
    const ackReqs = sent.map((p, i) => (p.includes('ackreq') ? i : -1)).filter(i => i >= 0)
    assert.deepEqual(ackReqs, [3, 7, 11, 15], 'after each quarter of the window')
    t.response('ACKNOWLEDGE', 7)
    assert.equal(t.sent().length, 8)
    t.response('ACKNOWLEDGE', 23)
    assert.equal(t.sent().length, 16)
    t.response('ACKNOWLEDGE', 39, { msn: 1 })
    assert.deepEqual(t.completions(), ['1 ok'])
  })
})

describe('the order of requests', () => {
  it('at most max_rd_atomic READs and atomics are in flight', () => {
    const t = startScript({ maxRdAtomic: 2 })
    t.post(
      { id: 1, opcode: READ, ...sge(0, 4) },
      { id: 2, opcode: FAA, ...sge(8, 8) },
      { id: 3, opcode: READ, ...sge(0, 4) },
      { id: 4, opcode: SEND },
    )
    assert.equal(t.sent().length, 2)
    t.response('READ_RESP_ONLY', 0, { payload: 4 })
    assert.deepEqual(t.sent(), ['READ_REQUEST@2 ackreq reth +0:4', 'SEND_ONLY@3 ackreq'])
  })
  it('a fenced request waits for the READs and atomics before it', () => {
    const t = startScript()
    t.post({ id: 1, opcode: READ, ...sge(0, 4) }, { id: 2, opcode: SEND, flags: FENCE })
    assert.deepEqual(t.sent(), ['READ_REQUEST@0 ackreq reth +0:4'])
    t.response('READ_RESP_ONLY', 0, { payload: 4 })
    assert.deepEqual(t.sent(), ['SEND_ONLY@1 ackreq'])
  })
  it('a fenced READ or atomic waits for the READ before it', () => {
    for (const opcode of [READ, FAA]) {
      const t = startScript()
      t.post({ id: 1, opcode: READ, ...sge(0, 4) }, { id: 2, opcode, ...sge(8, 8), flags: FENCE })
      assert.equal(t.sent().length, 1)
      t.response('READ_RESP_ONLY', 0, { payload: 4 })
      assert.equal(t.sent().length, 1)
    }
  })
  it('a READ of 2 GiB uses half the PSNs; nothing follows until its first response', () => {
    const t = startScript({ pathMtu: 256 }, {})
    const length = 2 ** 31
    const responses = length / 256
    // A region may be larger than client memory: only the bytes that are written must exist.
    t.node.regions.push({ key: 0x99, pd: 1, offset: 0, length, access: ALL_ACCESS })
    t.post({ id: 1, opcode: READ, sges: [{ at: 0, length, key: 0x99 }] }, { id: 2, opcode: SEND })
    assert.deepEqual(t.sent(), [`READ_REQUEST@0 ackreq reth +0:${length}`])
    t.response('READ_RESP_FIRST', 0, { payload: 256 })
    // The PSN is SQ_PSN + 2^23, which `sent` shows as a signed difference.
    assert.deepEqual(t.sent(), [`SEND_ONLY@-${responses} ackreq`])
    t.response('READ_RESP_MIDDLE', 1, { payload: 256 })
    assert.equal(t.state, RTS)
    assert.equal(t.node.engine.query(t.row).sqPsn, (SQ_PSN + responses + 1) & 0xffffff)
  })
  it('queue pairs take turns', () => {
    const message = { opcode: SEND, ...sge(0, 200 * MTU) }
    const t = startScript({}, { memoryBytes: 300 * MTU, windowBytes: 1e6 })
    const second = t.node.createQp(0x12)
    t.node.connect(second, { destQpn: PEER_QPN, sqPsn: SQ_PSN, flow: 5 })
    t.post({ id: 1, ...message })
    t.node.post(second, { id: 2, ...message })
    t.sent()
    const flows = t.node.sent.map(p => p.flow)
    assert.equal(flows.length, 400)
    const firstFlows = flows.slice(0, 150)
    assert.ok(firstFlows.filter(flow => flow === 5).length > 50, 'the second queue pair has its share')
    assert.ok(firstFlows.filter(flow => flow === 0).length > 50, 'the first queue pair has its share')
  })
})

describe('a local error', () => {
  const good = (id: number): SendSpec => ({ id, opcode: SEND, ...sge(0, 4) })
  const wrong: [string, Omit<SendSpec, 'id'>, string][] = [
    ['a wrong key', { opcode: SEND, sges: [{ at: 0, length: 4, key: 0xbad }] }, 'LOC_PROT'],
    ['a range that ends outside', { opcode: WRITE, sges: [{ at: MEMORY_BYTES - 1, length: 2 }] }, 'LOC_PROT'],
    [
      'a wrong key in a later element',
      {
        opcode: SEND,
        sges: [
          { at: 0, length: 4000 },
          { at: 0, length: 4, key: 0xbad },
        ],
      },
      'LOC_PROT',
    ],
    [
      'a range of several packets that ends outside',
      { opcode: WRITE, sges: [{ at: MEMORY_BYTES - 4096, length: 4097 }] },
      'LOC_PROT',
    ],
    ['an atomic of four bytes', { opcode: FAA, ...sge(0, 4) }, 'LOC_LEN'],
    ['more than 2 GiB', { opcode: SEND, sges: [sge(0, 0x8000_0000).sges[0], sge(0, 1).sges[0]] }, 'LOC_LEN'],
    ['an unknown opcode', { opcode: 77 }, 'LOC_QP_OP'], // ibv_wr_opcode ends at 15
    ['the largest number as opcode', { opcode: 0xffff_ffff }, 'LOC_QP_OP'],
    ['an operation that is not supported', { opcode: 10 }, 'LOC_QP_OP'], // IBV_WR_TSO
    ['an inline READ', { opcode: READ, inline: new Uint8Array(4) }, 'LOC_QP_OP'],
    ['a request that the work queue refuses', { opcode: SEND, refused: WcStatus.values.LOC_LEN_ERR }, 'LOC_LEN'],
    ['too many elements', { opcode: SEND, sges: Array.from({ length: 5 }, () => ({ at: 0, length: 1 })) }, 'LOC_QP_OP'],
  ]
  for (const [title, spec, status] of wrong)
    it(`${title}: ${status} after earlier requests, without a packet`, () => {
      const t = startScript({}, { maxSge: 4 })
      t.post(good(1), { id: 2, ...spec }, good(3))
      assert.deepEqual(t.sent(), ['SEND_ONLY@0 ackreq [4]'])
      assert.deepEqual(t.completions(), [])
      t.response('ACKNOWLEDGE', 0)
      assert.deepEqual(t.completions(), ['1 ok', `2 ${status}`, '3 FLUSH'])
      assert.equal(t.state, ERR)
    })
  it("a READ or atomic with a wrong local key is sent, and ends with its response or the peer's NAK", () => {
    for (const [opcode, response, spec] of [
      [READ, 'READ_RESP_ONLY', { payload: 8 }],
      [FAA, 'ATOMIC_ACK', {}],
    ] as const)
      for (const status of ['LOC_PROT', 'REM_ACCESS']) {
        const t = startScript()
        t.post(good(1), { id: 2, opcode, sges: [{ at: 0, length: 8, key: 0xbad }] }, good(3))
        assert.equal(t.sent().length, 3)
        t.response('ACKNOWLEDGE', 0)
        assert.deepEqual(t.completions(), ['1 ok'])
        if (status === 'LOC_PROT') t.response(response, 1, spec)
        else t.response('ACKNOWLEDGE', 1, { syndrome: NAK.ACCESS })
        assert.deepEqual(t.completions(), [`2 ${status}`, '3 FLUSH'])
      }
  })
  it('a wrong key in a later element: no packet of the message is sent, also if it needs several runs', () => {
    const t = startScript({}, { maxPackets: 2 })
    const wrong = { at: 0, length: 4, key: 0xbad }
    t.post({ id: 1, opcode: SEND, sges: [{ at: 0, length: 8 * MTU }, wrong] })
    assert.deepEqual(t.sent(), [])
    assert.deepEqual(t.completions(), ['1 LOC_PROT'])
  })
  it('of the only request completes it immediately', () => {
    const t = startScript()
    t.post({ id: 2, opcode: SEND, sges: [{ at: 0, length: 4, key: 0xbad }], flags: 0 })
    assert.deepEqual(t.sent(), [])
    assert.deepEqual(t.completions(), ['2 LOC_PROT'])
  })
  it('READ with max_rd_atomic 0: LOC_QP_OP', () => {
    const t = startScript({ maxRdAtomic: 0 })
    t.post({ id: 2, opcode: READ, ...sge(0, 4) })
    assert.deepEqual(t.sent(), [])
    assert.deepEqual(t.completions(), ['2 LOC_QP_OP'])
  })
  it('memory unmapped while the message is sent: LOC_PROT', () => {
    const t = startScript({}, windowOf(3))
    t.post({ id: 1, opcode: SEND, ...sge(0, 10 * MTU) })
    assert.equal(t.sent().length, 3)
    t.node.faults.read = Errno.EFAULT
    t.response('ACKNOWLEDGE', 2)
    assert.deepEqual(t.sent(), [])
    assert.deepEqual(t.completions(), ['1 LOC_PROT'])
  })
  it('READ whose last response cannot be written: LOC_PROT', () => {
    const t = startScript()
    t.post({ id: 1, opcode: READ, ...sge(0, 2 * MTU) }, { id: 2, opcode: SEND })
    t.sent()
    t.response('READ_RESP_FIRST', 0, { payload: MTU })
    t.node.endBurst() // executes the DMA of the first response
    t.node.faults.write = Errno.EFAULT
    t.response('READ_RESP_LAST', 1, { payload: MTU })
    assert.deepEqual(t.completions(), ['1 LOC_PROT', '2 FLUSH'])
    assert.equal(t.node.queues[t.row].retired, 2)
  })
  it('READ whose buffer is unmapped before the data is written: LOC_PROT', () => {
    const t = startScript()
    t.post({ id: 1, opcode: READ, ...sge(0, 3 * MTU) }, { id: 2, opcode: SEND })
    t.sent()
    t.response('READ_RESP_FIRST', 0, { payload: MTU })
    t.node.faults.write = Errno.EFAULT
    t.sent()
    assert.deepEqual(t.completions(), ['1 LOC_PROT', '2 FLUSH'])
    t.response('READ_RESP_MIDDLE', 1, { payload: MTU })
    assert.deepEqual(t.completions(), [])
  })
})

describe('READs that the window splits into parts (boundReads)', () => {
  const bounded = { ...windowOf(4), boundReads: true }
  it('request half a window at a time, with at most one window in flight', () => {
    const t = startScript({}, bounded)
    t.post({ id: 1, opcode: READ, remote: 9, ...sge(0, 5 * MTU - 10) }, { id: 2, opcode: SEND })
    const readRequest = (psn: number, packets: number, bytes = packets * MTU): string =>
      `READ_REQUEST@${psn} ackreq reth +${9 + psn * MTU}:${bytes}`
    assert.deepEqual(t.sent(), [readRequest(0, 2), readRequest(2, 2)])
    t.response('READ_RESP_FIRST', 0, { payload: MTU })
    t.response('READ_RESP_LAST', 1, { payload: MTU })
    assert.deepEqual(t.sent(), [readRequest(4, 1, MTU - 10), 'SEND_ONLY@5 ackreq'])
    t.response('READ_RESP_FIRST', 2, { payload: MTU })
    t.response('READ_RESP_LAST', 3, { payload: MTU })
    assert.deepEqual(t.completions(), [])
    t.response('READ_RESP_ONLY', 4, { payload: MTU - 10 })
    t.response('ACKNOWLEDGE', 5)
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
    assert.equal(t.node.engine.nextTimeout(), Number.POSITIVE_INFINITY)
  })
  it('count as several READs in flight', () => {
    const t = startScript({ maxRdAtomic: 1 }, bounded)
    t.post({ id: 1, opcode: READ, ...sge(0, 3 * MTU) })
    assert.equal(t.sent().length, 1)
    t.response('READ_RESP_FIRST', 0, { payload: MTU })
    assert.equal(t.sent().length, 0)
    t.response('READ_RESP_LAST', 1, { payload: MTU })
    assert.deepEqual(t.sent(), [`READ_REQUEST@2 ackreq reth +${2 * MTU}:${MTU}`])
  })
  it('are requested again from the lost response, part by part', () => {
    const t = startScript({}, { ...windowOf(8), boundReads: true })
    t.post({ id: 1, opcode: READ, ...sge(0, 8 * MTU) })
    assert.equal(t.sent().length, 2)
    t.response('READ_RESP_FIRST', 0, { payload: MTU })
    t.response('READ_RESP_MIDDLE', 2, { payload: MTU })
    assert.deepEqual(t.sent(), [
      `READ_REQUEST@1 ackreq reth +${MTU}:${3 * MTU}`,
      `READ_REQUEST@4 ackreq reth +${4 * MTU}:${4 * MTU}`,
    ])
    t.response('READ_RESP_FIRST', 1, { payload: MTU })
    t.response('READ_RESP_MIDDLE', 2, { payload: MTU })
    t.response('READ_RESP_LAST', 3, { payload: MTU })
    for (const [i, name] of ['FIRST', 'MIDDLE', 'MIDDLE', 'LAST'].entries())
      t.response(`READ_RESP_${name}`, 4 + i, { payload: MTU })
    assert.deepEqual(t.completions(), ['1 ok'])
  })
  it('are requested again although losses made the window smaller than a part', () => {
    const t = startScript({}, { ...windowOf(32), boundReads: true })
    t.post({ id: 1, opcode: READ, ...sge(0, 32 * MTU) })
    assert.equal(t.sent().length, 2)
    for (let losses = 0; losses < 3; losses++) {
      t.sleep(T14)
      assert.equal(t.sent()[0], `READ_REQUEST@0 ackreq reth +0:${16 * MTU}`)
    }
  })
  it('end with a bad response when a part ends at the wrong PSN', () => {
    const t = startScript({}, bounded)
    t.post({ id: 1, opcode: READ, ...sge(0, 5 * MTU) })
    t.sent()
    t.response('READ_RESP_ONLY', 0, { payload: MTU })
    assert.deepEqual(t.completions(), ['1 BAD_RESP'])
  })
})

describe('the window', () => {
  it('limits what is sent after an ACK that arrives while a retransmission waits for the port', () => {
    const t = startScript({}, windowOf(16))
    t.post({ id: 1, opcode: SEND, ...sge(0, 60 * MTU) })
    assert.equal(t.sent().length, 16)
    t.node.port.freeRuns = 0 // The port is full.
    t.sleep(T14)
    assert.deepEqual(t.sent(), [])
    t.response('ACKNOWLEDGE', 9)
    t.node.port.freeRuns = Number.POSITIVE_INFINITY
    assert.equal(t.sent().length, 16)
  })
  it('is halved by each loss, down to eight packets, and grows with acknowledged packets', () => {
    const t = startScript({}, windowOf(64))
    t.post({ id: 1, opcode: SEND, ...sge(0, 127 * MTU) })
    assert.equal(t.sent().length, 64)
    t.response('ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
    assert.equal(t.sent().length, 32)
    t.response('ACKNOWLEDGE', 10, { syndrome: NAK.SEQUENCE })
    assert.equal(t.sent().length, 21, 'the 10 acknowledged packets enlarged the window to 42')
    for (let i = 0; i < 4; i++) {
      t.sleep(T14)
      t.sent()
    }
    t.sleep(T14)
    const retransmitted = t.sent()
    assert.equal(retransmitted.length, 8)
    assert.match(retransmitted[1], /ackreq/, 'AckReq after a quarter of the window')
    t.response('ACKNOWLEDGE', 17)
    assert.equal(t.sent().length, 16)
    t.response('ACKNOWLEDGE', 33)
    assert.equal(t.sent().length, 32)
  })
})
