/*
 * Packet scripts for the MIDDLE batch path (transport/engine/middle-batch.ts), which handles several packets of a run
 * in one step.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Service } from '../../../src/spec/wire/services.ts'
import { PACKET_WEIGHT } from '../../../src/transport/engine/state.ts'
import { SHARED_QUEUE } from './node.ts'
import { READ, SEND, sge, T14 } from './requests.ts'
import { assertRefused, ERR, flushed, MTU, memoryAt, patternOf, startResponder } from './responding.ts'
import { packet, RQ_PSN, startScript } from './script.ts'

const full = { payload: MTU }

describe('a run of packets', () => {
  /** A WRITE of `count` packets to 0x9000; the first has arrived. The queue pair has receives 100 to 107. */
  const startMessage = (count: number) => {
    const t = startResponder()
    t.request('WRITE_FIRST', 0, { ...full, remote: 0x9000, dmaLen: count * MTU })
    return t
  }
  it('that continues a WRITE is written in one DMA with the rest of the WRITE', () => {
    const t = startMessage(6)
    const steps = t.requestRun(
      ['WRITE_MIDDLE', 1, full],
      ['WRITE_MIDDLE', 2, full],
      ['WRITE_MIDDLE', 3, full],
      ['WRITE_MIDDLE', 4, full],
    )
    assert.deepEqual(steps, [4])
    t.request('WRITE_LAST', 5, { payload: MTU, ackReq: true })
    assert.deepEqual(t.sent(), ['ACK@5 msn 1'])
    assert.equal(t.node.dmaCalls.writes, 1)
    for (let i = 0; i < 6; i++) assert.deepEqual(memoryAt(t, 0x9000 + i * MTU, MTU), patternOf(MTU))
    assert.equal(t.node.engine.counters.receivedPackets, 6)
  })
  it('may contain the last packet of a message and the next message', () => {
    const t = startMessage(3)
    t.requestRun(['WRITE_MIDDLE', 1, full], ['WRITE_LAST', 2, full], ['SEND_ONLY', 3, { ...full, ackReq: true }])
    assert.deepEqual(t.sent(), ['ACK@3 msn 2'])
    assert.deepEqual(t.completions(), ['100 ok recv 1024'])
    assert.deepEqual(memoryAt(t, 0x9000 + 2 * MTU, MTU), patternOf(MTU))
  })
  it('with payloads shorter than the path MTU is an invalid request', () => {
    const t = startMessage(6)
    const short = { payload: MTU - 4 }
    t.requestRun(['WRITE_MIDDLE', 1, short], ['WRITE_MIDDLE', 2, short])
    assertRefused(t, ['NAK(INVALID_REQUEST)@1 msn 0'], flushed(100, 107), ['QP_REQ_ERR'])
  })
  it('is acknowledged if one of its packets has AckReq', () => {
    const t = startMessage(9)
    const steps = t.requestRun(
      ['WRITE_MIDDLE', 1, { ...full, ackReq: true }],
      ['WRITE_MIDDLE', 2, full],
      ['WRITE_MIDDLE', 3, full],
    )
    assert.deepEqual(steps, [3])
    assert.deepEqual(t.sent(), ['ACK@3 msn 0'])
    t.requestRun(['WRITE_MIDDLE', 4, full], ['WRITE_MIDDLE', 5, full])
    assert.deepEqual(t.sent(), [])
  })
  it('may have the solicited event bit, MigReq, and any membership bit of the P_Key', () => {
    const t = startMessage(5)
    const steps = t.requestRun(
      ['WRITE_MIDDLE', 1, full],
      ['WRITE_MIDDLE', 2, { ...full, migReq: true, solicited: true }],
      ['WRITE_MIDDLE', 3, { ...full, pkey: 0x7fff }],
    )
    assert.deepEqual(steps, [3])
  })
  it('with a gap is accepted up to the gap', () => {
    const t = startMessage(9)
    t.requestRun(
      ['WRITE_MIDDLE', 1, full],
      ['WRITE_MIDDLE', 2, full],
      ['WRITE_MIDDLE', 4, full],
      ['WRITE_MIDDLE', 5, full],
    )
    assert.deepEqual(t.sent(), ['NAK(PSN_SEQUENCE)@3 msn 0'])
    t.requestRun(['WRITE_MIDDLE', 3, full], ['WRITE_MIDDLE', 4, { ...full, ackReq: true }])
    assert.deepEqual(t.sent(), ['ACK@4 msn 0'])
    t.request('WRITE_MIDDLE', 6, full)
    assert.deepEqual(t.sent(), ['NAK(PSN_SEQUENCE)@5 msn 0'], 'the next gap has a NAK of its own')
  })
  it('with duplicates is accepted from the first new packet', () => {
    const t = startMessage(9)
    t.requestRun(['WRITE_MIDDLE', 1, full], ['WRITE_MIDDLE', 2, full])
    t.requestRun(['WRITE_MIDDLE', 2, full], ['WRITE_MIDDLE', 3, full], ['WRITE_MIDDLE', 4, full])
    assert.deepEqual(t.sent(), ['ACK@4 msn 0'], 'a duplicate is acknowledged without AckReq')
    assert.equal(t.node.engine.counters.duplicateRequests, 1)
  })
  it('that continues past the end of the message is an invalid request', () => {
    const t = startMessage(3)
    t.requestRun(['WRITE_MIDDLE', 1, full], ['WRITE_MIDDLE', 2, full], ['WRITE_MIDDLE', 3, full])
    assertRefused(t, ['NAK(INVALID_REQUEST)@2 msn 0'], flushed(100, 107), ['QP_REQ_ERR'])
  })
  it('may contain packets of another kind, which are handled one by one', () => {
    const t = startMessage(9)
    const otherPkey = { ...full, pkey: 0x1234 }
    t.requestRun(
      ['WRITE_MIDDLE', 1, full],
      ['WRITE_MIDDLE', 2, otherPkey],
      ['WRITE_MIDDLE', 2, full],
      ['SEND_MIDDLE', 3, full],
    )
    assertRefused(t, ['NAK(INVALID_REQUEST)@3 msn 0'], flushed(100, 107), ['QP_REQ_ERR'])
    assert.equal(t.node.engine.counters.dropped, 1)
  })
  it('of XRC is accepted up to a packet that names another SRQ', () => {
    const t = startResponder({}, { service: Service.XRC_TGT })
    t.request('XRC_WRITE_FIRST', 0, { ...full, remote: 0x9000, dmaLen: 9 * MTU })
    const steps = t.requestRun(
      ['XRC_WRITE_MIDDLE', 1, full],
      ['XRC_WRITE_MIDDLE', 2, full],
      ['XRC_WRITE_MIDDLE', 3, { ...full, srqn: SHARED_QUEUE + 1 }],
    )
    assert.deepEqual(steps, [2, 1])
    assert.deepEqual(t.sent(), ['NAK(INVALID_REQUEST)@3 msn 0'])
  })
  it('may be for several queue pairs', () => {
    const t = startMessage(9)
    const other = t.node.createQp(0x33)
    t.node.connect(other, { destQpn: 0x44, rqPsn: RQ_PSN + 2, peer: 0 })
    const run = [packet('WRITE_MIDDLE', RQ_PSN + 1, full), packet('WRITE_MIDDLE', RQ_PSN + 2, full, 0x33)]
    const destQpn = (bytes: Uint8Array): number => bytes[7] // the low byte of BTH.DestQP
    t.node.injectRun(run, bytes => (destQpn(bytes) === 0x33 ? other : t.row), 0)
    assert.equal(t.node.engine.query(t.row).rqPsn, RQ_PSN + 2)
    assert.equal(t.node.engine.query(other).state, ERR, 'a MIDDLE without a FIRST')
  })
  it('is dropped if its source is not the peer', () => {
    const t = startMessage(4)
    const otherPeer = 5
    const stray = [1, 2].map(psn => packet('WRITE_MIDDLE', RQ_PSN + psn, full))
    t.node.injectRun(stray, () => t.row, 0, otherPeer)
    assert.equal(t.node.engine.counters.dropped, 2)
    assert.deepEqual(t.sent(), [])
  })
  it('into a deregistered region is refused at its first packet', () => {
    const t = startMessage(5)
    t.node.endBurst() // executes the DMA of the first packet
    t.node.regions.splice(0, 1) // the region of REMOTE_KEY
    t.requestRun(['WRITE_MIDDLE', 1, full], ['WRITE_MIDDLE', 2, full])
    assertRefused(t, ['NAK(REMOTE_ACCESS)@1 msn 0'], flushed(100, 107), ['QP_ACCESS_ERR'])
    assert.equal(t.node.engine.counters.dropped, 1, 'the packet after the refused one')
  })
})

describe('a run of READ responses', () => {
  const middles = (firstPsn: number, lastPsn: number) =>
    Array.from({ length: lastPsn - firstPsn + 1 }, (_, i) => ['READ_RESP_MIDDLE', firstPsn + i, full] as const)
  /** A READ of `count` packets into 0x9000; the first has arrived. */
  const startRead = (count: number) => {
    const t = startScript()
    t.post({ id: 1, opcode: READ, ...sge(0x9000, count * MTU) })
    t.sent()
    t.response('READ_RESP_FIRST', 0, full)
    return t
  }
  it('is written in one DMA with the first response', () => {
    const t = startRead(6)
    assert.deepEqual(t.responseRun(...middles(1, 4)), [4])
    assert.deepEqual(t.completions(), [])
    t.response('READ_RESP_LAST', 5, full)
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.equal(t.node.dmaCalls.writes, 2, 'the AETH of the LAST precedes its payload, which needs a DMA of its own')
    for (let i = 0; i < 6; i++) assert.deepEqual(memoryAt(t, 0x9000 + i * MTU, MTU), patternOf(MTU))
    assert.equal(t.node.engine.counters.receivedPackets, 6)
    assert.equal(t.node.engine.nextTimeout(), Number.POSITIVE_INFINITY)
  })
  it('may contain the end of a READ and the responses to the next READ', () => {
    const t = startRead(4)
    t.post({ id: 2, opcode: READ, ...sge(0x1000, 2 * MTU) })
    t.sent()
    t.responseRun(...middles(1, 2))
    t.responseRun(['READ_RESP_LAST', 3, full], ['READ_RESP_FIRST', 4, full], ['READ_RESP_LAST', 5, full])
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
    assert.deepEqual(memoryAt(t, 0x9000 + 2 * MTU, 2 * MTU), Uint8Array.from([...patternOf(MTU), ...patternOf(MTU)]))
    assert.deepEqual(memoryAt(t, 0x1000 + MTU, MTU), patternOf(MTU))
  })
  it('goes to SGEs that begin and end within packets', () => {
    const t = startScript()
    const sges = [
      { at: 0x1000, length: 2 * MTU + 100 },
      { at: 0x5000, length: 3 * MTU },
      { at: 0x9000, length: MTU - 100 },
    ]
    t.post({ id: 1, opcode: READ, sges })
    t.sent()
    t.response('READ_RESP_FIRST', 0, full)
    t.responseRun(...middles(1, 4))
    t.response('READ_RESP_LAST', 5, full)
    assert.deepEqual(t.completions(), ['1 ok'])
    const read = sges.flatMap(({ at, length }) => [...memoryAt(t, at, length)])
    assert.deepEqual(read, Array.from({ length: 6 }, () => [...patternOf(MTU)]).flat())
  })
  it('with a gap is accepted up to the gap, and the rest is read again', () => {
    const t = startRead(6)
    t.responseRun(['READ_RESP_MIDDLE', 1, full], ['READ_RESP_MIDDLE', 2, full], ['READ_RESP_MIDDLE', 4, full])
    assert.deepEqual(t.sent(), [`READ_REQUEST@3 ackreq reth +${3 * MTU}:${3 * MTU}`])
    t.responseRun(['READ_RESP_FIRST', 3, full])
    t.responseRun(['READ_RESP_MIDDLE', 4, full], ['READ_RESP_MIDDLE', 5, full])
    assert.deepEqual(t.completions(), ['1 BAD_RESP'], 'PSN 5 should be the LAST')
  })
  it('for a request not sent yet is dropped', () => {
    // A part of a READ is at most half of the window: here two packets.
    const t = startScript({ maxRdAtomic: 1 }, { windowBytes: 4 * (MTU + PACKET_WEIGHT), boundReads: true })
    t.post({ id: 1, opcode: READ, ...sge(0x9000, 6 * MTU) })
    assert.deepEqual(t.sent(), [`READ_REQUEST@0 ackreq reth +0:${2 * MTU}`])
    t.responseRun(['READ_RESP_FIRST', 0, full], ['READ_RESP_LAST', 1, full])
    t.responseRun(...middles(2, 4))
    assert.equal(t.node.engine.counters.dropped, 3)
    assert.deepEqual(t.sent(), [`READ_REQUEST@2 ackreq reth +${2 * MTU}:${2 * MTU}`])
  })
  it('with a MIDDLE where a part of the READ ends is a bad response', () => {
    const t = startScript({}, { windowBytes: 6 * (MTU + PACKET_WEIGHT), boundReads: true })
    t.post({ id: 1, opcode: READ, ...sge(0x9000, 6 * MTU) })
    assert.equal(t.sent().length, 2, 'two requests of three packets each')
    t.response('READ_RESP_FIRST', 0, full)
    t.responseRun(...middles(1, 2))
    assert.deepEqual(t.completions(), ['1 BAD_RESP'])
  })
  it('with payloads shorter than the path MTU is a bad response', () => {
    const t = startRead(6)
    const short = { payload: MTU - 4 }
    t.responseRun(['READ_RESP_MIDDLE', 1, short], ['READ_RESP_MIDDLE', 2, short])
    assert.deepEqual(t.completions(), ['1 BAD_RESP'])
  })
  it('into a deregistered region ends the READ', () => {
    const t = startRead(5)
    t.node.endBurst() // executes the DMA of the first response
    t.node.regions.splice(0)
    t.responseRun(...middles(1, 3))
    assert.deepEqual(t.completions(), ['1 LOC_PROT'])
    assert.equal(t.state, ERR)
    assert.equal(t.node.engine.counters.dropped, 2, 'the packets after the first of the run')
  })
  it('restarts the ACK timeout', () => {
    const t = startRead(6)
    t.sleep(T14 - 1)
    t.responseRun(...middles(1, 4))
    t.sleep(T14 - 1)
    assert.deepEqual(t.sent(), [])
    t.sleep(1)
    assert.deepEqual(t.sent(), [`READ_REQUEST@5 ackreq reth +${5 * MTU}:${MTU}`])
  })
  it('to a SEND is a bad response', () => {
    const t = startScript()
    t.post({ id: 1, opcode: SEND, ...sge(0x9000, 6 * MTU) })
    t.sent()
    t.responseRun(...middles(0, 3))
    assert.deepEqual(t.completions(), ['1 BAD_RESP'])
  })
  it('is ignored by a queue pair without a READ in flight', () => {
    const t = startScript()
    t.responseRun(...middles(0, 2))
    assert.equal(t.node.engine.counters.dropped, 3)
  })
})
