/*
 * XRC packets (IBA annex A14): every request names an SRQ in the XRCETH. All else is as in RC.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Service } from '../../../../src/spec/wire/services.ts'
import { SRQN_SHIFT } from '../../../../src/spec/work.ts'
import { SHARED_QUEUE, SHARED_QUEUE_CQ } from '../node.ts'
import {
  CAS,
  fillMemory,
  NAK,
  READ,
  SEND,
  SEND_IMM,
  SEND_INV,
  SIGNALED,
  sentPayload,
  sge,
  WRITE,
  WRITE_IMM,
} from '../requests.ts'
import { atomicWord, ERR, MTU, memoryAt, patternOf, startResponder } from '../responding.ts'
import { packet, RQ_PSN, startScript } from '../script.ts'

/** The SRQ that the initiator's requests name. */
const SRQN = 0xabcdef
/** `Send.FLAGS` of a signaled request for SRQN. */
const FLAGS = SIGNALED | (SRQN << SRQN_SHIFT)
/** The target does not find this SRQ. */
const UNKNOWN_SRQN = SHARED_QUEUE + 1

const initiator = () => startScript({}, { service: Service.XRC_INI })
const target = () => startResponder({}, { service: Service.XRC_TGT })

test('every request packet has an XRCETH in addition to a payload of up to the path MTU', () => {
  const cases: [opcode: number, length: number, packets: string[]][] = [
    [SEND, 5, [`SEND_ONLY@0 ackreq srq ${SRQN} [5]`]],
    [SEND, 2 * MTU + 3, ['SEND_FIRST@0', 'SEND_MIDDLE@1', 'SEND_LAST@2']],
    [SEND_IMM, MTU + 1, ['SEND_FIRST@0', 'SEND_LAST_IMM@1']],
    [SEND_INV, 8, ['SEND_ONLY_INV@0']],
    [WRITE, 4, ['WRITE_ONLY@0']],
    [WRITE, 4 * MTU, ['WRITE_FIRST@0', 'WRITE_MIDDLE@1', 'WRITE_MIDDLE@2', 'WRITE_LAST@3']],
    [WRITE_IMM, 3 * MTU - 1, ['WRITE_FIRST@0', 'WRITE_MIDDLE@1', 'WRITE_LAST_IMM@2']],
  ]
  for (const [opcode, length, packets] of cases) {
    const t = initiator()
    const bytes = fillMemory(t, 0x100, length)
    t.post({ id: 1, opcode, flags: FLAGS, remote: 0x40, ...sge(0x100, length) })
    const sent = t.sent()
    assert.equal(sent.length, packets.length)
    packets.forEach((prefix, i) => {
      assert.ok(sent[i].startsWith(prefix), sent[i])
      assert.ok(sent[i].includes(` srq ${SRQN}`), sent[i])
    })
    assert.deepEqual(sentPayload(t), bytes)
    t.response('XRC_ACKNOWLEDGE', packets.length - 1, { msn: 1 })
    assert.deepEqual(t.completions(), ['1 ok'])
  }
})

test('READs and atomics name the SRQ; responses have no XRCETH', () => {
  const t = initiator()
  t.post({ id: 1, opcode: READ, flags: FLAGS, remote: 8, ...sge(0, 100) })
  t.post({ id: 2, opcode: CAS, flags: FLAGS, remote: 16, compare: 5n, swap: 6n, ...sge(512, 8) })
  assert.deepEqual(t.sent(), [
    `READ_REQUEST@0 ackreq srq ${SRQN} reth +8:100`,
    `COMPARE_SWAP@1 ackreq srq ${SRQN} +16 swap 6 cmp 5`,
  ])
  t.response('XRC_READ_RESP_ONLY', 0, { msn: 1, payload: 100 })
  t.response('XRC_ATOMIC_ACK', 1, { msn: 2, original: 5n })
  t.sent()
  assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
  assert.deepEqual(memoryAt(t, 0, 100), patternOf(100))
})

test('retransmissions name the SRQ', () => {
  const t = initiator()
  t.post({ id: 1, opcode: SEND, flags: FLAGS, ...sge(0, 2 * MTU) })
  const first = t.sent()
  t.response('XRC_ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
  // A retransmission may set AckReq in other packets.
  const withoutAckReq = (lines: string[]) => lines.map(line => line.replace(' ackreq', ''))
  assert.deepEqual(withoutAckReq(t.sent()), withoutAckReq(first))
})

test('a target serves SENDs, WRITEs, READs and atomics', () => {
  const t = target()
  t.request('XRC_SEND_FIRST', 0, { payload: MTU })
  t.request('XRC_SEND_MIDDLE', 1, { payload: MTU })
  t.request('XRC_SEND_LAST_IMM', 2, { payload: 9, imm: 77, ackReq: true })
  assert.deepEqual(t.sent(), ['ACK@2 msn 1'])
  assert.deepEqual(t.completions(), [`100 ok recv ${2 * MTU + 9} imm 77`])
  assert.equal(t.node.cqes[0].cq, SHARED_QUEUE_CQ)
  t.request('XRC_WRITE_FIRST', 3, { payload: MTU, remote: 0x9000, dmaLen: 2 * MTU })
  t.request('XRC_WRITE_LAST_IMM', 4, { payload: MTU, imm: 1, ackReq: true })
  assert.deepEqual(t.sent(), ['ACK@4 msn 2'])
  assert.deepEqual(t.completions(), [`101 ok recv-imm ${2 * MTU} imm 1`])
  assert.deepEqual(memoryAt(t, 0x9000, MTU), patternOf(MTU))
  t.request('XRC_FETCH_ADD', 5, { remote: 0x8000, swap: 3n })
  t.request('XRC_READ_REQUEST', 6, { remote: 0x9000, dmaLen: 4 })
  assert.deepEqual(t.sent(), ['ATOMIC_ACK@5 msn 3 = 5', 'READ_RESP_ONLY@6 msn 4 [4]'])
  assert.equal(atomicWord(t), 8n)
  t.request('XRC_COMPARE_SWAP', 7, { remote: 0x8000, compare: 7n, swap: 1n })
  t.sent()
  assert.equal(atomicWord(t), 8n)
})

test('a run of MIDDLE packets is accepted up to the first packet that names another SRQ', () => {
  const t = target()
  const middle = (psn: number, srqn?: number) =>
    ['XRC_WRITE_MIDDLE', psn, { payload: MTU, ...(srqn !== undefined && { srqn }) }] as const
  t.request('XRC_WRITE_FIRST', 0, { payload: MTU, remote: 0, dmaLen: 6 * MTU })
  t.requestRun(middle(1), middle(2), middle(3), middle(4))
  t.request('XRC_WRITE_LAST', 5, { payload: MTU, ackReq: true })
  assert.deepEqual(t.sent(), ['ACK@5 msn 1'])
  for (let i = 0; i < 6; i++) assert.deepEqual(memoryAt(t, i * MTU, MTU), patternOf(MTU))

  const mixed = target()
  mixed.request('XRC_WRITE_FIRST', 0, { payload: MTU, remote: 0, dmaLen: 6 * MTU })
  mixed.requestRun(middle(1), middle(2, UNKNOWN_SRQN), middle(3))
  assert.deepEqual(mixed.sent(), ['NAK(INVALID_REQUEST)@2 msn 0'])
})

test('a long READ is answered with several packets', () => {
  const t = target()
  t.request('XRC_READ_REQUEST', 0, { dmaLen: 3 * MTU })
  assert.deepEqual(t.sent(), [
    'READ_RESP_FIRST@0 msn 1 [1024]',
    'READ_RESP_MIDDLE@1 [1024]',
    'READ_RESP_LAST@2 msn 1 [1024]',
  ])
})

test('a message goes on when another SRQ is destroyed', () => {
  const t = target()
  t.request('XRC_SEND_FIRST', 0, { payload: MTU })
  t.node.engine.forgetSrq(UNKNOWN_SRQN)
  t.request('XRC_SEND_LAST', 1, { payload: 1 })
  assert.deepEqual(t.completions(), [`100 ok recv ${MTU + 1}`])
})

test('a destroyed SRQ leaves no block in the pool', () => {
  for (const isInMessage of [true, false]) {
    const t = target()
    t.request('XRC_SEND_ONLY', 0, { payload: 1 })
    const before = t.node.engine.stat().poolWords
    if (isInMessage) t.request('XRC_SEND_FIRST', 1, { payload: MTU })
    t.node.engine.forgetSrq(SHARED_QUEUE)
    assert.equal(t.node.engine.stat().poolWords, before)
  }
})

test('a queue pair in ERR that is moved to ERR again raises no second event', () => {
  const t = target()
  for (let i = 0; i < 2; i++) t.node.engine.modify(t.row, ERR, {})
  assert.deepEqual(t.node.events, ['LAST_WQE_REACHED'])
})

test('a MIDDLE packet with a payload shorter than the path MTU is an invalid request', () => {
  const t = target()
  t.request('XRC_WRITE_FIRST', 0, { payload: MTU, remote: 0, dmaLen: 6 * MTU })
  const shortPackets = [1, 2].map(psn => packet('XRC_WRITE_MIDDLE', RQ_PSN + psn, { payload: MTU - 4 }))
  t.node.injectRun(shortPackets, () => t.row, 0)
  assert.deepEqual(t.sent(), ['NAK(INVALID_REQUEST)@1 msn 0'])
})

const assertRefusedForSrq = (name: string, spec: Parameters<typeof packet>[2]): void => {
  const t = target()
  t.request(name, 0, { ...spec, srqn: UNKNOWN_SRQN })
  assert.deepEqual(t.sent(), ['NAK(INVALID_REQUEST)@0 msn 0'], name)
  assert.equal(t.state, ERR)
  assert.deepEqual(t.node.events, ['LAST_WQE_REACHED', 'QP_REQ_ERR'])
  // WQEs of an SRQ are not flushed: other queue pairs may use them
  assert.deepEqual(t.completions(), [])
  assert.equal(t.node.queues[t.row].receives.length, 8)
}

test('an SRQ outside the XRC domain is an invalid request for SENDs, WRITEs, READs and atomics', () => {
  assertRefusedForSrq('XRC_SEND_ONLY', { payload: 4 })
  assertRefusedForSrq('XRC_WRITE_ONLY', { payload: 4, remote: 0 })
  assertRefusedForSrq('XRC_READ_REQUEST', { dmaLen: 4, remote: 0 })
  assertRefusedForSrq('XRC_FETCH_ADD', { remote: 0x8000 })
})

test('a message that continues with another SRQ is an invalid request; its receive WQE completes with an error', () => {
  const t = target()
  t.request('XRC_SEND_FIRST', 0, { payload: MTU })
  t.request('XRC_SEND_LAST', 1, { payload: 4, srqn: UNKNOWN_SRQN })
  assert.deepEqual(t.sent(), ['NAK(INVALID_REQUEST)@1 msn 0'])
  assert.deepEqual(t.completions(), ['100 REM_INV_REQ'])
  assert.equal(t.state, ERR)
})

test('a request for an empty SRQ is answered with an RNR NAK', () => {
  const t = startScript({ minRnrTimer: 7 }, { service: Service.XRC_TGT })
  t.request('XRC_SEND_ONLY', 0, { payload: 4 })
  assert.deepEqual(t.sent(), ['RNR(7)@0 msn 0'])
  t.postReceives(1, 64)
  t.request('XRC_SEND_ONLY', 0, { payload: 4, ackReq: true })
  assert.deepEqual(t.sent(), ['ACK@0 msn 1'])
})

test('if an SRQ is destroyed during a message, nothing completes, and later packets are refused', () => {
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
  const droppedBefore = ini.node.engine.counters.dropped
  ini.request('XRC_SEND_ONLY', 0, { payload: 4, ackReq: true })
  ini.request('XRC_READ_REQUEST', 0, { dmaLen: 4 })
  assert.deepEqual(ini.sent(), [])
  assert.equal(ini.node.engine.counters.dropped, droppedBefore + 2)
  const tgt = target()
  tgt.response('XRC_ACKNOWLEDGE', 0, { msn: 1 })
  assert.deepEqual(tgt.sent(), [])
  assert.equal(tgt.node.engine.counters.dropped, 1)
  tgt.request('RC_SEND_ONLY', 0, { payload: 4, ackReq: true })
  assert.deepEqual(tgt.sent(), [])
})
