/*
 * XRC packets (IBA annex A14): every request names its SRQ in the XRCETH, the target looks it up or refuses the
 * request; the rest is as in RC.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Service } from '../../../src/spec/wire/services.ts'
import { SRQN_SHIFT } from '../../../src/spec/work.ts'
import { SHARED_QUEUE } from '../node.ts'
import {
  CAS,
  data as fill,
  joined,
  NAK,
  READ,
  SEND,
  SEND_IMM,
  SEND_INV,
  SIGNALED,
  sge,
  WRITE,
  WRITE_IMM,
} from '../requests.ts'
import { data, ERR, inMemory, MTU, start, word } from '../responding.ts'
import { packet, RQ, startScript } from '../script.ts'

const SRQ = 0xabcdef
/** `Send.FLAGS` of a signaled request for that SRQ. */
const FLAGS = SIGNALED | (SRQ << SRQN_SHIFT)
const OTHER = SHARED_QUEUE + 1

const initiator = () => startScript({}, { service: Service.XRC_INI })
const target = () => start({}, { service: Service.XRC_TGT })

test('every request packet has an XRCETH, and carries a full path MTU of payload besides', () => {
  const cases: [opcode: number, length: number, packets: string[]][] = [
    [SEND, 5, [`SEND_ONLY@0 ackreq srq ${SRQ} [5]`]],
    [SEND, 2 * MTU + 3, ['SEND_FIRST@0', 'SEND_MIDDLE@1', 'SEND_LAST@2']],
    [SEND_IMM, MTU + 1, ['SEND_FIRST@0', 'SEND_LAST_IMM@1']],
    [SEND_INV, 8, ['SEND_ONLY_INV@0']],
    [WRITE, 4, ['WRITE_ONLY@0']],
    [WRITE, 4 * MTU, ['WRITE_FIRST@0', 'WRITE_MIDDLE@1', 'WRITE_MIDDLE@2', 'WRITE_LAST@3']],
    [WRITE_IMM, 3 * MTU - 1, ['WRITE_FIRST@0', 'WRITE_MIDDLE@1', 'WRITE_LAST_IMM@2']],
  ]
  for (const [opcode, length, packets] of cases) {
    const t = initiator()
    const bytes = fill(t, 0x100, length)
    t.post({ id: 1, opcode, flags: FLAGS, remote: 0x40, ...sge(0x100, length) })
    const sent = t.sent()
    assert.equal(sent.length, packets.length)
    packets.forEach((begin, i) => {
      assert.ok(sent[i].startsWith(begin), sent[i])
      assert.ok(sent[i].includes(` srq ${SRQ}`), sent[i])
    })
    assert.deepEqual(joined(t), bytes)
    t.response('XRC_ACKNOWLEDGE', packets.length - 1, { msn: 1 })
    assert.deepEqual(t.completions(), ['1 ok'])
  }
})

test('READs and atomics name it too; their responses have no XRCETH', () => {
  const t = initiator()
  t.post({ id: 1, opcode: READ, flags: FLAGS, remote: 8, ...sge(0, 100) })
  t.post({ id: 2, opcode: CAS, flags: FLAGS, remote: 16, compare: 5n, swap: 6n, ...sge(512, 8) })
  assert.deepEqual(t.sent(), [
    `READ_REQUEST@0 ackreq srq ${SRQ} reth +8:100`,
    `COMPARE_SWAP@1 ackreq srq ${SRQ} +16 swap 6 cmp 5`,
  ])
  t.response('XRC_READ_RESP_ONLY', 0, { msn: 1, payload: 100 })
  t.response('XRC_ATOMIC_ACK', 1, { msn: 2, original: 5n })
  t.sent()
  assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
  assert.deepEqual(inMemory(t, 0, 100), data(100))
})

test('retransmissions name the SRQ again', () => {
  const t = initiator()
  t.post({ id: 1, opcode: SEND, flags: FLAGS, ...sge(0, 2 * MTU) })
  const first = t.sent()
  t.response('XRC_ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
  assert.deepEqual(
    t.sent().map(line => line.replace(' ackreq', '')),
    first.map(line => line.replace(' ackreq', '')),
  )
})

test('a target serves all operations', () => {
  const t = target()
  t.request('XRC_SEND_FIRST', 0, { payload: MTU })
  t.request('XRC_SEND_MIDDLE', 1, { payload: MTU })
  t.request('XRC_SEND_LAST_IMM', 2, { payload: 9, imm: 77, ackReq: true })
  assert.deepEqual(t.sent(), ['ACK@2 msn 1'])
  assert.deepEqual(t.completions(), [`100 ok recv ${2 * MTU + 9} imm 77`])
  assert.equal(t.node.cqes[0].cq, 2)
  t.request('XRC_WRITE_FIRST', 3, { payload: MTU, remote: 0x9000, dmaLen: 2 * MTU })
  t.request('XRC_WRITE_LAST_IMM', 4, { payload: MTU, imm: 1, ackReq: true })
  assert.deepEqual(t.sent(), ['ACK@4 msn 2'])
  assert.deepEqual(t.completions(), [`101 ok recv-imm ${2 * MTU} imm 1`])
  assert.deepEqual(inMemory(t, 0x9000, MTU), data(MTU))
  t.request('XRC_FETCH_ADD', 5, { remote: 0x8000, swap: 3n })
  t.request('XRC_READ_REQUEST', 6, { remote: 0x9000, dmaLen: 4 })
  assert.deepEqual(t.sent(), ['ATOMIC_ACK@5 msn 3 = 5', 'READ_RESP_ONLY@6 msn 4 [4]'])
  assert.equal(word(t), 8n)
})

test('packets of a long WRITE are handled in one step if all name the same SRQ', () => {
  const t = target()
  const middle = ['XRC_WRITE_MIDDLE', { payload: MTU }] as const
  t.request('XRC_WRITE_FIRST', 0, { payload: MTU, remote: 0, dmaLen: 6 * MTU })
  t.run([middle[0], 1, middle[1]], [middle[0], 2, middle[1]], [middle[0], 3, middle[1]], [middle[0], 4, middle[1]])
  t.request('XRC_WRITE_LAST', 5, { payload: MTU, ackReq: true })
  assert.deepEqual(t.sent(), ['ACK@5 msn 1'])
  for (let i = 0; i < 6; i++) assert.deepEqual(inMemory(t, i * MTU, MTU), data(MTU))

  const other = target()
  other.request('XRC_WRITE_FIRST', 0, { payload: MTU, remote: 0, dmaLen: 6 * MTU })
  other.run([middle[0], 1, middle[1]], [middle[0], 2, { ...middle[1], srq: OTHER }], [middle[0], 3, middle[1]])
  assert.deepEqual(other.sent(), ['NAK(INVALID_REQUEST)@2 msn 0'])
})

test('a MIDDLE packet without an XRCETH is an invalid request', () => {
  const t = target()
  t.request('XRC_WRITE_FIRST', 0, { payload: MTU, remote: 0, dmaLen: 6 * MTU })
  const short = packet('XRC_WRITE_MIDDLE', RQ + 1, { payload: MTU - 4 })
  const next = packet('XRC_WRITE_MIDDLE', RQ + 2, { payload: MTU - 4 })
  t.node.injectRun([short, next], () => t.row, 0)
  assert.deepEqual(t.sent(), ['NAK(INVALID_REQUEST)@1 msn 0'])
})

const refusedFor = (name: string, spec: Parameters<typeof packet>[2]): void => {
  const t = target()
  t.request(name, 0, { ...spec, srq: OTHER })
  assert.deepEqual(t.sent(), ['NAK(INVALID_REQUEST)@0 msn 0'], name)
  assert.equal(t.state, ERR)
  assert.deepEqual(t.node.events, ['LAST_WQE_REACHED', 'QP_REQ_ERR'])
  // The WQEs of an SRQ are not flushed: they may serve other queue pairs.
  assert.deepEqual(t.completions(), [])
  assert.equal(t.node.queues[t.row].receives.length, 8)
}

test('an SRQ outside the domain is an invalid request for every operation', () => {
  refusedFor('XRC_SEND_ONLY', { payload: 4 })
  refusedFor('XRC_WRITE_ONLY', { payload: 4, remote: 0 })
  refusedFor('XRC_READ_REQUEST', { dmaLen: 4, remote: 0 })
  refusedFor('XRC_FETCH_ADD', { remote: 0x8000 })
})

test('a message that continues with another SRQ is an invalid request; its receive WQE completes with an error', () => {
  const t = target()
  t.request('XRC_SEND_FIRST', 0, { payload: MTU })
  t.request('XRC_SEND_LAST', 1, { payload: 4, srq: OTHER })
  assert.deepEqual(t.sent(), ['NAK(INVALID_REQUEST)@1 msn 0'])
  assert.deepEqual(t.completions(), ['100 REM_INV_REQ'])
  assert.equal(t.state, ERR)
})

test('an empty SRQ makes the requester wait', () => {
  const t = startScript({ minRnrTimer: 7 }, { service: Service.XRC_TGT })
  t.request('XRC_SEND_ONLY', 0, { payload: 4 })
  assert.deepEqual(t.sent(), ['RNR(7)@0 msn 0'])
  t.receives(1, 64)
  t.request('XRC_SEND_ONLY', 0, { payload: 4, ackReq: true })
  assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
})

test('an SRQ destroyed in the middle of a message ends it: nothing completes, and later packets are refused', () => {
  const t = target()
  t.request('XRC_SEND_FIRST', 0, { payload: MTU })
  t.node.engine.forgetSrq(SHARED_QUEUE)
  assert.deepEqual(t.completions(), [])
  t.request('XRC_SEND_LAST', 1, { payload: 4 })
  assert.deepEqual(t.sent(), ['NAK(INVALID_REQUEST)@1 msn 0'])
  assert.deepEqual(t.completions(), [])
})

test('an initiator answers no request, and a target accepts no response', () => {
  const ini = initiator()
  const before = ini.node.engine.counters.dropped
  ini.request('XRC_SEND_ONLY', 0, { payload: 4, ackReq: true })
  ini.request('XRC_READ_REQUEST', 0, { dmaLen: 4 })
  assert.deepEqual(ini.sent(), [])
  assert.equal(ini.node.engine.counters.dropped, before + 2)
  const tgt = target()
  tgt.response('XRC_ACKNOWLEDGE', 0, { msn: 1 })
  assert.deepEqual(tgt.sent(), [])
  assert.equal(tgt.node.engine.counters.dropped, 1)
  // Packets of another service are dropped too.
  tgt.request('RC_SEND_ONLY', 0, { payload: 4, ackReq: true })
  assert.deepEqual(tgt.sent(), [])
})
