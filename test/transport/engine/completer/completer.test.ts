/*
 * Packet scripts for the completer.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Errno } from '../../../../src/spec/errno.ts'
import { syndromeKind } from '../../../../src/spec/wire/headers.ts'
import { WcOpcode } from '../../../../src/spec/work.ts'
import { PACKET_WEIGHT } from '../../../../src/transport/engine/state.ts'
import { arenaOver } from '../../../../src/transport/wire/arena.ts'
import {
  ERR,
  FAA,
  fillMemory,
  MTU,
  NAK,
  READ,
  RTS,
  rnrSyndrome,
  type Script,
  SEND,
  SQD,
  sentPayload,
  sge,
  T14,
  WRITE,
} from '../requests.ts'
import { packet, SQ_PSN, startScript } from '../script.ts'

const wc = WcOpcode.values

describe('a completion', () => {
  it('comes with the ACK, in order; one ACK may complete several', () => {
    const t = startScript()
    t.post(
      { id: 1, opcode: SEND, ...sge(0, 1) },
      { id: 2, opcode: SEND, ...sge(0, MTU + 1), flags: 0 },
      { id: 3, opcode: WRITE, ...sge(0, 1) },
      { id: 4, opcode: SEND, ...sge(0, 1) },
    )
    t.sent()
    assert.deepEqual(t.completions(), [])
    t.response('ACKNOWLEDGE', 3, { msn: 3 })
    assert.deepEqual(t.completions(), ['1 ok', '3 ok'])
    assert.equal(t.node.queues[t.row].retired, 3)
    t.response('ACKNOWLEDGE', 3, { msn: 3 })
    t.response('ACKNOWLEDGE', 4, { msn: 4 })
    assert.deepEqual(t.completions(), ['4 ok'])
    assert.deepEqual(
      t.node.cqes.map(c => [c.opcode, c.bytes]),
      [
        [wc.SEND, 1],
        [wc.RDMA_WRITE, 1],
        [wc.SEND, 1],
      ],
    )
  })
  it('comes for every request if the QP has sq_sig_all', () => {
    const t = startScript({}, { sqSigAll: true })
    t.post({ id: 1, opcode: SEND, flags: 0 }, { id: 2, opcode: SEND, flags: 0 })
    t.sent()
    t.response('ACKNOWLEDGE', 1)
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
  })
  it('of a READ comes with the last response, and the data is in the SGEs', () => {
    const t = startScript()
    t.post({
      id: 1,
      opcode: READ,
      sges: [
        { at: 10, length: 1500 },
        { at: 5000, length: 1000 },
      ],
    })
    t.sent()
    const payload = Uint8Array.from({ length: 2500 }, (_, i) => i * 3)
    t.response('READ_RESP_FIRST', 0, { payload: payload.slice(0, MTU) })
    t.response('READ_RESP_MIDDLE', 1, { payload: payload.slice(MTU, 2 * MTU) })
    assert.deepEqual(t.completions(), [])
    t.response('READ_RESP_LAST', 2, { payload: payload.slice(2 * MTU) })
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.deepEqual([t.node.cqes[0].opcode, t.node.cqes[0].bytes], [wc.RDMA_READ, 2500])
    assert.deepEqual(t.node.memory.slice(10, 1510), payload.slice(0, 1500))
    assert.deepEqual(t.node.memory.slice(5000, 6000), payload.slice(1500))
    assert.equal(t.node.engine.nextTimeout(), Number.POSITIVE_INFINITY)
  })
  it('of an atomic returns the old value in host order, without changing the packet', () => {
    const t = startScript()
    t.post({ id: 1, opcode: FAA, remote: 8, ...sge(16, 8), compare: 1n })
    t.sent()
    const bytes = packet('ATOMIC_ACK', SQ_PSN, { original: 0x0102_0304_0506_0708n })
    const arena = arenaOver(bytes.slice())
    t.node.engine.onPacket(t.row, arena, 0, bytes.length, 0, 0)
    assert.deepEqual(arena.bytes, bytes)
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.deepEqual([t.node.cqes[0].opcode, t.node.cqes[0].bytes], [wc.FETCH_ADD, 8])
    assert.equal(t.node.words.getBigUint64(16, true), 0x0102_0304_0506_0708n)
  })
  it('of an atomic comes when the old value is in the first 8 bytes of longer elements', () => {
    const t = startScript()
    const sges = [
      { at: 16, length: 4 },
      { at: 32, length: 16 },
    ]
    t.post({ id: 1, opcode: FAA, remote: 8, sges, compare: 1n })
    t.sent()
    t.response('ATOMIC_ACK', 0, { original: 0x0102_0304_0506_0708n })
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.equal(t.node.cqes[0].bytes, 8)
    assert.deepEqual(
      [16, 32, 36].map(at => t.node.words.getUint32(at, true)),
      [0x0506_0708, 0x0102_0304, 0],
    )
  })
  it('of a SEND or WRITE comes with the response of a later READ or atomic', () => {
    const t = startScript()
    t.post(
      { id: 1, opcode: SEND, ...sge(0, 1) },
      { id: 2, opcode: READ, ...sge(0, 4) },
      { id: 3, opcode: WRITE, ...sge(0, 1) },
      { id: 4, opcode: FAA, ...sge(0, 8) },
    )
    t.sent()
    t.response('READ_RESP_ONLY', 1, { payload: 4 })
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
    t.response('ATOMIC_ACK', 3)
    assert.deepEqual(t.completions(), ['3 ok', '4 ok'])
  })
  it('does not come with an ACK for a PSN that was never sent; sq_psn is the next PSN to send', () => {
    const t = startScript()
    assert.equal(t.node.engine.query(t.row).sqPsn, SQ_PSN)
    t.post({ id: 1, opcode: SEND })
    t.sent()
    t.response('ACKNOWLEDGE', 1)
    t.response('ACKNOWLEDGE', -1)
    assert.deepEqual(t.completions(), [])
    t.response('ACKNOWLEDGE', 0)
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.equal(t.node.engine.query(t.row).sqPsn, SQ_PSN + 1)
  })
  it('of a SEND has no immediate data, flags and source QPN of an earlier receive', () => {
    const t = startScript()
    t.postReceives(1, 10)
    t.request('SEND_ONLY_IMM', 0, { payload: 1, imm: 7 })
    t.post({ id: 1, opcode: SEND })
    t.sent()
    t.response('ACKNOWLEDGE', 0)
    const [received, sent] = t.node.cqes
    for (const value of [received.imm, received.flags, received.srcQpn]) assert.notEqual(value, 0)
    assert.deepEqual([sent.imm, sent.flags, sent.srcQpn, sent.sl], [0, 0, 0, 0])
  })
  it('of an atomic lets the next one be sent, at most max_rd_atomic at a time', () => {
    const t = startScript({ maxRdAtomic: 1 })
    for (const id of [0, 1, 2]) t.post({ id, opcode: FAA, ...sge(0, 8) })
    for (const psn of [0, 1, 2]) {
      assert.deepEqual(t.sent(), [`FETCH_ADD@${psn} ackreq +0 swap 0 cmp 0`])
      t.response('ATOMIC_ACK', psn)
    }
    assert.deepEqual(t.completions(), ['0 ok', '1 ok', '2 ok'])
  })
  it('comes with the ACK of the first transmission, although the second finds no memory region', () => {
    const t = startScript()
    t.node.regions.push({ key: 0x77, pd: 1, offset: 0, length: 8, access: 0 })
    const inRegion = { sges: [{ at: 0, length: 8, key: 0x77 }] }
    t.post({ id: 1, opcode: SEND }, { id: 2, opcode: SEND, ...inRegion }, { id: 3, opcode: SEND })
    t.sent()
    t.response('ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
    t.node.regions.pop()
    assert.deepEqual(t.sent(), ['SEND_ONLY@0 ackreq'])
    t.response('ACKNOWLEDGE', 2)
    assert.deepEqual(t.completions(), ['1 ok', '2 ok', '3 ok'])
    t.post({ id: 4, opcode: SEND })
    assert.deepEqual(t.sent(), ['SEND_ONLY@3 ackreq'])
  })
  it('frees the slot of the request', () => {
    const t = startScript()
    t.post({ id: 1, opcode: SEND })
    t.sent()
    t.response('ACKNOWLEDGE', 0)
    assert.equal(t.node.queues[t.row].retired, 1)
  })
})

describe('a NAK', () => {
  it('of a sequence error: the requester retransmits from the PSN of the NAK, within a message too', () => {
    const t = startScript()
    const bytes = fillMemory(t, 0, 3 * MTU + 5)
    t.post({ id: 1, opcode: WRITE, ...sge(0, 3 * MTU + 5) }, { id: 2, opcode: SEND })
    t.sent()
    t.node.sent.length = 0
    t.response('ACKNOWLEDGE', 2, { syndrome: NAK.SEQUENCE })
    assert.deepEqual(t.completions(), [])
    t.node.endBurst()
    t.node.transmit(0)
    assert.deepEqual(sentPayload(t), bytes.slice(2 * MTU))
    t.response('ACKNOWLEDGE', 4)
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
  })
  it('of a sequence error is ignored if repeated before progress', () => {
    const t = startScript()
    t.post({ id: 1, opcode: WRITE, ...sge(0, 3 * MTU + 5) }, { id: 2, opcode: SEND })
    t.sent()
    t.response('ACKNOWLEDGE', 2, { syndrome: NAK.SEQUENCE })
    assert.deepEqual(t.sent(), ['WRITE_MIDDLE@2 [1024]', 'WRITE_LAST@3 ackreq [5]', 'SEND_ONLY@4 ackreq'])
    t.response('ACKNOWLEDGE', 2, { syndrome: NAK.SEQUENCE })
    assert.deepEqual(t.sent(), [])
    t.response('ACKNOWLEDGE', 3, { syndrome: NAK.SEQUENCE })
    assert.deepEqual(t.sent(), ['WRITE_LAST@3 ackreq [5]', 'SEND_ONLY@4 ackreq'])
    t.response('ACKNOWLEDGE', 4, { syndrome: NAK.SEQUENCE })
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.deepEqual(t.sent(), ['SEND_ONLY@4 ackreq'])
    const { receivedSequenceErrors, retries, retransmissions, sends } = t.node.engine.counters
    assert.deepEqual([receivedSequenceErrors, retries, retransmissions, sends], [4, 3, 3, 0])
    t.response('ACKNOWLEDGE', 4)
    assert.equal(t.node.engine.counters.sends, 1, 'a WRITE is not counted as a SEND')
  })
  it('is ignored if the PSN was acknowledged or never sent, or if the kind or code is reserved', () => {
    const RESERVED_NAK_CODE = 10
    const RESERVED_SYNDROME_KIND = 0x40
    const t = startScript()
    t.post({ id: 1, opcode: SEND }, { id: 2, opcode: SEND })
    t.sent()
    t.response('ACKNOWLEDGE', 0)
    t.response('ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
    t.response('ACKNOWLEDGE', 2, { syndrome: NAK.SEQUENCE })
    t.response('ACKNOWLEDGE', 2)
    t.response('ACKNOWLEDGE', 1, { syndrome: syndromeKind.NAK | RESERVED_NAK_CODE })
    t.response('ACKNOWLEDGE', 1, { syndrome: RESERVED_SYNDROME_KIND })
    assert.deepEqual(t.sent(), [])
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.equal(t.node.engine.counters.dropped, 5)
  })
  it('of a sequence error after a lost READ response: the READ is repeated too', () => {
    const t = startScript()
    t.post({ id: 1, opcode: READ, ...sge(0, 4) }, { id: 2, opcode: SEND }, { id: 3, opcode: SEND })
    t.sent()
    t.response('ACKNOWLEDGE', 2, { syndrome: NAK.SEQUENCE })
    assert.deepEqual(t.completions(), [])
    assert.deepEqual(t.sent(), ['READ_REQUEST@0 ackreq reth +0:4', 'SEND_ONLY@1 ackreq', 'SEND_ONLY@2 ackreq'])
  })
  it('after READ responses that cannot be written: the READ fails with LOC_PROT', () => {
    const t = startScript()
    t.post({ id: 1, opcode: READ, ...sge(0, 2 * MTU) }, { id: 2, opcode: SEND })
    t.sent()
    t.response('READ_RESP_FIRST', 0, { payload: MTU })
    // The payload is written later, together with others.
    t.node.faults.write = Errno.EFAULT
    t.response('ACKNOWLEDGE', 1, { syndrome: NAK.ACCESS })
    assert.deepEqual(t.completions(), ['1 LOC_PROT', '2 FLUSH'])
  })
  it('of a sequence error counts as a retry', () => {
    const t = startScript({ retryCnt: 0 })
    t.post({ id: 1, opcode: SEND }, { id: 2, opcode: SEND })
    t.sent()
    t.response('ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
    assert.deepEqual(t.completions(), ['1 RETRY_EXC', '2 FLUSH'])
  })
  for (const [title, syndrome, status] of [
    ['invalid request', NAK.INVALID, 'REM_INV_REQ'],
    ['remote access', NAK.ACCESS, 'REM_ACCESS'],
    ['remote operation', NAK.OPERATION, 'REM_OP'],
    ['invalid RD request', NAK.INVALID_RD, 'REM_INV_RD'],
  ] as const)
    it(`${title}: earlier requests succeed, the refused request fails, later requests are flushed`, () => {
      const t = startScript()
      t.postReceives(2, 10)
      t.post(
        { id: 1, opcode: SEND },
        { id: 2, opcode: SEND, ...sge(0, 2 * MTU), flags: 0 },
        { id: 3, opcode: SEND, flags: 0 },
      )
      t.sent()
      t.response('ACKNOWLEDGE', 2, { syndrome })
      assert.deepEqual(t.completions(), ['1 ok', `2 ${status}`, '3 FLUSH', '100 FLUSH', '101 FLUSH'])
      assert.deepEqual(t.node.flushes, ['1 sends', '2 receives'])
      assert.equal(t.node.engine.counters.sends, 1, 'failed SENDs are not counted')
      assert.ok(t.node.cqes.every(({ bytes }) => bytes === 0))
      assert.equal(t.state, ERR)
      assert.deepEqual(t.sent(), [])
      t.post({ id: 4, opcode: SEND, flags: 0 })
      t.postReceives(1, 10)
      t.node.engine.onReceiveScan(t.row)
      assert.deepEqual(t.completions(), ['4 FLUSH', '100 FLUSH'])
      // A scan that finds no new receives flushes nothing.
      t.node.engine.onReceiveScan(t.row)
      assert.deepEqual(t.node.flushes.slice(2), ['1 sends', '1 receives'])
      assert.equal(t.node.engine.nextTimeout(), Number.POSITIVE_INFINITY)
    })
})

describe('a receiver that is not ready', () => {
  /** An RNR NAK with timer code 1. */
  const RNR_10_US = { syndrome: rnrSyndrome(1) }
  it('is retried when the RNR timer expires', () => {
    const t = startScript()
    t.post({ id: 1, opcode: SEND, ...sge(0, MTU + 1) }, { id: 2, opcode: SEND })
    t.sent()
    // timer code 12: 640 µs
    t.response('ACKNOWLEDGE', 0, { syndrome: rnrSyndrome(12) })
    assert.deepEqual(t.sent(), [])
    // Linux also sends a sequence error for the following packets
    t.response('ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
    t.sleep(639)
    assert.deepEqual(t.sent(), [])
    t.sleep(1)
    assert.deepEqual(t.sent(), ['SEND_FIRST@0 [1024]', 'SEND_LAST@1 ackreq [1]', 'SEND_ONLY@2 ackreq'])
    const { receivedRnr, retries, retransmissions } = t.node.engine.counters
    assert.deepEqual([receivedRnr, retries, retransmissions], [1, 0, 1])
  })
  it('is retried; then requests that were not fetched before are sent too', () => {
    const twoPackets = 2 * (MTU + PACKET_WEIGHT)
    const t = startScript({}, { windowBytes: twoPackets })
    t.post(...[1, 2, 3, 4].map(id => ({ id, opcode: SEND, ...sge(0, MTU) })))
    assert.equal(t.sent().length, 2)
    t.response('ACKNOWLEDGE', 0, RNR_10_US)
    t.sleep(10)
    assert.equal(t.sent().length, 2)
    t.response('ACKNOWLEDGE', 1)
    assert.equal(t.sent().length, 2)
  })
  it('is retried in SQD; SQ_DRAINED comes with the ACK', () => {
    const t = startScript()
    t.post({ id: 1, opcode: SEND })
    t.sent()
    t.node.engine.modify(t.row, SQD, {})
    t.response('ACKNOWLEDGE', 0, RNR_10_US)
    t.sleep(10)
    assert.equal(t.sent().length, 1)
    assert.deepEqual(t.node.events, [])
    t.response('ACKNOWLEDGE', 0)
    assert.deepEqual(t.node.events, ['SQ_DRAINED'])
  })
  it('is retried rnr_retry times', () => {
    const t = startScript({ rnrRetry: 2 })
    t.post({ id: 1, opcode: SEND })
    for (let i = 0; i < 3; i++) {
      assert.equal(t.sent().length, 1)
      t.response('ACKNOWLEDGE', 0, RNR_10_US)
      t.sleep(10)
    }
    assert.deepEqual(t.completions(), ['1 RNR_RETRY_EXC'])
    assert.equal(t.node.engine.counters.rnrRetryExceeded, 1)
    assert.equal(t.state, ERR)
  })
  it('is reported once per try: an RNR NAK that arrives before the retry is ignored', () => {
    const t = startScript({ rnrRetry: 1 })
    t.post({ id: 1, opcode: SEND })
    t.sent()
    t.response('ACKNOWLEDGE', 0, RNR_10_US)
    t.node.port.freeRuns = 0 // The port is full.
    t.sleep(10)
    t.response('ACKNOWLEDGE', 0, RNR_10_US)
    t.node.port.freeRuns = Number.POSITIVE_INFINITY
    assert.deepEqual(t.sent(), ['SEND_ONLY@0 ackreq'])
    assert.deepEqual(t.completions(), [])
  })
  it('is retried without limit if rnr_retry is 7; progress resets the count', () => {
    const t = startScript({ rnrRetry: 7 })
    t.post({ id: 1, opcode: SEND })
    for (let naks = 1; naks <= 50; naks++) {
      assert.equal(t.sent().length, 1)
      t.response('ACKNOWLEDGE', 0, RNR_10_US)
      // From the 17th on the wait grows.
      t.sleep(Math.max(10, Math.floor((10 * naks) / 16)) - 1)
      assert.equal(t.sent().length, 0)
      t.sleep(1)
    }
    assert.equal(t.state, RTS)
    const once = startScript({ rnrRetry: 1 })
    once.post({ id: 1, opcode: SEND }, { id: 2, opcode: SEND })
    for (const psn of [0, 1]) {
      once.sent()
      once.response('ACKNOWLEDGE', psn, RNR_10_US)
      once.sleep(10)
    }
    assert.deepEqual(once.completions(), ['1 ok'])
    assert.equal(once.state, RTS)
  })
  it('does not count as a retry, although Linux also sends a late sequence error NAK each time', () => {
    const t = startScript({ rnrRetry: 7, retryCnt: 1 })
    t.post({ id: 1, opcode: SEND }, { id: 2, opcode: SEND })
    for (let i = 0; i < 5; i++) {
      assert.equal(t.sent().length, 2)
      t.response('ACKNOWLEDGE', 0, RNR_10_US)
      t.sleep(10)
      assert.equal(t.sent().length, 2)
      t.response('ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
      assert.equal(t.sent().length, 0)
      t.response('ACKNOWLEDGE', 0, RNR_10_US)
      t.sleep(10)
    }
    t.response('ACKNOWLEDGE', 1)
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
  })
  it('is retried after the longest time, 655.36 ms, if the timer code is 0', () => {
    const t = startScript()
    t.post({ id: 1, opcode: SEND })
    t.sent()
    t.response('ACKNOWLEDGE', 0, { syndrome: rnrSyndrome(0) })
    t.sleep(655359)
    assert.equal(t.sent().length, 0)
    t.sleep(1)
    assert.equal(t.sent().length, 1)
  })
})

describe('the ACK timeout', () => {
  it('causes a retransmission of every unacknowledged packet, retry_cnt times; 7 is not unlimited', () => {
    for (const retryCnt of [0, 3, 7]) {
      const t = startScript({ retryCnt })
      t.post({ id: 1, opcode: SEND, ...sge(0, MTU + 1) }, { id: 2, opcode: SEND })
      assert.equal(t.sent().length, 3)
      for (let i = 0; i < retryCnt; i++) {
        t.sleep(T14 - 1)
        assert.deepEqual(t.sent(), [])
        t.sleep(1)
        assert.deepEqual(t.sent(), ['SEND_FIRST@0 [1024]', 'SEND_LAST@1 ackreq [1]', 'SEND_ONLY@2 ackreq'])
      }
      t.sleep(T14)
      assert.deepEqual(t.completions(), ['1 RETRY_EXC', '2 FLUSH'])
      assert.equal(t.state, ERR)
      assert.equal(t.node.engine.counters.retryExceeded, 1)
    }
  })
  it('starts at the last progress, which resets the retry count', () => {
    const t = startScript({ retryCnt: 1 })
    t.post(...[1, 2, 3, 4].map(id => ({ id, opcode: SEND })))
    t.sent()
    t.sleep(T14 - 1)
    t.response('ACKNOWLEDGE', 0)
    t.sleep(T14 - 1)
    assert.deepEqual(t.sent(), [])
    t.sleep(1)
    assert.equal(t.sent().length, 3)
    t.response('ACKNOWLEDGE', 1)
    t.sleep(T14)
    assert.equal(t.sent().length, 2)
    assert.equal(t.state, RTS)
    t.sleep(T14)
    assert.deepEqual(t.completions(), ['1 ok', '2 ok', '3 RETRY_EXC', '4 FLUSH'])
  })
  it('starts with the first packet in flight, not with the last', () => {
    const t = startScript()
    t.post({ id: 1, opcode: SEND })
    t.sent()
    t.sleep(T14 / 2)
    t.post({ id: 2, opcode: SEND })
    t.sent()
    t.sleep(T14 / 2)
    assert.deepEqual(t.sent(), ['SEND_ONLY@0 ackreq', 'SEND_ONLY@1 ackreq'])
  })
  it('never expires if its code is 0', () => {
    const t = startScript({ timeout: 0 })
    t.post({ id: 1, opcode: SEND })
    t.sent()
    assert.equal(t.node.engine.nextTimeout(), Number.POSITIVE_INFINITY)
  })
  it('is extended once if noticed late, by the delay, at most by its own length', () => {
    for (const [delay, extension] of [
      [50, 50],
      [10 * T14, T14],
    ]) {
      const t = startScript({ retryCnt: 1 })
      const { engine } = t.node
      t.post({ id: 1, opcode: SEND })
      t.sent()
      // the process was suspended; packets that arrived meanwhile may still be in the socket
      let now = T14 + delay
      engine.onTimeout(now)
      assert.deepEqual(t.sent(), [])
      assert.equal(engine.nextTimeout(), now + extension)
      // late for the second time in a row: no extension
      now += extension + 7
      engine.onTimeout(now)
      t.node.transmit(now)
      assert.deepEqual(t.sent(), ['SEND_ONLY@0 ackreq'])
      assert.equal(engine.counters.retransmissions, 1)
      // after the retransmission, a delay of 3 µs extends the timeout again
      now += T14 + 3
      engine.onTimeout(now)
      assert.equal(engine.nextTimeout(), now + 3)
      t.response('ACKNOWLEDGE', 0)
      assert.deepEqual(t.completions(), ['1 ok'])
      assert.equal(engine.nextTimeout(), Number.POSITIVE_INFINITY)
    }
  })
  it('may be followed by a NAK of a sequence error, also after an earlier one: the requester retransmits again', () => {
    const t = startScript()
    t.post({ id: 1, opcode: SEND }, { id: 2, opcode: SEND })
    t.sent()
    t.response('ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
    assert.equal(t.sent().length, 2)
    t.sleep(T14)
    assert.equal(t.sent().length, 2)
    t.response('ACKNOWLEDGE', 0, { syndrome: NAK.SEQUENCE })
    assert.equal(t.sent().length, 2)
  })
  it('counts as one retry if an ACK shows a lost READ response before the retransmission', () => {
    const t = startScript({ retryCnt: 1 })
    t.post({ id: 1, opcode: READ, ...sge(0, 4) }, { id: 2, opcode: SEND })
    t.sent()
    t.node.port.freeRuns = 0 // The port is full.
    t.sleep(T14)
    t.response('ACKNOWLEDGE', 1)
    t.node.port.freeRuns = Number.POSITIVE_INFINITY
    assert.equal(t.sent().length, 2)
    assert.equal(t.node.engine.counters.retries, 1)
  })
  it('may be followed by a late ACK of more packets than were retransmitted', () => {
    const t = startScript()
    t.post(...[1, 2, 3].map(id => ({ id, opcode: SEND })))
    t.sent()
    t.node.port.freeRuns = 0 // The port is full.
    t.sleep(T14)
    assert.deepEqual(t.sent(), [])
    t.response('ACKNOWLEDGE', 1)
    t.node.port.freeRuns = Number.POSITIVE_INFINITY
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
    assert.deepEqual(t.sent(), ['SEND_ONLY@2 ackreq'])
  })
})

describe('a lost response', () => {
  const read = { id: 1, opcode: READ, remote: 9, ...sge(0, 5 * MTU) }
  it('of a READ: the requester reads again from the lost response to the end', () => {
    const t = startScript()
    t.post(read, { id: 2, opcode: SEND })
    t.sent()
    t.response('READ_RESP_FIRST', 0, { payload: MTU })
    t.response('READ_RESP_MIDDLE', 2, { payload: MTU })
    t.response('READ_RESP_MIDDLE', 3, { payload: MTU })
    assert.deepEqual(t.sent(), [`READ_REQUEST@1 ackreq reth +${9 + MTU}:${4 * MTU}`, 'SEND_ONLY@5 ackreq'])
    for (const psn of [1, 2, 3]) t.response('READ_RESP_MIDDLE', psn, { payload: MTU })
    t.response('READ_RESP_LAST', 4, { payload: MTU })
    t.response('ACKNOWLEDGE', 5)
    assert.deepEqual(t.completions(), ['1 ok', '2 ok'])
  })
  it('of a READ may be repeated as a FIRST, as hardware does', () => {
    const t = startScript()
    t.post(read)
    t.sent()
    t.response('READ_RESP_FIRST', 0, { payload: MTU })
    t.response('READ_RESP_MIDDLE', 3, { payload: MTU })
    t.sent()
    t.response('READ_RESP_FIRST', 1, { payload: MTU })
    for (const psn of [2, 3]) t.response('READ_RESP_MIDDLE', psn, { payload: MTU })
    t.response('READ_RESP_LAST', 4, { payload: MTU })
    assert.deepEqual(t.completions(), ['1 ok'])
  })
  it('is detected by an ACK of a later PSN', () => {
    const t = startScript()
    t.post({ id: 1, opcode: SEND }, { id: 2, opcode: FAA, ...sge(0, 8) }, { id: 3, opcode: SEND })
    t.sent()
    t.response('ACKNOWLEDGE', 2)
    assert.deepEqual(t.completions(), ['1 ok'])
    assert.deepEqual(t.sent(), ['FETCH_ADD@1 ackreq +0 swap 0 cmp 0', 'SEND_ONLY@2 ackreq'])
    t.response('ACKNOWLEDGE', 2)
    assert.deepEqual(t.sent(), [], 'only one retransmission until there is progress')
    t.response('ATOMIC_ACK', 1)
    t.response('ACKNOWLEDGE', 2)
    assert.deepEqual(t.completions(), ['2 ok', '3 ok'])
  })
  it('that was only late, and arrives before the retransmission, frees one place of max_rd_atomic, not two', () => {
    const t = startScript({ maxRdAtomic: 1 })
    t.post(...[1, 2, 3].map(id => ({ id, opcode: READ, ...sge(0, 4) })))
    assert.equal(t.sent().length, 1)
    t.node.port.freeRuns = 0 // The port is full.
    t.sleep(T14)
    assert.deepEqual(t.sent(), [])
    t.response('READ_RESP_ONLY', 0, { payload: 4 })
    t.node.port.freeRuns = Number.POSITIVE_INFINITY
    assert.deepEqual(t.sent(), ['READ_REQUEST@1 ackreq reth +0:4'])
  })
  it('is requested again after the timeout', () => {
    const t = startScript()
    t.post(read)
    t.sent()
    t.response('READ_RESP_FIRST', 0, { payload: MTU })
    t.sleep(T14)
    assert.deepEqual(t.sent(), [`READ_REQUEST@1 ackreq reth +${9 + MTU}:${4 * MTU}`])
  })
})

describe('an invalid response', () => {
  for (const [title, request, respond] of [
    [
      'a READ response that is too short',
      { opcode: READ, ...sge(0, 2 * MTU) },
      (t: Script) => t.response('READ_RESP_FIRST', 0, { payload: MTU - 4 }),
    ],
    [
      'an ONLY instead of the FIRST',
      { opcode: READ, ...sge(0, 2 * MTU) },
      (t: Script) => t.response('READ_RESP_ONLY', 0, { payload: MTU }),
    ],
    [
      'a MIDDLE instead of the ONLY',
      { opcode: READ, ...sge(0, MTU) },
      (t: Script) => t.response('READ_RESP_MIDDLE', 0, { payload: MTU }),
    ],
    [
      'a READ response to a SEND',
      { opcode: SEND, ...sge(0, MTU) },
      (t: Script) => t.response('READ_RESP_ONLY', 0, { payload: MTU }),
    ],
    ['an atomic response to a READ', { opcode: READ, ...sge(0, 8) }, (t: Script) => t.response('ATOMIC_ACK', 0)],
  ] as const)
    it(`completes the request with BAD_RESP: ${title}`, () => {
      const t = startScript()
      t.post({ id: 1, ...request, sges: [...request.sges] }, { id: 2, opcode: SEND })
      t.sent()
      respond(t)
      assert.deepEqual(t.completions(), ['1 BAD_RESP', '2 FLUSH'])
    })
})
