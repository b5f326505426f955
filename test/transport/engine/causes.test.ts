/*
 * The engine reports a cause for each failure (spec/check/causes.ts).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { causeText, createCause } from '../../../src/spec/check/causes.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { Service } from '../../../src/spec/wire/services.ts'
import { Access } from '../../../src/transport/engine/types.ts'
import { refusedRkeyText, requester, responder, UNKNOWN_KEY } from './cause-scripts.ts'
import { linkNodes } from './link.ts'
import { createNode, REMOTE_ACCESS } from './node.ts'
import { ERR, NAK, READ, rnrSyndrome, SEND, SQD, sge, T14, WRITE } from './requests.ts'
import { packet, RQ_PSN, startScript } from './script.ts'

const { INIT, RTR } = QpState.values
const REMOTE_AND_FLUSH = REMOTE_ACCESS | Access.FLUSH_GLOBAL

describe('a request fails with its cause:', () => {
  for (const [id, text, play] of requester)
    it(id, () => {
      const t = startScript()
      play(t)
      t.sent()
      assert.deepEqual(t.node.reported.map(causeText), [text])
      assert.equal(t.node.cqes[0].cause, id)
    })
  it('NO_READS', () => {
    const t = startScript({ maxRdAtomic: 0 })
    t.post({ id: 1, opcode: READ, ...sge(0, 8) })
    assert.deepEqual(t.sent(), [])
    assert.match(t.node.reported.map(causeText).join(), /^max_rd_atomic of the queue pair is 0/)
    assert.equal(t.node.cqes[0].cause, 'NO_READS')
  })
})

describe('a responder refuses with a cause:', () => {
  for (const [id, text, play, access = REMOTE_AND_FLUSH] of responder)
    it(`${id}, ${text}`, () => {
      const t = startScript({ access })
      t.postReceives(1, 8)
      play(t)
      t.sent()
      const [cause] = t.node.reported
      assert.deepEqual([cause.id, causeText(cause)], [id, text])
      // a SEND whose key cannot be invalidated is not answered with a NAK
      if (id !== 'NOT_INVALIDATED') assert.equal([...t.node.naks.values()][0], cause)
    })
  it('NO_SRQ', () => {
    const t = startScript({ access: REMOTE_AND_FLUSH }, { service: Service.XRC_TGT })
    t.injectRaw(packet('XRC_SEND_ONLY', RQ_PSN, { payload: 4, srqn: 0x99 }))
    t.sent()
    assert.deepEqual(t.node.reported.map(causeText).slice(-1), [
      'the XRC domain has no SRQ 0x99, or the packets of one message name different SRQs',
    ])
    assert.equal(t.node.reported.at(-1)?.id, 'NO_SRQ')
  })
  it('RKEY_REFUSED on UC, where the message is dropped', () => {
    const t = startScript({ access: REMOTE_AND_FLUSH }, { service: Service.UC })
    t.injectRaw(packet('UC_WRITE_ONLY', RQ_PSN, { payload: 8, remote: 64, rkey: UNKNOWN_KEY }))
    t.sent()
    assert.deepEqual(t.node.reported.map(causeText).slice(-1), [refusedRkeyText(UNKNOWN_KEY, 64, 8)])
  })
  it('NO_RECEIVE on UC, where the message is dropped', () => {
    const t = startScript({}, { service: Service.UC })
    t.injectRaw(packet('UC_SEND_ONLY', RQ_PSN, { payload: 8 }))
    t.sent()
    assert.deepEqual(t.node.reported.map(causeText), ['no receive request is posted'])
  })
})

describe('exhausted retries report', () => {
  it('NO_ANSWER, with the number of tries', () => {
    const t = startScript({ timeout: 14, retryCnt: 2 })
    t.post({ id: 1, opcode: SEND, ...sge(0, 1) })
    for (let i = 0; i < 3; i++) {
      t.sent()
      t.sleep(T14)
    }
    assert.deepEqual(t.node.reported.map(causeText), ['no answer: sent 3 times, retry_cnt is 2'])
    assert.equal(t.node.cqes[0].cause, 'NO_ANSWER')
  })
  it('PACKETS_LOST, if the peer reported losses', () => {
    const t = startScript({ retryCnt: 0 })
    t.post({ id: 1, opcode: SEND, ...sge(0, 1) })
    t.sent()
    t.response('ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
    assert.deepEqual(t.node.reported.map(causeText), ['packets were lost repeatedly: sent 1 times, retry_cnt is 0'])
    assert.equal(t.node.cqes[0].cause, 'PACKETS_LOST')
  })
  it('RNR_EXCEEDED, with the number of RNR NAKs', () => {
    const t = startScript({ rnrRetry: 2 })
    t.post({ id: 1, opcode: SEND, ...sge(0, 1) })
    for (let i = 0; i < 3; i++) {
      t.sent()
      t.response('ACKNOWLEDGE', 0, { syndrome: rnrSyndrome(1) })
      t.sleep(1000)
    }
    assert.deepEqual(t.node.reported.map(causeText), [
      'the peer has no receive posted: RNR NAK 3 times, rnr_retry is 2',
    ])
    assert.equal(t.node.cqes[0].cause, 'RNR_EXCEEDED')
  })
  it('RNR_EXCEEDED, with the RNR NAKs of this request only', () => {
    const t = startScript({ rnrRetry: 2 })
    const refuse = (psn: number): void => {
      t.sent()
      t.response('ACKNOWLEDGE', psn, { syndrome: rnrSyndrome(1) })
      t.sleep(1000)
    }
    t.post({ id: 1, opcode: SEND, ...sge(0, 1) })
    for (let i = 0; i < 2; i++) refuse(0)
    t.sent()
    t.response('ACKNOWLEDGE', 0)
    t.post({ id: 2, opcode: SEND, ...sge(0, 1) })
    for (let i = 0; i < 3; i++) refuse(1)
    assert.deepEqual(t.node.reported.map(causeText), [
      'the peer has no receive posted: RNR NAK 3 times, rnr_retry is 2',
    ])
  })
})

describe('a queue pair in error', () => {
  it('flushes with FLUSHED after a failure, with MODIFIED after a modify to ERR', () => {
    const t = startScript()
    t.post({ id: 1, opcode: SEND, sges: [{ at: 0, length: 1, key: UNKNOWN_KEY }] }, { id: 2, opcode: SEND })
    t.sent()
    t.post({ id: 3, opcode: SEND })
    assert.deepEqual(
      t.node.cqes.map(({ cause }) => cause),
      ['LKEY_REFUSED', 'FLUSHED', 'FLUSHED'],
    )
    const modified = startScript()
    modified.postReceives(1, 8)
    modified.post({ id: 1, opcode: SEND })
    modified.node.engine.modify(modified.row, ERR, {})
    modified.post({ id: 2, opcode: SEND })
    assert.deepEqual(
      modified.node.cqes.map(({ cause }) => cause),
      ['MODIFIED', 'MODIFIED', 'MODIFIED'],
    )
    assert.deepEqual(modified.node.reported, [])
  })
  it('flushes with the cause that the driver passes to modify', () => {
    const t = startScript()
    t.postReceives(1, 8)
    t.node.engine.modify(t.row, ERR, {}, createCause('DEVICE_REMOVED', {}))
    assert.deepEqual(
      t.node.cqes.map(({ cause }) => cause),
      ['DEVICE_REMOVED'],
    )
  })
})

it('events that are not failures have a cause: ESTABLISHED, DRAINED, LAST_WQE', () => {
  const node = createNode()
  const row = node.createQp(0x11, { service: Service.XRC_TGT })
  node.engine.modify(row, INIT, { pkeyIndex: 0, access: REMOTE_ACCESS })
  node.engine.modify(row, RTR, { destQpn: 0x22, rqPsn: 0, minRnrTimer: 12, maxDestRdAtomic: 4, flow: 0, peer: 0 })
  node.postReceive(row, { id: 1, sges: [{ at: 0, length: 8 }] })
  node.inject(row, packet('XRC_SEND_ONLY', 0, { payload: 4 }), 0)
  node.engine.modify(row, ERR, {})
  const t = startScript()
  t.node.engine.modify(t.row, SQD, {})
  assert.deepEqual(
    [...node.reported, ...t.node.reported].map(({ id }) => id),
    ['ESTABLISHED', 'LAST_WQE', 'DRAINED'],
  )
})

it('a requester reports why a peer in the same process refused', () => {
  const nodes = [createNode(), createNode()] as const
  const wire = linkNodes([nodes[0], nodes[1]], {}, () => 0)
  nodes.forEach((node, side) => {
    const row = node.createQp(0x11)
    node.connect(row, { destQpn: 0x11 })
    wire.bind(side, 0x11, row)
  })
  // In one process the requester finds the causes of its peer's NAKs.
  nodes[0].peer.naks = nodes[1].naks
  nodes[0].post(0, { id: 1, opcode: WRITE, ...sge(0, 10) }, { id: 2, opcode: WRITE, ...sge(0, 10), rkey: UNKNOWN_KEY })
  while (wire.step()) {}
  assert.deepEqual(nodes[0].reported.map(causeText), [refusedRkeyText(UNKNOWN_KEY, 0, 10)])
  assert.equal(nodes[0].cqes[1].cause, 'RKEY_REFUSED')
})
